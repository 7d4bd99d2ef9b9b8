package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	dockerevents "github.com/docker/docker/api/types/events"

	"shoal/internal/api"
)

// listen gives what a stream of events says, one line each.
func (h *harness) listen(ctx context.Context, query string) <-chan string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://shoal/v1.50/events?"+query, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := h.client.Do(req) // returns with the header: before any event
	if err != nil {
		h.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
		h.t.Fatalf("%s %s", res.Status, res.Header)
	}
	lines := make(chan string, 100)
	go func() {
		defer res.Body.Close()
		defer close(lines)
		scan := bufio.NewScanner(res.Body)
		for scan.Scan() {
			var m dockerevents.Message
			if err := json.Unmarshal(scan.Bytes(), &m); err != nil {
				lines <- err.Error()
			}
			lines <- fmt.Sprint(m.Type, " ", m.Action, " ", m.Actor.ID)
		}
		if err := scan.Err(); err != nil {
			lines <- "cut off: " + err.Error()
		}
	}()
	return lines
}

func expect(t *testing.T, lines <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-lines:
			if !strings.HasPrefix(got, w) {
				t.Errorf("heard %q, want %q", got, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not heard", w)
		}
	}
}

// happen is an event of the cluster.
func (h *harness) happen(id string, at time.Time) {
	h.hub.Observe(at, nil, &api.Network{Meta: api.Meta{ID: id}})
}

func engineEvent(id string, at time.Time) string {
	raw, _ := json.Marshal(dockerevents.Message{Type: "container", Action: "start", Actor: dockerevents.Actor{ID: id}, TimeNano: at.UnixNano()})
	return string(raw) + "\n"
}

// TestEvents: the cluster's and the engine's, as they happen; an engine that goes
// away and comes back ends nothing.
func TestEvents(t *testing.T) {
	say, gone := make(chan string), make(chan struct{})
	e := newFakeEngine(t, "1.52", "1.44", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case line := <-say:
				_, _ = io.WriteString(w, line)
				_ = http.NewResponseController(w).Flush()
			case <-gone:
				panic(http.ErrAbortHandler)
			case <-r.Context().Done():
				return
			}
		}
	})
	h := newHarness(t, e.host)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	now := time.Now()
	h.happen("before", now)
	lines := h.listen(ctx, "")
	h.happen("replayed", now.Add(-time.Hour)) // a manager that starts hears of it again
	h.happen("a", now)
	expect(t, lines, "network create a")
	say <- engineEvent("c1", now)
	expect(t, lines, "container start c1")
	gone <- struct{}{}
	h.happen("b", now)
	expect(t, lines, "network create b")
	say <- engineEvent("c2", now)
	expect(t, lines, "container start c2")
	if want := "/v1.50/events?since="; !strings.HasPrefix(e.last(), want) {
		t.Errorf("the engine was asked %q again, want %s...", e.last(), want)
	}
	swarmOnly := h.listen(ctx, "filters="+url.QueryEscape(`{"scope":["swarm"]}`))
	h.happen("c", now)
	expect(t, lines, "network create c")
	expect(t, swarmOnly, "network create c")
}

// TestPastEvents come in order of time, whoever remembers them.
func TestPastEvents(t *testing.T) {
	begin := time.Now().Add(-time.Minute)
	second := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Second) }
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("until") != "" {
			_, _ = io.WriteString(w, engineEvent("c2", second(2))+engineEvent("c4", second(4)))
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	h := newHarness(t, e.host)
	for _, n := range []int{0, 1, 3, 5} {
		h.happen(fmt.Sprint("n", n), second(n))
	}
	query := "since=" + stamp(second(1))
	past := h.listen(t.Context(), query+"&until="+stamp(second(3)))
	expect(t, past, "network create n1", "container start c2", "network create n3", "container start c4", "")
	if !strings.Contains(e.last(), "since="+stamp(second(1))+"&until="+stamp(second(3))) {
		t.Errorf("the engine was asked %q", e.last())
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	both := h.listen(ctx, query)
	h.happen("n6", time.Now())
	expect(t, both, "network create n1", "container start c2", "network create n3", "container start c4", "network create n5", "network create n6")
	until := h.listen(t.Context(), "until="+stamp(time.Now().Add(200*time.Millisecond))) // ends by itself
	expect(t, until, "network create n0", "network create n1", "container start c2", "network create n3", "container start c4", "network create n5", "network create n6", "")
}

// TestEventsWithoutEngine go on, and say so.
func TestEventsWithoutEngine(t *testing.T) {
	h := newHarness(t, noEngine)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := h.listen(ctx, "")
	expect(t, lines, "daemon disconnect")
	h.happen("a", time.Now())
	expect(t, lines, "network create a")
}

func TestEventsRefused(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"message":"no such filter"}`)
	})
	h := newHarness(t, e.host)
	for query, want := range map[string]string{
		"":                  "no such filter",
		"since=x":           "invalid value for since",
		"since=20&until=10": "cannot be after",
		"filters=x":         "invalid filter",
	} {
		if status, _, body := h.call("GET", "/v1.50/events?"+query, ""); status != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

// TestSlowReaderOfEvents is cut off, and can tell.
func TestSlowReaderOfEvents(t *testing.T) {
	h := newHarness(t, noEngine)
	st := &eventStream{hub: h.hub, start: time.Now(), place: h.hub.Now()}
	for n := range 5000 {
		h.happen(fmt.Sprint(n), time.Now())
	}
	out := &eventWriter{httptest.NewRecorder(), http.NewResponseController(httptest.NewRecorder())}
	if err := st.write(t.Context(), out, nil); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("write: %v", err)
	}
}

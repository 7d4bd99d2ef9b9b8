package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	dockerevents "github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"shoal/internal/events"
)

const (
	// maxEvent bounds one event of an engine, in bytes: labels are in it.
	maxEvent = 1 << 20
	// engineAgain is how often an engine that is away is looked for.
	engineAgain = time.Second
)

// engineEvents reads an engine's stream of events. A nil one has none.
type engineEvents struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

// events asks the engine for events, in a version of the API that both it and
// the client know.
func (e *engine) events(ctx context.Context, v version, f filters.Args, since, until time.Time) (*engineEvents, error) {
	facts, err := e.know(ctx)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if f.Len() > 0 {
		text, err := filters.ToJSON(f)
		if err != nil {
			return nil, err
		}
		q.Set("filters", text)
	}
	if !since.IsZero() {
		q.Set("since", stamp(since))
	}
	if !until.IsZero() {
		q.Set("until", stamp(until))
	}
	res, err := e.get(ctx, "/v"+facts.speak(v).String()+"/events?"+q.Encode())
	if err != nil {
		return nil, e.unreachable(err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, refusal(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEvent)
	return &engineEvents{res.Body, lines}, nil
}

// next gives the next event, and when it was.
func (s *engineEvents) next() (line []byte, nanos int64, err error) {
	if s == nil || !s.lines.Scan() {
		return nil, 0, io.EOF // why it ended makes no difference
	}
	var at struct{ TimeNano int64 }
	if err := json.Unmarshal(s.lines.Bytes(), &at); err != nil {
		return nil, 0, err
	}
	return append([]byte(nil), s.lines.Bytes()...), at.TimeNano, nil
}

func (s *engineEvents) close() {
	if s != nil {
		_ = s.body.Close() // read as far as anybody wants
	}
}

// follow sends the engine's events until ctx ends. When the engine goes away the
// client is told so, as an event of the daemon: what happens meanwhile nobody
// hears. It is asked again until it is back.
func (st *eventStream) follow(ctx context.Context, src *engineEvents, since time.Time, out chan<- []byte) {
	send := func(line []byte) {
		if line == nil {
			return
		}
		select {
		case out <- line:
		case <-ctx.Done():
		}
	}
	away := false
	for {
		if src == nil {
			var err error
			if src, err = st.engine.events(ctx, st.version, st.filters, since, time.Time{}); err != nil && !away && ctx.Err() == nil {
				away = true
				send(st.daemonEvent("disconnect", err))
			}
		}
		if src != nil && away {
			away = false
			send(st.daemonEvent("connect", nil))
		}
		stop := context.AfterFunc(ctx, src.close) // ends a read that waits
		for line, at, err := src.next(); err == nil; line, at, err = src.next() {
			since = time.Unix(0, at+1)
			send(line)
		}
		if stop() {
			src.close()
		}
		if src = nil; since.IsZero() {
			since = st.start
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(engineAgain):
		}
	}
}

// daemonEvent tells of the engine itself; nil if the client does not want that.
func (st *eventStream) daemonEvent(action dockerevents.Action, err error) []byte {
	now := time.Now()
	hostname, _ := os.Hostname() // no name is better than no event
	m := dockerevents.Message{
		Type: dockerevents.DaemonEventType, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: dockerevents.Actor{ID: hostname, Attributes: map[string]string{"name": hostname}},
	}
	if err != nil {
		m.Actor.Attributes["error"] = err.Error()
	}
	if !events.Match(st.filters, &m) {
		return nil
	}
	line, _ := json.Marshal(m) // strings and numbers always encode
	return line
}

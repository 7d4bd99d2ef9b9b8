package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/pkg/stdcopy"

	"shoal/internal/api"
	"shoal/internal/control"
)

// byTask opens each task's log from a map of what it holds.
func byTask(logs map[string][]logEntry) *fakeLogs {
	return &fakeLogs{open: func(_ context.Context, id string, o api.LogOptions) (io.ReadCloser, error) {
		entries, ok := logs[id]
		if !ok {
			return nil, errdefs.ErrNotFound.WithMessage("no such container")
		}
		return io.NopCloser(bytes.NewReader(frames(o, entries...))), nil
	}}
}

func source(id string) control.LogSource {
	return control.LogSource{TaskID: id, NodeID: "node1", ServiceID: "svc", Hostname: "n1"}
}

// merge runs once over sources and gives what a client sees.
func merge(t *testing.T, logs Logs, o api.LogOptions, sources ...control.LogSource) (stdout, stderr string) {
	t.Helper()
	w := httptest.NewRecorder()
	m := &logMerger{logs: logs, opts: o, out: newLogWriter(w, o, false)}
	if err := m.once(t.Context(), func() ([]control.LogSource, bool) { return sources, true }); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errOut, w.Body); err != nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String()
}

func at(second int) string { return fmt.Sprintf("2026-11-22T10:00:%02d.000000000Z", second) }

func TestLogsAreMergedInOrderOfTime(t *testing.T) {
	logs := byTask(map[string][]logEntry{
		"a": {{1, at(1), "a1"}, {1, at(4), "a4"}},
		"b": {{1, at(2), "b2"}, {2, at(3), "b3"}, {1, at(5), "b5"}},
	})
	stdout, stderr := merge(t, logs, api.LogOptions{}, source("a"), source("b"), source("cleared away"))
	if stdout != "a1\nb2\na4\nb5\n" || stderr != "b3\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	stdout, _ = merge(t, logs, api.LogOptions{Timestamps: true, Details: true}, source("a"))
	want := at(1) + " com.docker.swarm.node.id=node1,com.docker.swarm.service.id=svc,com.docker.swarm.task.id=a,user=x a1\n"
	if !strings.HasPrefix(stdout, want) {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

func TestNodeThatDoesNotAnswerCostsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := byTask(map[string][]logEntry{"good": {{1, at(1), "here"}}})
		logs := &fakeLogs{open: func(ctx context.Context, id string, o api.LogOptions) (io.ReadCloser, error) {
			switch id {
			case "deaf", "deaf too": // never answers
				<-ctx.Done()
				return nil, ctx.Err()
			case "stuck": // stops in the middle
				r, w := io.Pipe()
				go func() { _, _ = w.Write(frames(o, logEntry{1, at(2), "half"})) }()
				return r, nil
			case "broken":
				return io.NopCloser(io.MultiReader(bytes.NewReader(frames(o, logEntry{1, at(3), "part"})), brokenReader{})), nil
			}
			return good.TaskLogs(ctx, "", id, o)
		}}
		stdout, stderr := merge(t, logs, api.LogOptions{}, source("good"), source("deaf"), source("deaf too"), source("stuck"), source("broken"))
		if stdout != "here\nhalf\npart\n" {
			t.Errorf("stdout %q", stdout)
		}
		for _, want := range []string{
			"warning: log of task deaf on node n1 is incomplete: the node does not answer\n",
			"warning: log of task stuck on node n1 is incomplete: the node does not answer for 10s\n",
			"warning: log of task broken on node n1 is incomplete: cable cut\n",
		} {
			if strings.Count(stderr, want) != 1 {
				t.Errorf("no %q in %q", want, stderr)
			}
		}
		if n := strings.Count(stderr, "warning: "); n != 3 {
			t.Errorf("%d warnings, want one for what is the same on a node: %q", n, stderr)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("cable cut") }

func TestGarbledLogIsAWarning(t *testing.T) {
	for name, raw := range map[string]string{
		"huge frame":   "\x01\x00\x00\x00\xff\xff\xff\xff",
		"cut short":    "\x01\x00\x00\x00\x00\x00\x00\x09abc",
		"engine error": "\x03\x00\x00\x00\x00\x00\x00\x04oops",
	} {
		logs := &fakeLogs{open: func(context.Context, string, api.LogOptions) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(raw)), nil
		}}
		if _, stderr := merge(t, logs, api.LogOptions{}, source("a")); strings.Count(stderr, "warning: log of task a") != 1 {
			t.Errorf("%s: %q", name, stderr)
		}
	}
}

func TestFollowPicksUpNewTasksAndEndsWithTheService(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	h.create("web", 1, "")
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://shoal/services/web/logs?stdout=1&follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != mediaMultiplexed {
		t.Errorf("content type %q", got)
	}
	out, feed := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		_, err := stdcopy.StdCopy(feed, io.Discard, res.Body)
		copied <- errors.Join(err, feed.Close())
	}()
	buf := make([]byte, 1024)
	next := func() string {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if got := next(); !strings.HasPrefix(got, "hello from ") {
		t.Fatalf("first task: %q", got)
	}
	svc := get[struct{ Version struct{ Index uint64 } }](h, "/services/web")
	body := `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest"}},"Mode":{"Replicated":{"Replicas":2}}}`
	if status, _, answer := h.call("POST", fmt.Sprintf("/services/web/update?version=%d", svc.Version.Index), body); status != 200 {
		t.Fatalf("scale: %d %s", status, answer)
	}
	if got := next(); !strings.HasPrefix(got, "hello from ") {
		t.Fatalf("second task: %q", got)
	}
	if status, _, answer := h.call("DELETE", "/services/web", ""); status != 200 {
		t.Fatalf("remove: %d %s", status, answer)
	}
	if _, err := out.Read(buf); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end of the service: %v", err)
	}
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
}

func TestTaskLogs(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	h.create("web", 1, "")
	tasks := get[[]struct{ ID string }](h, "/tasks")
	for _, follow := range []string{"0", "1"} {
		status, header, body := h.call("GET", "/v1.41/tasks/"+tasks[0].ID[:12]+"/logs?stdout=1&stderr=1&follow="+follow, "")
		if status != 200 || header.Get("Content-Type") != mediaRaw || !strings.Contains(body, "hello from "+tasks[0].ID) {
			t.Errorf("follow %s: %d %v %q", follow, status, header, body)
		}
	}
}

func TestTerminalIsRaw(t *testing.T) {
	w := httptest.NewRecorder()
	src := source("a")
	src.TTY = true
	logs := &fakeLogs{open: func(context.Context, string, api.LogOptions) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(at(1) + " one\r\n" + at(2) + " two")), nil
	}}
	m := &logMerger{logs: logs, out: newLogWriter(w, api.LogOptions{}, true)}
	if err := m.once(t.Context(), func() ([]control.LogSource, bool) { return []control.LogSource{src}, false }); err != nil {
		t.Fatal(err)
	}
	if w.Body.String() != "one\r\ntwo" {
		t.Errorf("%q", w.Body)
	}
}

// A log that is followed is taken up where it broke off; one that stays away
// costs a line, and ends with its task.
func TestFollowedLogOutlivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := []logEntry{{1, at(1), "one"}, {1, at(2), "two"}, {1, at(2), "two and a half"}, {1, at(3), "three"}, {1, at(4), "four"}}
		tries := 0
		logs := &fakeLogs{open: func(_ context.Context, _ string, o api.LogOptions) (io.ReadCloser, error) {
			tries++
			switch tries {
			case 1:
				return io.NopCloser(io.MultiReader(bytes.NewReader(frames(o, long[:2]...)), brokenReader{})), nil
			case 2, 3:
				return nil, errdefs.ErrUnavailable.WithMessage("the swarm has no leader")
			case 4: // an engine gives what is not older
				if o.Since != at(2) || o.Tail != "all" {
					t.Errorf("resumed since %s, tail %s", o.Since, o.Tail)
				}
				return io.NopCloser(io.MultiReader(bytes.NewReader(frames(o, long[1:4]...)), brokenReader{})), nil
			}
			if o.Since != at(3) {
				t.Errorf("resumed since %s", o.Since)
			}
			return io.NopCloser(bytes.NewReader(frames(o, long[3:]...))), nil
		}}
		if out, warned := followed(t, logs, source("a")); out != "one\ntwo\ntwo and a half\nthree\nfour\n" || warned != "" {
			t.Errorf("%q, warned %q", out, warned)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		logs := &fakeLogs{open: func(context.Context, string, api.LogOptions) (io.ReadCloser, error) {
			if time.Since(begun) > time.Hour {
				return io.NopCloser(strings.NewReader("")), nil
			}
			return nil, errdefs.ErrUnavailable.WithMessage("node node1 is not connected")
		}}
		if out, warned := followed(t, logs, source("a")); out != "" || strings.Count(warned, "\n") != 1 || !strings.Contains(warned, "not connected") {
			t.Errorf("%q, warned %q", out, warned)
		}
		src := source("a")
		src.Down, src.Ended = true, true
		begun = time.Now()
		if _, warned := followed(t, logs, src); strings.Count(warned, "\n") != 1 || time.Since(begun) > time.Minute {
			t.Errorf("a task that has ended on a node that is down: %q after %s", warned, time.Since(begun))
		}
	})
}

// followed gives what a client sees of one task's log.
func followed(t *testing.T, logs Logs, src control.LogSource) (out, warned string) {
	t.Helper()
	w := httptest.NewRecorder()
	m := &logMerger{
		logs: logs, opts: api.LogOptions{Follow: true, Tail: "2"}, out: newLogWriter(w, api.LogOptions{}, false),
		source: func(string) (control.LogSource, bool) { return src, true },
	}
	ch := make(chan message)
	done := make(chan error, 1)
	go func() { defer close(ch); done <- m.keepReading(t.Context(), src, ch) }()
	for msg := range ch {
		if err := m.out.write(msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(<-done, m.out.flush()); err != nil {
		t.Error(err)
	}
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, w.Body); err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	timetypes "github.com/docker/docker/api/types/time"

	"shoal/internal/api"
	"shoal/internal/control"
)

const (
	mediaMultiplexed = "application/vnd.docker.multiplexed-stream"
	mediaRaw         = "application/vnd.docker.raw-stream"
)

func (s *server) serviceLogs(w http.ResponseWriter, r *request) error {
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	svc, err := r.control.Service(r.vars["id"], false)
	if err != nil {
		return err
	}
	tty := svc.Spec.TaskTemplate.ContainerSpec != nil && svc.Spec.TaskTemplate.ContainerSpec.TTY
	return s.streamLogs(w, r, opts, tty, func() ([]control.LogSource, bool) { return r.control.LogSources(svc.ID) })
}

func (s *server) taskLogs(w http.ResponseWriter, r *request) error {
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	first, _, err := r.control.LogSource(r.vars["id"])
	if err != nil {
		return err
	}
	seen := false
	return s.streamLogs(w, r, opts, first.TTY, func() ([]control.LogSource, bool) {
		src, ready, err := r.control.LogSource(first.TaskID)
		if seen = seen || ready; err != nil || !ready {
			return nil, err == nil && !seen
		}
		return []control.LogSource{src}, false // a task has one container: nothing more can come
	})
}

// near answers a request for logs that are followed: by the manager that was
// asked, from its own copy of the state. So the answer goes on when the leader
// changes. What ends by itself comes from the leader, and so does what this
// manager has not heard of yet.
func (s *server) near(w http.ResponseWriter, r *request, route *route) error {
	follow, err := r.flag("follow")
	if err != nil {
		return err
	}
	if !follow || r.control != nil || callerOf(r.Context()) == forwarded {
		return s.byLeader(w, r, route)
	}
	if r.control = s.node.Replica(); r.control != nil {
		if err := route.serve(w, r); !errdefs.IsNotFound(err) {
			return err
		}
		r.control = nil
	}
	return s.byLeader(w, r, route)
}

// taskOutput gives one task's output as it is, for a manager that makes an
// answer of it. It breaks off where the output does, so that the other one knows
// an end from an interruption.
func (s *server) taskOutput(w http.ResponseWriter, r *request) error {
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	src, _, err := r.control.LogSource(r.vars["id"])
	if err != nil {
		return err
	}
	out, err := s.logs.TaskLogs(r.Context(), src.NodeID, src.TaskID, opts)
	if err != nil {
		return err
	}
	defer out.Close()
	defer context.AfterFunc(r.Context(), func() { _ = out.Close() })() // ends a read that waits
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		return nil // nobody listens any more
	}
	if _, err := io.Copy(flushing{w, rc}, out); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// OutputPath is where the leader gives the output of a task to other managers.
func OutputPath(taskID string, o api.LogOptions) string {
	q := url.Values{}
	for name, on := range map[string]bool{
		"stdout": o.Stdout, "stderr": o.Stderr, "follow": o.Follow, "timestamps": o.Timestamps, "details": o.Details,
	} {
		if on {
			q.Set(name, "1")
		}
	}
	for name, value := range map[string]string{"tail": o.Tail, "since": o.Since, "until": o.Until} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return "/shoal/tasks/" + url.PathEscape(taskID) + "/output?" + q.Encode()
}

// logOptions are checked before the answer begins: after that there is no status
// to tell of a mistake.
func logOptions(r *request) (api.LogOptions, error) {
	var o api.LogOptions
	for name, into := range map[string]*bool{
		"stdout": &o.Stdout, "stderr": &o.Stderr, "follow": &o.Follow, "timestamps": &o.Timestamps, "details": &o.Details,
	} {
		var err error
		if *into, err = r.flag(name); err != nil {
			return o, err
		}
	}
	if !o.Stdout && !o.Stderr {
		//lint:ignore ST1005 Docker's words
		return o, errors.New("Bad parameters: you must choose at least one stream")
	}
	q := r.URL.Query()
	if o.Tail = q.Get("tail"); o.Tail == "" {
		o.Tail = "all"
	}
	if o.Tail != "all" {
		switch n, err := strconv.Atoi(o.Tail); {
		case err != nil:
			return o, fmt.Errorf(`tail value must be a positive integer or "all": %q is neither`, o.Tail)
		case n < 0:
			return o, errors.New("negative tail values not supported")
		}
	}
	for name, into := range map[string]*string{"since": &o.Since, "until": &o.Until} {
		value := q.Get(name)
		if value == "" {
			continue
		}
		// Nodes get a point in time: "10m ago" means ago from here.
		at, err := timetypes.GetTimestamp(value, time.Now())
		if err == nil {
			_, _, err = timetypes.ParseTimestamps(at, 0)
		}
		if err != nil {
			return o, invalid("could not parse %s timestamp: %v", name, err)
		}
		*into = at
	}
	return o, nil
}

// streamLogs answers with the output of all sources. With follow it goes on
// until none can come any more; without, it ends after what there is.
func (s *server) streamLogs(w http.ResponseWriter, r *request, o api.LogOptions, tty bool, sources sourceList) error {
	media := mediaRaw
	if !tty && !r.version.less(version{1, 42}) {
		media = mediaMultiplexed
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	out := newLogWriter(w, o, tty)
	if err := out.flush(); err != nil {
		return nil // the client is gone
	}
	m := &logMerger{logs: s.logs, opts: o, out: out, source: func(taskID string) (control.LogSource, bool) {
		src, _, err := r.control.LogSource(taskID)
		return src, err == nil
	}}
	var err error
	if o.Follow {
		feed := r.control.Watch(api.KindTask, api.KindService)
		defer feed.Close()
		err = m.follow(r.Context(), feed, sources)
	} else {
		err = m.once(r.Context(), sources)
	}
	if err != nil {
		s.log.Debug("log stream ended: " + err.Error())
	}
	return nil
}

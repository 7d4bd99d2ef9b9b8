package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerevents "github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"go.uber.org/zap"

	"shoal/internal/events"
)

const (
	// writeTime is how long a reader of events may leave its connection full.
	writeTime = 30 * time.Second
	// clockSkew is by how much the leader's clock may be behind this manager's.
	// A manager that starts hears again of what happened before: older events
	// are not news.
	clockSkew = 10 * time.Second
)

// eventQuery is what a reader of events wants to know.
type eventQuery struct {
	filters      filters.Args
	since, until time.Time // zero if not given
}

func (r *request) eventQuery() (q eventQuery, err error) {
	if q.filters, err = r.filters(); err != nil {
		return q, err
	}
	for name, into := range map[string]*time.Time{"since": &q.since, "until": &q.until} {
		v, err := r.query(name)
		if err != nil {
			return q, err
		}
		if *into, err = parseStamp(v); err != nil {
			return q, invalid("invalid value for %s: %v", name, err)
		}
	}
	if !q.since.IsZero() && !q.until.IsZero() && q.until.Before(q.since) {
		return q, invalid("`since` time (%d) cannot be after `until` time (%d)", q.since.Unix(), q.until.Unix())
	}
	return q, nil
}

// parseStamp reads seconds and fractions since 1970, as clients send times.
func parseStamp(v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(v, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a number of seconds", v)
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	nanos, err := strconv.ParseUint("0"+fraction+strings.Repeat("0", 9-len(fraction)), 10, 32)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a number of seconds", v)
	}
	return time.Unix(seconds, int64(nanos)), nil
}

func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// getEvents tells what happens to the cluster, as this manager learns it, and to
// the objects of its engine, in one stream. What is past comes in order of time,
// the rest as it happens.
func (s *server) getEvents(w http.ResponseWriter, r *request) error {
	q, err := r.eventQuery()
	if err != nil {
		return err
	}
	st := &eventStream{
		eventQuery: q, hub: s.events, engine: s.engine, version: r.version,
		local: !events.OnlyCluster(q.filters), start: time.Now(), place: s.events.Now(),
	}
	ctx, cancel := context.WithCancel(r.Context())
	if !q.until.IsZero() {
		ctx, cancel = context.WithDeadline(r.Context(), q.until)
	}
	defer cancel()
	// The engine is asked before the answer begins: what it refuses is refused.
	src, err := st.open(r.Context()) // not ctx: the engine has all of the past even if its time is over
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := &eventWriter{w, http.NewResponseController(w)}
	err = st.write(ctx, out, src)
	if err == nil && (st.isPast() || errors.Is(ctx.Err(), context.DeadlineExceeded)) {
		return nil
	}
	// Any other end must not look like one that the client asked for.
	if err != nil && r.Context().Err() == nil {
		s.log.Warn("a stream of events is cut off", zap.Error(err))
	}
	panic(http.ErrAbortHandler)
}

// eventStream is what one client hears.
type eventStream struct {
	eventQuery
	hub     *events.Hub
	engine  *engine
	version version
	local   bool      // the engine's events, too
	start   time.Time // what was before is past
	place   uint64    // of the cluster's first event after that
}

// hasPast tells whether the client asked for what has been.
func (st *eventStream) hasPast() bool { return !st.since.IsZero() || !st.until.IsZero() }

// isPast tells whether it asked for that alone.
func (st *eventStream) isPast() bool { return !st.until.IsZero() && st.until.Before(st.start) }

// open asks the engine for its past events or, where these are not wanted, for
// those to come. There is none if the engine does not answer: that is no reason
// to keep the cluster's.
func (st *eventStream) open(ctx context.Context) (*engineEvents, error) {
	if !st.local {
		return nil, nil
	}
	since, until := time.Time{}, time.Time{}
	if st.hasPast() {
		since, until = st.since, st.start
		if st.isPast() {
			until = st.until
		}
	}
	src, err := st.engine.events(ctx, st.version, st.filters, since, until)
	if errdefs.IsUnavailable(err) {
		return nil, nil
	}
	return src, err
}

// write tells events until the client goes, or until the time it named.
func (st *eventStream) write(ctx context.Context, out *eventWriter, src *engineEvents) error {
	if err := out.flush(); err != nil { // clients wait for the header
		src.close()
		return err
	}
	since := time.Time{}
	if st.hasPast() {
		err := st.writePast(out, src)
		src.close()
		if err != nil || st.isPast() {
			return err
		}
		src, since = nil, st.start.Add(1)
	}
	var engine chan []byte // nil: never ready
	if st.local {
		engine = make(chan []byte)
		ctx, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			st.follow(ctx, src, since, engine)
		}()
		defer func() {
			stop()
			<-done
		}()
	}
	for place := st.place; ; {
		m, ready, err := st.hub.From(place)
		if err != nil {
			return err
		}
		if ready == nil {
			place++
			if m.TimeNano < st.start.Add(-clockSkew).UnixNano() || !events.Match(st.filters, &m) {
				continue
			}
			if err := out.message(&m); err != nil {
				return err
			}
			continue
		}
		select {
		case line := <-engine:
			if err := out.line(line); err != nil {
				return err
			}
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}
}

// writePast merges what is remembered here with what the engine remembers.
func (st *eventStream) writePast(out *eventWriter, src *engineEvents) error {
	line, at, err := src.next()
	engineBefore := func(limit int64) error {
		for err == nil && at <= limit {
			if err := out.line(line); err != nil {
				return err
			}
			line, at, err = src.next()
		}
		return nil
	}
	for _, m := range st.hub.Before(st.place) {
		late := !st.until.IsZero() && m.TimeNano > st.until.UnixNano()
		if m.TimeNano < st.since.UnixNano() && !st.since.IsZero() || late || !events.Match(st.filters, &m) {
			continue
		}
		if err := engineBefore(m.TimeNano); err != nil {
			return err
		}
		if err := out.message(&m); err != nil {
			return err
		}
	}
	return engineBefore(math.MaxInt64)
}

// eventWriter lets go of each event at once, and does not wait for ever for a
// client to take it.
type eventWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (w *eventWriter) message(m *dockerevents.Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return w.line(line)
}

func (w *eventWriter) line(line []byte) error {
	_ = w.rc.SetWriteDeadline(time.Now().Add(writeTime)) // what can not have one has no slow reader
	if _, err := w.w.Write(append(line, '\n')); err != nil {
		return err
	}
	return w.rc.Flush()
}

func (w *eventWriter) flush() error { return w.rc.Flush() }

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/store"
)

const (
	// openTime is how long a node may take to begin with a task's log.
	openTime = 5 * time.Second
	// quietTime is how long it may pause within what is already written.
	quietTime = 10 * time.Second
	// ahead is how many messages of a task are read before their turn.
	ahead = 64
)

// sourceList gives the sources as of now, and whether more may come.
type sourceList func() (sources []control.LogSource, more bool)

// logMerger makes one stream out of the logs of many tasks. A node that does not
// answer costs one line of warning, never the rest of the log.
type logMerger struct {
	logs Logs
	opts api.LogOptions
	out  *logWriter
	// source tells how a task is by now; false when it is gone. It is asked
	// where a followed log breaks off.
	source func(taskID string) (control.LogSource, bool)
}

var errNoAnswer = errors.New("the node does not answer")

// read sends a source's messages to ch until it ends.
func (m *logMerger) read(ctx context.Context, src control.LogSource, ch chan<- message) error {
	return m.readFrom(ctx, src, &place{}, ch)
}

// readFrom reads on from a place, and keeps it.
func (m *logMerger) readFrom(ctx context.Context, src control.LogSource, p *place, ch chan<- message) error {
	o := p.options(m.opts)
	rc, err := m.open(ctx, src, o)
	if errdefs.IsNotFound(err) {
		return nil // its container was cleared away
	}
	if err != nil {
		return err
	}
	p.opened = true
	stop := context.AfterFunc(ctx, func() { _ = rc.Close() }) // ends a read that waits
	defer func() {
		if stop() {
			_ = rc.Close() // read to its end, nothing to lose
		}
	}()
	return readMessages(rc, src, o.Details, func(msg message) bool {
		if !p.pass(msg) {
			return true
		}
		select {
		case ch <- msg:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// open bounds the wait for a log to begin, but not the log.
func (m *logMerger) open(ctx context.Context, src control.LogSource, o api.LogOptions) (io.ReadCloser, error) {
	opening, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(openTime, func() { cancel(errNoAnswer) })
	rc, err := m.logs.TaskLogs(opening, src.NodeID, src.TaskID, o)
	if !limit.Stop() && err == nil {
		err = errors.Join(errNoAnswer, rc.Close())
	}
	if err != nil {
		if errors.Is(context.Cause(opening), errNoAnswer) {
			err = errNoAnswer
		}
		cancel(err)
		return nil, err
	}
	return cancelReader{rc, func() { cancel(nil) }}, nil
}

// cancelReader ends the request with the reading of its answer.
type cancelReader struct {
	io.ReadCloser
	cancel func()
}

func (r cancelReader) Close() error {
	defer r.cancel()
	return r.ReadCloser.Close()
}

// head is a source with its next message.
type head struct {
	src    control.LogSource
	ch     <-chan message
	err    error // why ch was closed; read after that
	cancel func()
	next   *message
}

// once writes what there is, in order of time, and ends.
func (m *logMerger) once(ctx context.Context, list sourceList) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()

	sources, _ := list()
	var heads []*head
	for _, src := range sources {
		ch := make(chan message, ahead)
		h := &head{src: src, ch: ch}
		var each context.Context
		each, h.cancel = context.WithCancel(ctx)
		readers.Go(func() {
			defer close(ch)
			h.err = m.read(each, src, ch)
		})
		heads = append(heads, h)
	}
	for {
		var oldest *head
		for _, h := range heads {
			if err := m.fill(ctx, h); err != nil {
				return err
			}
			if h.next != nil && (oldest == nil || h.next.at < oldest.next.at) {
				oldest = h
			}
		}
		if oldest == nil {
			return m.out.flush()
		}
		if err := m.out.write(*oldest.next); err != nil {
			return err
		}
		oldest.next = nil
	}
}

// fill waits for a source's next message. A source that ended has none and a
// nil channel.
func (m *logMerger) fill(ctx context.Context, h *head) error {
	if h.next != nil || h.ch == nil {
		return nil
	}
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	select {
	case msg, ok := <-h.ch:
		if ok {
			h.next = &msg
			return nil
		}
		h.ch = nil
		h.cancel()
		if h.err != nil {
			return m.out.warn(h.src, h.err)
		}
		return nil
	case <-quiet.C:
		h.ch = nil
		h.cancel()
		return m.out.warn(h.src, fmt.Errorf("%w for %s", errNoAnswer, quietTime))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow writes messages as they come, from tasks there are and tasks to be.
func (m *logMerger) follow(ctx context.Context, changes *store.Feed, list sourceList) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()

	type ending struct {
		src control.LogSource
		err error
	}
	messages, ended := make(chan message, ahead), make(chan ending)
	seen := map[string]bool{}
	running, more := 0, true
	start := func() {
		var sources []control.LogSource
		sources, more = list()
		for _, src := range sources {
			if seen[src.TaskID] {
				continue
			}
			seen[src.TaskID] = true
			running++
			readers.Go(func() {
				err := m.keepReading(ctx, src, messages)
				select {
				case ended <- ending{src, err}:
				case <-ctx.Done():
				}
			})
		}
	}
	for running > 0 || more {
		var err error
		select {
		case msg := <-messages:
			err = m.out.write(msg)
		case e := <-ended:
			running--
			if err = m.drain(messages); err == nil && e.err != nil {
				err = m.out.warn(e.src, e.err)
			}
		case <-changes.Ready():
			changes.Take()
			start()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err == nil && len(messages) == 0 {
			err = m.out.flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// drain writes what a source sent before it ended.
func (m *logMerger) drain(messages <-chan message) error {
	for {
		select {
		case msg := <-messages:
			if err := m.out.write(msg); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"shoal/internal/api"
	"shoal/internal/wake"
)

// conn is one node's session, at the leader.
type conn struct {
	server  *Server
	nodeID  string
	ctx     context.Context
	cancel  context.CancelCauseFunc
	onClose func()
	done    chan struct{}

	progress progress

	woken wake.Bell // something may have changed
	out   chan down // frames out of turn: calls
}

func newConn(s *Server, ctx context.Context, nodeID string) *conn {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &conn{
		server: s, nodeID: nodeID, ctx: ctx, cancel: cancel, done: make(chan struct{}),
		woken: wake.NewBell(), out: make(chan down),
	}
	c.woken.Ring()
	return c
}

// serve speaks with the node until one of the two has enough.
func (c *conn) serve(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("open session: %w", err) // HTTP/2 is full duplex without being asked
	}
	// A read or a write that is under way hears of the end by its deadline.
	defer atEnd(c.ctx, func() {
		_ = rc.SetReadDeadline(past)
		_ = rc.SetWriteDeadline(past)
	})()
	hush := time.AfterFunc(helloTimeout, func() { c.cancel(errors.New("no Hello")) })
	frames := newFrameReader(r.Body)
	var first up
	err := frames.next(&first)
	hush.Stop()
	if err != nil {
		return c.cause(err)
	}
	if first.Hello == nil {
		return errors.New("the first frame of a session must be a Hello")
	}
	if err := c.server.pulse.hello(c.ctx, c.nodeID, first.Hello); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)

	// Whichever of the two ends first ends the other.
	var g errgroup.Group
	g.Go(func() error {
		err := c.read(c.ctx, frames)
		c.cancel(err)
		return err
	})
	g.Go(func() error {
		err := c.write(c.ctx, w, rc)
		c.cancel(err)
		return err
	})
	return c.cause(g.Wait())
}

// past is a deadline for what should end at once.
var past = time.Unix(1, 0)

// atEnd calls f when ctx ends. What it returns takes that back, or waits for f:
// after a handler has returned, nobody may touch its connection.
func atEnd(ctx context.Context, f func()) (done func()) {
	called := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(called)
		f()
	})
	return func() {
		if !stop() {
			<-called
		}
	}
}

// helloTimeout bounds how long a node may take over its first frame.
const helloTimeout = 10 * time.Second

// cause prefers why the session was ended to how that showed.
func (c *conn) cause(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	return err
}

// read takes in what the node says.
func (c *conn) read(ctx context.Context, frames *frameReader) error {
	period := c.server.heartbeat()
	for {
		var f up
		if err := frames.next(&f); err != nil {
			return err
		}
		if f.Period > 0 {
			period = f.Period
		}
		c.server.pulse.alive(c.nodeID, period)
		switch {
		case f.Hello != nil:
			if err := c.server.pulse.hello(ctx, c.nodeID, f.Hello); err != nil {
				return err
			}
		case f.Report != nil:
			c.server.status.add(c.nodeID, *f.Report)
		case f.Applied > 0:
			c.progress.acknowledges(f.Applied)
			c.server.progress.Ring()
		}
	}
}

// write streams the state, first whole and then what changed, each time from
// what was sent last to what is now: changes that came meanwhile go together.
func (c *conn) write(ctx context.Context, w io.Writer, rc *http.ResponseController) error {
	enc := json.NewEncoder(w)
	period := c.server.heartbeat()
	ticker := time.NewTicker(beat(period))
	defer ticker.Stop()

	hello := welcome{Heartbeat: period}
	if cl := c.server.cfg.Store.View().Cluster(); cl != nil {
		hello.ClusterID, hello.DataPathPort, hello.AddrPools = cl.ID, cl.DataPathPort, cl.Pools()
	}
	if err := enc.Encode(down{Welcome: &hello}); err != nil {
		return err
	}
	var (
		sent    *api.NodeState
		commits uint64
	)
	for {
		var frames []down
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			frames = []down{{Beat: true}}
		case f := <-c.out:
			frames = []down{f}
		case <-c.woken:
			next, generation := c.server.target(c.nodeID)
			if next == nil {
				return fmt.Errorf("node %s was removed from the cluster", c.nodeID)
			}
			frames = diff(sent, next)
			if p := c.server.heartbeat(); p != period {
				period = p
				ticker.Reset(beat(period))
				frames = append(frames, down{Heartbeat: period})
			}
			if len(frames) > 0 || sent == nil {
				commits++
				frames = append(frames, down{Commit: &commit{Index: next.Index, Number: commits}})
				c.progress.sends(commits, generation)
			} else {
				c.progress.skips(generation)
				c.server.progress.Ring()
			}
			sent = next
		}
		for i := range frames {
			if err := enc.Encode(&frames[i]); err != nil {
				return fmt.Errorf("send to node %s: %w", c.nodeID, err)
			}
		}
		if err := rc.Flush(); err != nil {
			return fmt.Errorf("send to node %s: %w", c.nodeID, err)
		}
	}
}

// send puts a frame into the stream out of turn.
func (c *conn) send(ctx context.Context, f down) error {
	select {
	case c.out <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return fmt.Errorf("node %s: connection lost: %w", c.nodeID, errdefs.ErrUnavailable)
	}
}

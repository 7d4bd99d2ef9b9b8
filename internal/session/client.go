package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs/pkg/errhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"shoal/internal/api"
	"shoal/internal/wake"
)

// Bounds of the pause between two attempts to connect. The first is short: a
// manager that restarts is back within a second.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
)

// Method answers a call: it writes its output to w. An error that it returns
// before it wrote anything is the caller's answer; so a method whose output may
// be long in coming writes an empty slice as soon as it knows that it can.
type Method func(ctx context.Context, args json.RawMessage, w io.Writer) error

// Dialogue is a method that takes input while it runs. It may read from in only
// once it has begun to write.
type Dialogue func(ctx context.Context, args json.RawMessage, in io.ReadCloser, w io.Writer) error

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// Leader gives the transport to the manager that leads, as far as is known,
	// and its base URL.
	Leader func(ctx context.Context) (http.RoundTripper, string, error)
	// Moved is told when the manager that was asked names another as leader.
	Moved func(nodeID, addr string)
	// Apply receives complete states, in order: the newest whenever it has
	// returned, and not those that came and went meanwhile. It may take its time.
	// When it returns without an error, nothing here gives new connections to a
	// task that the state does not list; the leader is told so.
	Apply   func(ctx context.Context, s *api.NodeState) error
	Methods map[string]Method
	// Dialogues are more methods, of other names.
	Dialogues map[string]Dialogue
	// Online, if set, is told when a session with the leader begins and ends.
	Online func(bool)
	Log    *zap.Logger
}

// Client is the node's end of the session. It connects again whenever the
// connection ends, to whoever leads then, and says everything again.
type Client struct {
	cfg ClientConfig
	log *zap.Logger

	mu      sync.Mutex
	hello   Hello
	greeted bool                      // hello was given
	latest  map[string]api.TaskReport // last word on each task in the state
	unsent  map[string]bool           // tasks whose last word is not sent yet
	rehello bool                      // hello is not sent yet
	applied uint64                    // the last commit of the session that was; 0 when that was said
	ready   wake.Bell
}

// NewClient wires a client.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Online == nil {
		cfg.Online = func(bool) {}
	}
	return &Client{
		cfg: cfg, log: cfg.Log.Named("session"),
		latest: map[string]api.TaskReport{}, unsent: map[string]bool{}, ready: wake.NewBell(),
	}
}

// Hello sets what the node says of itself. Nothing is sent before the first.
func (c *Client) Hello(h Hello) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.greeted && reflect.DeepEqual(c.hello, h) {
		return
	}
	c.hello, c.greeted, c.rehello = h, true, true
	c.ready.Ring()
}

// Report passes on what was observed of tasks.
func (c *Client) Report(reports []api.TaskReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range reports {
		c.latest[r.TaskID] = r
		c.unsent[r.TaskID] = true
	}
	c.ready.Ring()
}

// take gives what is to be sent now.
func (c *Client) take() []up {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []up
	if c.rehello {
		h := c.hello
		out = append(out, up{Hello: &h})
		c.rehello = false
	}
	for id := range c.unsent {
		r := c.latest[id]
		out = append(out, up{Report: &r})
	}
	clear(c.unsent)
	if c.applied > 0 {
		out = append(out, up{Applied: c.applied})
		c.applied = 0
	}
	return out
}

// acknowledge says that a commit was applied.
func (c *Client) acknowledge(number uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = number
	c.ready.Ring()
}

// again marks everything for sending: a new leader knows only what was
// committed.
func (c *Client) again() (greeted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rehello, c.applied = c.greeted, 0
	for id := range c.latest {
		c.unsent[id] = true
	}
	return c.greeted
}

// forget drops what is known of tasks that the managers have forgotten.
func (c *Client) forget(s *api.NodeState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.latest {
		if s.Tasks[id] == nil {
			delete(c.latest, id)
			delete(c.unsent, id)
		}
	}
}

// Run keeps a session until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	pause := minPause
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ready:
		}
		if !c.again() {
			continue
		}
		connected := false
		err := c.session(ctx, func() { connected = true; c.cfg.Online(true) })
		c.cfg.Online(false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if connected {
			pause = minPause
		}
		c.log.Info("session lost; connecting again", zap.Error(err), zap.Duration("pause", pause))
		// Jitter keeps a thousand nodes from calling a new leader at once.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, maxPause)
		c.ready.Ring()
	}
}

// session holds one connection for as long as it lasts.
func (c *Client) session(ctx context.Context, connected func()) error {
	transport, base, err := c.cfg.Leader(ctx)
	if err != nil {
		return err
	}
	if c, ok := transport.(interface{ CloseIdleConnections() }); ok {
		defer c.CloseIdleConnections()
	}
	g, ctx := errgroup.WithContext(ctx)
	body, stream := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+PathSession, body)
	if err != nil {
		return err
	}
	period := make(chan time.Duration, 1)
	g.Go(func() error {
		err := c.write(ctx, stream, period)
		_ = stream.CloseWithError(err)
		return err
	})
	g.Go(func() error {
		defer body.Close()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			if id, addr, ok := strings.Cut(resp.Header.Get(LeaderHeader), " "); ok {
				c.cfg.Moved(id, addr)
			}
			msg, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
			return fmt.Errorf("refused: %s", strings.TrimSpace(string(msg)))
		}
		connected()
		return c.read(ctx, g, transport, base, resp.Body, period)
	})
	return g.Wait()
}

// write streams what the node has to say.
func (c *Client) write(ctx context.Context, w io.Writer, period <-chan time.Duration) error {
	enc := json.NewEncoder(w)
	ticker := time.NewTicker(beat(defaultHeartbeat))
	defer ticker.Stop()
	c.ready.Ring()
	for {
		var frames []up
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d := <-period:
			ticker.Reset(beat(d))
			frames = []up{{Period: d}}
		case <-ticker.C:
			frames = []up{{Beat: true}}
		case <-c.ready:
			frames = c.take()
		}
		for i := range frames {
			if err := enc.Encode(&frames[i]); err != nil {
				return err
			}
		}
	}
}

// leaderPatience is how many heartbeats of the leader may be missing before the
// node looks for another. To be wrong costs no more than connecting again.
const leaderPatience = 6

// read takes in what the leader says.
func (c *Client) read(ctx context.Context, g *errgroup.Group, transport http.RoundTripper, base string, body io.ReadCloser, period chan<- time.Duration) error {
	frames := newFrameReader(body)
	var f down
	if err := frames.next(&f); err != nil {
		return err
	}
	if f.Welcome == nil || f.Welcome.Heartbeat <= 0 {
		return errors.New("the first frame of the leader must be a welcome")
	}
	period <- f.Welcome.Heartbeat
	patience := leaderPatience * beat(f.Welcome.Heartbeat)
	silence := time.AfterFunc(patience, func() { _ = body.Close() })
	defer silence.Stop()

	// Beside the reading: what the leader says meanwhile is a sign of life, too.
	states := make(chan complete, 1)
	g.Go(func() error { return c.apply(ctx, states) })
	a := newAssembly(*f.Welcome)
	for {
		var f down
		if err := frames.next(&f); err != nil {
			return err
		}
		silence.Reset(patience)
		switch {
		case f.Heartbeat > 0:
			patience = leaderPatience * beat(f.Heartbeat)
			silence.Reset(patience)
			select {
			case period <- f.Heartbeat:
			case <-ctx.Done():
				return ctx.Err()
			}
		case f.Call != nil:
			g.Go(func() error {
				c.answer(ctx, transport, base, f.Call)
				return nil
			})
		case f.Commit != nil:
			s, err := a.state(f.Commit.Index)
			if err != nil {
				return err
			}
			select {
			case <-states: // the newest counts
			default:
			}
			states <- complete{s, f.Commit.Number}
		default:
			a.add(&f)
		}
	}
}

// complete is a state as of a commit.
type complete struct {
	state  *api.NodeState
	number uint64
}

// apply brings this node to one state after the other, until ctx ends.
func (c *Client) apply(ctx context.Context, states <-chan complete) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-states:
			c.forget(s.state)
			if c.cfg.Apply(ctx, s.state) == nil {
				c.acknowledge(s.number)
			}
		}
	}
}

// answer runs a method and sends its output. The caller that goes away ends
// the request, and with it the method.
func (c *Client) answer(ctx context.Context, transport http.RoundTripper, base string, call *call) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+PathCall+call.ID, body)
	if err != nil {
		return
	}
	req.Trailer = http.Header{errorTrailer: nil}

	done := make(chan struct{})
	input, said := io.Pipe()
	go func() {
		defer close(done)
		out := &output{w: w}
		method, dialogue := c.cfg.Methods[call.Method], c.cfg.Dialogues[call.Method]
		err := fmt.Errorf("this node does not know the method %q", call.Method)
		switch {
		case method != nil:
			err = method(ctx, call.Args, out)
		case dialogue != nil:
			err = dialogue(ctx, call.Args, input, out)
		}
		_ = input.Close() // what is said from now on is not heard
		if err == nil || out.begun {
			if err != nil {
				req.Trailer.Set(errorTrailer, err.Error())
			}
			_ = out.begin(verdict{})
		} else {
			_ = out.begin(verdictOf(err))
		}
		_ = w.Close()
	}()
	resp, err := transport.RoundTrip(req)
	if err == nil {
		if resp.StatusCode == http.StatusOK && c.cfg.Dialogues[call.Method] != nil {
			_, err := io.Copy(said, resp.Body)
			_ = said.CloseWithError(err)
			// It ends when the caller has all that it wants: to end the request
			// before that would cut off the last of the output.
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		_ = resp.Body.Close()
	}
	cancel()
	_ = said.Close()
	_ = body.Close() // unblocks a method that still writes
	<-done
}

func verdictOf(err error) verdict {
	return verdict{Error: err.Error(), Status: errhttp.ToHTTP(err)}
}

// output puts the verdict before the first byte.
type output struct {
	w     io.Writer
	begun bool
}

func (o *output) begin(v verdict) error {
	if o.begun {
		return nil
	}
	o.begun = true
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = io.Copy(o.w, bytes.NewReader(append(line, '\n')))
	return err
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.begin(verdict{}); err != nil {
		return 0, err
	}
	return o.w.Write(p)
}

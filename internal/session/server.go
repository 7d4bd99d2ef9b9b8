package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/internal/wake"
)

// Lapse is how many of the cluster's heartbeat periods a node may be silent
// before it is DOWN. Swarm's number.
const Lapse = 3

// defaultHeartbeat is Swarm's period between two signs of life, used until the
// cluster object says otherwise.
const defaultHeartbeat = 5 * time.Second

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Store *store.Store
	// Identify says which node a request comes from, by its certificate.
	Identify func(*http.Request) (nodeID string, err error)
	// Leader names the manager that leads, for nodes that ask the wrong one;
	// ok is false if that is not known.
	Leader func() (nodeID, addr string, ok bool)
	// Gone says whether gossip has found a node's host gone. It must be quick.
	Gone func(nodeID string) bool
	Log  *zap.Logger
}

// Server is the leader's end of all sessions. It serves while Run runs, and
// refuses otherwise, so that only the leader speaks to nodes.
type Server struct {
	cfg   ServerConfig
	log   *zap.Logger
	calls calls

	mu       sync.Mutex
	term     context.Context // of the current Run; nil while not leading
	sessions map[string]*conn
	tables   tables
	progress wake.Bell // a node has applied something
	status   *statusWriter
	pulse    *pulse
}

// NewServer wires a server.
func NewServer(cfg ServerConfig) *Server {
	return &Server{cfg: cfg, log: cfg.Log.Named("session"), sessions: map[string]*conn{}, progress: wake.NewBell()}
}

// Run serves nodes until ctx ends, that is while this manager leads. Every node
// that the store holds for READY has the time of a lapse to say that it lives.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	feed := s.cfg.Store.Watch(api.KindCluster, api.KindNode, api.KindService, api.KindRevision, api.KindTask, api.KindNetwork, api.KindSecret, api.KindConfig, api.KindRegistry, api.KindGuest)
	defer feed.Close()
	status := newStatusWriter(s.cfg.Store, s.log)
	p := newPulse(s.cfg.Store, s.log, s.heartbeat, s.cfg.Gone, s.end)

	s.mu.Lock()
	s.term, s.tables, s.status, s.pulse = ctx, tables{endpoints: endpoints{}}, status, p
	s.mu.Unlock()
	defer s.stop()

	g.Go(func() error { return status.run(ctx) })
	g.Go(func() error { return p.run(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-feed.Ready():
				s.refresh(feed.Take())
			case <-s.progress:
				s.settle(s.cfg.Store.View())
			}
		}
	})
	return g.Wait()
}

// refresh takes in what has changed in the store, and has all nodes hear of it.
func (s *Server) refresh(dirty []store.Dirty, all bool) {
	v := s.cfg.Store.View()
	next := s.now().refresh(v, dirty, all)
	s.mu.Lock()
	s.tables = next // nobody else replaces them
	for _, c := range s.sessions {
		c.woken.Ring()
	}
	s.mu.Unlock()
	s.settle(v)
}

// stop ends all sessions and waits for their handlers, so that nothing of one
// term writes in the next.
func (s *Server) stop() {
	s.mu.Lock()
	open := make([]*conn, 0, len(s.sessions))
	for _, c := range s.sessions {
		open = append(open, c)
	}
	s.term = nil
	s.mu.Unlock()
	for _, c := range open {
		c.cancel(errors.New("this manager does not lead any more"))
		<-c.done
	}
}

func (s *Server) heartbeat() time.Duration {
	if c := s.cfg.Store.View().Cluster(); c != nil && c.Spec.Dispatcher.HeartbeatPeriod > 0 {
		return c.Spec.Dispatcher.HeartbeatPeriod
	}
	return defaultHeartbeat
}

// target is what a node should know, as of now, and the generation of the
// endpoints in it.
func (s *Server) target(nodeID string) (*api.NodeState, uint64) {
	now := s.now()
	// The view may be newer than the endpoints by a change that is just being
	// looked at. The node hears of that with the next commit.
	return nodeState(s.cfg.Store.View(), nodeID, now), now.generation
}

// ServeHTTP answers PathSession and PathCall.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nodeID, err := s.cfg.Identify(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if id, ok := strings.CutPrefix(r.URL.Path, PathCall); ok {
		s.calls.answer(w, r, nodeID, id)
		return
	}
	if r.URL.Path != PathSession || r.Method != http.MethodPost {
		http.NotFound(w, r)
		return
	}
	c, err := s.open(r.Context(), nodeID)
	if err != nil {
		if id, addr, ok := s.cfg.Leader(); ok {
			w.Header().Set(LeaderHeader, id+" "+addr)
		}
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.close(c)
	err = c.serve(w, r)
	if err != nil && !errors.Is(err, io.EOF) && r.Context().Err() == nil {
		s.log.Info("session ended", zap.String("node", nodeID), zap.Error(err))
	}
}

// open registers a session. A node has one: a second ends the first, which can
// only be a connection that the node has given up.
func (s *Server) open(ctx context.Context, nodeID string) (*conn, error) {
	for {
		s.mu.Lock()
		if s.term == nil {
			s.mu.Unlock()
			return nil, errors.New("this manager does not lead")
		}
		if _, ok := s.cfg.Store.View().Nodes.Get(nodeID); !ok {
			s.mu.Unlock()
			return nil, fmt.Errorf("node %s is not a member of this cluster", nodeID)
		}
		old := s.sessions[nodeID]
		if old == nil {
			c := newConn(s, ctx, nodeID)
			term := s.term
			stop := context.AfterFunc(term, func() { c.cancel(context.Cause(term)) })
			c.onClose = func() { stop() }
			s.sessions[nodeID] = c
			s.mu.Unlock()
			return c, nil
		}
		s.mu.Unlock()
		old.cancel(errors.New("replaced by a newer session"))
		<-old.done
	}
}

// end closes the session of a node, if it has one.
func (s *Server) end(nodeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.sessions[nodeID]; c != nil {
		c.cancel(errors.New("no sign of life"))
	}
}

func (s *Server) close(c *conn) {
	c.onClose()
	s.mu.Lock()
	if s.sessions[c.nodeID] == c {
		delete(s.sessions, c.nodeID)
	}
	s.mu.Unlock()
	s.progress.Ring()
	s.calls.drop(c)
	close(c.done)
}

// Call runs a method on a node and returns its output, to be closed. It fails
// at once if the node has no session, and when the node refuses.
func (s *Server) Call(ctx context.Context, nodeID, method string, args any) (io.ReadCloser, error) {
	return s.call(ctx, nodeID, method, args, nil)
}

// Open runs a method that takes input. Reading gives its output, and writing its
// input, until it is closed. A write may wait until the method takes it.
func (s *Server) Open(ctx context.Context, nodeID, method string, args any) (io.ReadWriteCloser, error) {
	input, w := io.Pipe()
	out, err := s.call(ctx, nodeID, method, args, input)
	if err != nil {
		return nil, err
	}
	return &conversation{ReadCloser: out, Writer: w, input: w}, nil
}

// conversation is a call with both of its directions.
type conversation struct {
	io.ReadCloser
	io.Writer
	input *io.PipeWriter
}

func (c *conversation) Close() error {
	return errors.Join(c.input.Close(), c.ReadCloser.Close())
}

func (s *Server) call(ctx context.Context, nodeID, method string, args any, input *io.PipeReader) (io.ReadCloser, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", method, err)
	}
	s.mu.Lock()
	c := s.sessions[nodeID]
	s.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("node %s is not connected: %w", nodeID, errdefs.ErrUnavailable)
	}
	return s.calls.do(ctx, c, method, raw, input)
}

// Look says that gossip has found something of a node's host. One that has been
// silent for a moment as well is DOWN without more patience.
func (s *Server) Look() {
	s.mu.Lock()
	p := s.pulse
	s.mu.Unlock()
	if p != nil {
		p.ready.Ring()
	}
	s.progress.Ring()
}

// Connected lists the nodes that have a session.
func (s *Server) Connected() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.sessions))
	for id := range s.sessions {
		ids = append(ids, id)
	}
	return ids
}

package dns

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"shoal/internal/api"
	"shoal/internal/atomicfile"
	"shoal/internal/netkit"
)

const (
	zoneFile = "names.json"
	// saveEvery bounds how often the zone is written: it is a cache.
	saveEvery  = time.Second
	resolvConf = "/etc/resolv.conf"
)

// Server answers the containers of one node.
type Server struct {
	dir      string
	log      *zap.Logger
	zone     atomic.Pointer[Zone]
	trouble  atomic.Pointer[string]
	upstream upstream
	forwards turnstile // questions
	conns    turnstile
	ctx      context.Context // of Run: what handlers do ends with it

	mu    sync.Mutex // orders Set and Mute
	state *api.NodeState
	muted map[string]bool
	dirty chan struct{}
}

// New wires a server that keeps what it knows in dir.
func New(dir string, log *zap.Logger) *Server {
	return &Server{
		dir: dir, log: log, muted: map[string]bool{}, dirty: make(chan struct{}, 1),
		upstream: upstream{file: resolvConf, self: netkit.Gateway.String()},
	}
}

// Set answers from a node state from now on.
func (s *Server) Set(state *api.NodeState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	s.compile()
}

// Mute leaves out the tasks of a node, or takes them in again.
func (s *Server) Mute(nodeID string, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.muted[nodeID] == mute {
		return
	}
	s.muted = maps.Clone(s.muted)
	delete(s.muted, nodeID)
	if mute {
		s.muted[nodeID] = true
	}
	if s.state != nil {
		s.compile()
	}
}

func (s *Server) compile() {
	s.zone.Store(Compile(s.state, s.muted))
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// Run answers until ctx ends: from what was last known, until Set says more.
func (s *Server) Run(ctx context.Context) error {
	s.ctx = ctx
	s.load()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serve(ctx) })
	g.Go(func() error { return s.save(ctx) })
	return g.Wait()
}

func (s *Server) load() {
	path := filepath.Join(s.dir, zoneFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	z := &Zone{}
	if err == nil {
		err = json.Unmarshal(b, z)
	}
	if err != nil {
		s.log.Warn("the last known names can not be read; the managers will tell them again", zap.String("file", path), zap.Error(err))
		return
	}
	s.zone.CompareAndSwap(nil, z)
}

// save keeps the file up to date until ctx ends.
func (s *Server) save(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.dirty:
		}
		err := s.write()
		if err != nil && !failing {
			s.log.Error("names can not be saved; after a restart older ones are answered until a manager is heard", zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			_ = s.write() // the last word; a failure was said
			return nil
		case <-time.After(saveEvery):
		}
	}
}

func (s *Server) write() error {
	b, err := json.Marshal(s.zone.Load())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.dir, zoneFile), b, 0o600)
}

// Clear forgets everything, on disk, too.
func (s *Server) Clear() error {
	if err := os.Remove(filepath.Join(s.dir, zoneFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

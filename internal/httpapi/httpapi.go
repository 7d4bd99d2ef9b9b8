// Package httpapi answers the Docker Engine API: what concerns the cluster is
// ours, everything else is passed to the local engine.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/build"
	"shoal/internal/control"
	"shoal/internal/doctor"
	"shoal/internal/events"
)

// Node is the life of this machine as a member of a cluster.
type Node interface {
	// Init founds a cluster and returns the ID of this node in it.
	Init(ctx context.Context, req swarm.InitRequest) (nodeID string, err error)
	Join(ctx context.Context, req swarm.JoinRequest) error
	// Leave ends the membership; without force only where nothing is lost.
	Leave(ctx context.Context, force bool) error
	// Unlock starts a manager that waits for its unlock key.
	Unlock(ctx context.Context, req swarm.UnlockRequest) error
	Status() NodeStatus
	// RegistryAuth gives the cluster's credentials for the registry of an image; ""
	// if there are none, or this node does not know.
	RegistryAuth(image string) string
	// Control is nil unless this node leads the managers now.
	Control() *control.Control
	// Replica is this manager's own copy of the state, which may be a moment
	// behind; nil on others. It is for what must go on while leaders change.
	Replica() *control.Control
	// Forward is the API of the leader, on a manager that does not lead; nil
	// while nobody is known to lead.
	Forward() http.Handler
	// Networks are those of the cluster's networks that this node knows without
	// asking anybody: all of them on a manager, if not always the newest.
	Networks() []*api.Network
}

// NodeStatus is what this node knows of itself.
type NodeStatus struct {
	NodeID           string
	NodeAddr         string
	ClusterID        string
	State            swarm.LocalNodeState
	ControlAvailable bool // this node is a manager
	Err              string
	RemoteManagers   []swarm.Peer
	DataPlane        string // what carries published ports: nft or proxy
}

// Logs reads what tasks wrote, on whatever node they run.
type Logs interface {
	// TaskLogs gives a task's output as its engine does: multiplexed like
	// stdcopy, or raw if the task has a terminal. With Details every line begins
	// with the engine's own details and a space, after the timestamp. On a manager
	// that does not lead it asks the one that does, at outputPath.
	TaskLogs(ctx context.Context, nodeID, taskID string, opts api.LogOptions) (io.ReadCloser, error)
}

// Doctor looks at this node and at the ways to the others.
type Doctor interface {
	Diagnose(ctx context.Context) []doctor.Finding
}

// Config is what the API stands on.
type Config struct {
	Node       Node
	Logs       Logs
	Execs      Execs
	Doctor     Doctor
	Events     *events.Hub // what happens to the cluster
	DockerHost string      // unix:// or tcp:// address of the local engine
	APIAddr    string      // host:port of the API on the network; "" if it has none
	DNS        []string    // servers that containers on the cluster's networks ask
	Build      build.Info  // of shoal
	Log        *zap.Logger
}

// server answers requests. It holds no state of its own but what it knows of
// the engine.
type server struct {
	node    Node
	logs    Logs
	execs   Execs
	doctor  Doctor
	events  *events.Hub
	engine  *engine
	build   build.Info
	apiAddr string
	dns     []string
	log     *zap.Logger
	routes  []route
	// registryTime bounds a look at a registry, see distributionTime.
	registryTime time.Duration
	leaderWait   time.Duration // a constant but in tests
}

// New returns the API as a handler. It serves nobody whom Serve has not let in.
func New(c Config) (http.Handler, error) {
	log := c.Log.Named("httpapi")
	e, err := newEngine(c.DockerHost, log)
	if err != nil {
		return nil, err
	}
	s := &server{
		node: c.Node, logs: c.Logs, execs: c.Execs, doctor: c.Doctor, events: c.Events, engine: e, build: c.Build, apiAddr: c.APIAddr, dns: c.DNS, log: log,
		registryTime: distributionTime, leaderWait: leaderWait,
	}
	s.routes = s.table()
	for _, r := range s.routes {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ServeHTTP logs, sets what every answer carries, and keeps a panic from taking
// the daemon down.
func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &recorder{ResponseWriter: rw}
	start := time.Now()
	defer func() {
		s.log.Debug("request", zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Int("status", w.status), zap.Duration("took", time.Since(start)))
	}()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(http.ErrAbortHandler) // net/http's own word for: close the connection
		}
		s.log.Error("panic while serving a request", zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		if w.status == 0 {
			writeError(w, fmt.Errorf("internal error while serving %s %s: see the daemon's log", r.Method, r.URL.Path))
		}
	}()
	h := w.Header()
	h.Set("Api-Version", maxVersion.String())
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
	h.Set("Server", "Docker/"+s.build.Version+" (linux)")
	if err := s.dispatch(w, r); err != nil {
		if w.status != 0 {
			s.log.Warn("request failed after its answer began", zap.String("path", r.URL.Path), zap.Error(err))
			return
		}
		writeError(w, err)
	}
}

// recorder remembers the status, for the log and to know whether the answer has
// begun.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/events"
	"shoal/internal/httpapi"
	"shoal/task/docker"
)

const (
	// startTimeout bounds how long swarm init waits for the new node to be of use.
	startTimeout = 20 * time.Second
	// roleRetry is the pause after a change of role that failed: the leader may
	// have been away for an election.
	roleRetry = time.Second
)

// node is this machine's life as a member of a cluster, or of none. It
// implements what the API asks of it.
type node struct {
	cfg    Config
	engine *docker.Executor
	mesh   *mesh
	events *events.Hub // outlives memberships, as its readers do
	log    *zap.Logger

	disk diskLook
	life sync.Mutex // one init, join or leave at a time

	mu     sync.Mutex
	member *membership // nil: in no cluster, or about to start again
	again  *identity   // of the latter
	ctx    context.Context
	failed chan error          // of a membership that the node relied on
	roles  chan swarm.NodeRole // the role that the managers want this node in
	api    http.Handler        // set before resume
}

// membership is a running member.
type membership struct {
	*member
	since  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	err    error // why it ended; to be read after done
}

func newNode(cfg Config, engine *docker.Executor, mesh *mesh, log *zap.Logger) *node {
	return &node{cfg: cfg, engine: engine, mesh: mesh, events: events.NewHub(), log: log, disk: newDiskLook(), failed: make(chan error, 1), roles: make(chan swarm.NodeRole, 1)}
}

// resume takes up the membership that the data directory holds, if any.
func (n *node) resume(ctx context.Context) error {
	n.ctx = ctx
	id, ok, err := loadIdentity(n.cfg.DataDir)
	if err != nil {
		return err
	}
	if !ok {
		return n.checkUnused()
	}
	if id, err = n.readdress(id); err != nil {
		return err
	}
	creds, v, locked, err := n.openKeys(id)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%s says that this node is in a cluster, and its key material is gone: %w; move the data directory away and join again, or restore a backup",
			filepath.Join(n.cfg.DataDir, identityFile), err)
	}
	if err != nil {
		return err
	}
	if locked != nil {
		n.log.Warn("this manager is locked: its tasks and the mesh go on, and it takes part again after \"shoal swarm unlock\"")
		r, err := n.start(newLockedMember(n.cfg, id, locked, n.engine, n.mesh, n.log))
		if err != nil {
			return err
		}
		n.rely(r)
		return nil
	}
	_, err = n.resumeAs(id, creds, v)
	return err
}

// resumeAs starts the node that this machine is already.
func (n *node) resumeAs(id identity, creds *ca.Credentials, v *vault) (*membership, error) {
	start := cluster.Restart
	switch {
	case id.Forced:
		start = cluster.Recover
	case id.Joining:
		start = cluster.Join
	}
	r, err := n.start(n.newMember(id, creds, v, start))
	if err != nil {
		return nil, err
	}
	n.rely(r)
	return r, nil
}

// checkUnused refuses a data directory that holds a node's state but not which
// node's: the next init would write over it.
func (n *node) checkUnused() error {
	if _, err := os.Stat(cluster.RaftDir(n.cfg.DataDir)); err != nil {
		return nil
	}
	return fmt.Errorf("%s holds the raft log of a node, and %s is missing that says which: restore it from a backup; or move %s away (if it is what an interrupted \"swarm init\" left, nothing is lost)",
		n.cfg.DataDir, identityFile, n.cfg.DataDir)
}

// run ends with ctx, or with a membership that failed: the daemon stops then,
// because a node that can not write its log must not go on as if it could.
func (n *node) run(ctx context.Context) error {
	err := n.follow(ctx)
	n.life.Lock() // an init or leave under way has noticed ctx, too
	defer n.life.Unlock()
	n.stop()
	return err
}

// follow changes the node's role when the managers want it to, until ctx ends or
// the membership fails.
func (n *node) follow(ctx context.Context) error {
	var (
		role  swarm.NodeRole
		again <-chan time.Time
	)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-n.failed:
			return err
		case role = <-n.roles:
		case <-again:
		}
		again = nil
		if err := n.changeRole(ctx, role); err != nil && ctx.Err() == nil {
			n.log.Error("can not change this node's role; it is tried again", zap.String("role", string(role)), zap.Error(err))
			again = time.After(roleRetry)
		}
	}
}

// newMember wires a member that answers this node's API for others, too.
func (n *node) newMember(id identity, creds *ca.Credentials, v *vault, start cluster.Start) *member {
	m := newMember(n.cfg, id, creds, v, start, n.engine, n.mesh, n.roles, n.log)
	if m.manager != nil {
		m.manager.api = n.api
		m.manager.events = n.events
		m.manager.store.Observe(n.events.Observe)
	}
	return m
}

// start runs a member until stop.
func (n *node) start(m *member) (*membership, error) {
	if err := m.listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(n.ctx)
	r := &membership{member: m, since: time.Now(), ctx: ctx, cancel: cancel, done: make(chan struct{})}
	n.mu.Lock()
	n.member, n.again = r, nil
	n.mu.Unlock()
	go func() {
		defer close(r.done)
		if r.err = m.run(ctx); r.err == nil {
			r.err = errors.New("the node ended without a reason")
		}
	}()
	return r, nil
}

// rely ends the daemon if the membership ends by itself. Until then, while a
// node is being made, its end is the answer to the request that makes it.
func (n *node) rely(r *membership) {
	go func() {
		<-r.done
		if r.ctx.Err() != nil {
			return
		}
		n.give(r.err)
	}()
}

// give ends the daemon.
func (n *node) give(err error) {
	select {
	case n.failed <- err:
	default: // it ends already; one reason is enough
	}
}

// stop ends the running member, if there is one, and waits for it. It stays the
// member until then: a leader that hands over still answers.
func (n *node) stop() *member {
	r := n.current()
	if r == nil {
		return nil
	}
	r.cancel()
	<-r.done
	n.mu.Lock()
	n.member = nil
	n.mu.Unlock()
	return r.member
}

// pause is stop for a member that starts again in another way: this machine
// does not look as if it were in no cluster meanwhile.
func (n *node) pause() *member {
	n.mu.Lock()
	if n.member != nil {
		n.again = new(n.member.identity())
	}
	n.mu.Unlock()
	return n.stop()
}

func (n *node) current() *membership {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

var errNotIn = errdefs.ErrUnavailable.WithMessage("This node is not part of a swarm")

// Status is what this node knows of itself.
func (n *node) Status() httpapi.NodeStatus {
	n.mu.Lock()
	m, again := n.member, n.again
	n.mu.Unlock()
	switch {
	case m == nil && again != nil:
		return httpapi.NodeStatus{NodeID: again.NodeID, NodeAddr: again.host(), ClusterID: again.ClusterID, State: swarm.LocalNodeStatePending, DataPlane: n.cfg.DataPlane}
	case m == nil:
		return httpapi.NodeStatus{State: swarm.LocalNodeStateInactive, DataPlane: n.cfg.DataPlane}
	}
	s := httpapi.NodeStatus{
		NodeID: m.id.NodeID, NodeAddr: m.identity().host(), ClusterID: m.id.ClusterID,
		State: swarm.LocalNodeStatePending, ControlAvailable: m.manager != nil, DataPlane: n.cfg.DataPlane,
		RemoteManagers: m.book.list(),
	}
	if m.locked != nil {
		s.State = swarm.LocalNodeStateLocked
	} else if ok, _ := m.welcomed(); ok {
		s.State = swarm.LocalNodeStateActive
	}
	return s
}

// Control gives the verbs while this node leads.
func (n *node) Control() *control.Control {
	if m := n.current(); m != nil && m.manager != nil && m.manager.usable() {
		return m.manager.control
	}
	return nil
}

// Replica gives this manager's own copy of the state, once it has one.
func (n *node) Replica() *control.Control {
	if m := n.current(); m != nil && m.manager != nil && m.manager.store.View().Cluster() != nil {
		return m.manager.control
	}
	return nil
}

// Forward gives the way to the manager that leads, on a manager that does not.
func (n *node) Forward() http.Handler {
	if m := n.current(); m != nil {
		return m.forward()
	}
	return nil
}

// Networks are the cluster's networks as far as they are known here.
func (n *node) Networks() []*api.Network {
	m := n.current()
	if m == nil {
		return nil
	}
	if m.manager != nil {
		return slices.Collect(m.manager.store.View().Networks.All())
	}
	if s := m.state.Load(); s != nil {
		return slices.Collect(maps.Values(s.Networks))
	}
	return nil
}

// RegistryAuth implements httpapi.Node: a manager knows it from its own copy of the
// state.
func (n *node) RegistryAuth(image string) string {
	m := n.current()
	if m == nil || m.manager == nil {
		return ""
	}
	return m.manager.store.View().RegistryAuth(image)
}

package daemon

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"shoal/cluster"
	"shoal/internal/control"
	"shoal/internal/events"
	"shoal/internal/session"
	"shoal/internal/store"
	"shoal/service"
)

// manager is what a manager has besides what every node has.
type manager struct {
	id      identity
	log     *zap.Logger
	store   *store.Store
	cluster *cluster.Node
	book    *book
	vault   *vault
	control *control.Control
	server  *session.Server       // speaks to nodes, while leading
	service *service.Orchestrator // decides, while leading

	forwarding forwarding
	gossip     *rumours // set before run

	// leading is set while this manager leads and has applied all that its
	// predecessors committed.
	leading atomic.Bool
	// api answers what followers pass on; set before run.
	api http.Handler
	// echo answers examinations of the ways between nodes; set before run.
	echo func(r *http.Request) (any, error)
	// forced is set while this manager has yet to give up the others.
	forced bool
	// tookOver notes that this manager has done so; set before run.
	tookOver func() error
	events   *events.Hub // hears of new leaders; set before run, or nil
}

func newManager(id identity, v *vault, log *zap.Logger) *manager {
	m := &manager{id: id, forced: id.Forced, vault: v, log: log, store: store.New()}
	m.server = session.NewServer(session.ServerConfig{Store: m.store, Identify: identify, Leader: m.leader, Gone: m.gone, Log: log})
	m.service = service.New(service.Config{Store: m.store, Log: log})
	m.control = control.New(control.Config{Store: m.store, Ports: m, Members: m, Log: log})
	return m
}

// wire closes the circle: raft applies to the store, and the store proposes to
// raft.
func (m *manager) wire(c *cluster.Node, b *book) {
	m.cluster, m.book = c, b
	m.forwarding.port = c.Port
	m.store.Connect(c.Raft)
}

func (m *manager) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.serve(ctx) })
	g.Go(func() error { return m.cluster.Raft.RunAsLeader(ctx, m.lead) })
	g.Go(func() error { return m.settings(ctx) })
	g.Go(func() error { return m.keepLocked(ctx) })
	g.Go(func() error { return m.tellLeader(ctx) })
	defer m.forwarding.close()
	return g.Wait()
}

// tellLeader tells of each change of leaders. The first that is heard of is none.
func (m *manager) tellLeader(ctx context.Context) error {
	for was := ""; ; {
		is, err := m.cluster.Raft.NextLeader(ctx, was)
		if err != nil {
			return err
		}
		if was != "" && m.events != nil {
			nodes := m.store.View().Nodes
			before, _ := nodes.Get(was)
			now, _ := nodes.Get(is)
			m.events.Leads(time.Now(), before, now)
		}
		was = is
	}
}

// lead is what the leader does besides.
func (m *manager) lead(ctx context.Context) error {
	if m.forced {
		if err := m.takeOver(ctx); err != nil {
			return err
		}
		m.forced = false
	}
	m.leading.Store(true)
	defer m.leading.Store(false)
	g, ctx := errgroup.WithContext(ctx)
	// At once, and not when the rest below has ended too: this manager may be
	// elected again meanwhile, and would then be believed to have applied what
	// another one committed in between.
	g.Go(func() error {
		<-ctx.Done()
		m.leading.Store(false)
		return nil
	})
	g.Go(func() error { return m.server.Run(ctx) })
	g.Go(func() error { return m.service.Run(ctx) })
	g.Go(func() error { return m.voters(ctx) })
	g.Go(func() error { return m.gossipKeys(ctx) })
	g.Go(func() error { return m.control.RotateRoot(ctx) })
	g.Go(func() error { return m.control.TendFiles(ctx) })
	g.Go(func() error { return m.retireKeys(ctx) })
	return g.Wait()
}

// leads is a condition for await.
func (m *manager) leads() (bool, <-chan struct{}) {
	again := make(chan struct{})
	if m.leading.Load() {
		return true, again
	}
	time.AfterFunc(leaderPoll, func() { close(again) })
	return false, again
}

// leaderPoll is how often a node that is being founded looks whether it leads.
const leaderPoll = 10 * time.Millisecond

// others counts the other managers.
func (m *manager) others() int {
	n := 0
	for o := range m.store.View().Nodes.All() {
		if o.ID != m.id.NodeID && o.Role == swarm.NodeRoleManager {
			n++
		}
	}
	return n
}

// rest is what would be left without this manager. One that gossip has found
// gone can not be reached even while its status does not say so yet.
func (m *manager) rest() control.Rest {
	r := control.Rest{Present: true}
	if m.store.View().Cluster() == nil { // just started, and there was no leader yet
		for _, p := range m.book.list() {
			if p.NodeID == m.id.NodeID {
				continue
			}
			r.Managers++
			if _, ok := m.gossip.lookup(p.NodeID); ok {
				r.Reachable++
			}
		}
		return r
	}
	for o := range m.store.View().Nodes.All() {
		if o.ID == m.id.NodeID || o.Role != swarm.NodeRoleManager {
			continue
		}
		r.Managers++
		if o.Status.State == swarm.NodeStateReady && !m.gone(o.ID) {
			r.Reachable++
		}
	}
	return r
}

func (m *manager) gone(nodeID string) bool { return m.gossip.gone(nodeID) }

// leader says who leads and where; ok is false while that is not known.
func (m *manager) leader() (nodeID, addr string, ok bool) {
	nodeID, self := m.cluster.Raft.Leader()
	switch {
	case nodeID == "":
		return "", "", false
	case self:
		return nodeID, m.id.AdvertiseAddr, true
	}
	addr, err := m.resolve(nodeID)
	return nodeID, addr, err == nil
}

// resolve finds where another manager listens.
func (m *manager) resolve(nodeID string) (string, error) {
	if addr, ok := m.gossip.lookup(nodeID); ok {
		return addr, nil
	}
	if n, ok := m.store.View().Nodes.Get(nodeID); ok && n.Addr != "" {
		return n.Addr, nil
	}
	if addr, ok := m.book.address(nodeID); ok {
		return addr, nil
	}
	return "", fmt.Errorf("no address is known for node %s", nodeID)
}

// verifyTimeout bounds how long a request waits for a quorum to confirm that
// this manager still leads.
const verifyTimeout = 2 * time.Second

// usable tells whether this manager can read and write the cluster's state: it
// leads, and a quorum says so now, so that nothing stale is read.
func (m *manager) usable() bool {
	if !m.leading.Load() || m.store.View().Cluster() == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), verifyTimeout)
	defer cancel()
	return m.cluster.Raft.VerifyLeader(ctx) == nil
}

// Leader implements control.Members.
func (m *manager) Leader() string {
	nodeID, _ := m.cluster.Raft.Leader()
	return nodeID
}

// Applied implements control.Members.
func (m *manager) Applied() uint64 { return m.cluster.Raft.Stats().AppliedIndex }

// Reachable implements control.Members: a manager that has a session with the
// leader answers.
func (m *manager) Reachable(nodeID string) bool {
	if nodeID == m.id.NodeID {
		return true
	}
	n, ok := m.store.View().Nodes.Get(nodeID)
	return ok && n.Status.State == swarm.NodeStateReady
}

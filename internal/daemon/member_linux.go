package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/session"
	"shoal/network/dns"
	"shoal/network/overlay"
	"shoal/network/plugin"
	"shoal/task"
	"shoal/task/docker"
)

// member is a node in a cluster, with all its parts.
type member struct {
	dir    string
	role   swarm.NodeRole // what its certificate says
	locked *seal.File     // its data key, where that has to be unlocked first; then much of the rest is nil
	creds  *ca.Credentials
	vault  *vault // nil on a worker
	log    *zap.Logger
	engine *docker.Executor

	// id is read freely where it never changes; what note changes, and the whole,
	// by identity.
	idMu sync.Mutex
	id   identity

	cluster *cluster.Node
	manager *manager // nil on a worker
	book    *book
	keeper  *keeper

	client *session.Client
	worker *task.Worker
	plugin *plugin.Plugin
	net    network
	cipher *cipher
	mesh   *mesh
	names  names
	guests *guests
	gossip *rumours
	echoes *echoes
	state  atomic.Pointer[api.NodeState] // the last that the managers sent

	// roles receives when the managers want this node in another role.
	roles chan swarm.NodeRole
	// heard is closed when the managers have first told this node its state.
	heard chan struct{}
	once  sync.Once
}

// newMember wires a node. Nothing is opened yet.
func newMember(cfg Config, id identity, creds *ca.Credentials, v *vault, start cluster.Start, engine *docker.Executor, mesh *mesh, roles chan swarm.NodeRole, log *zap.Logger) *member {
	m := &member{
		dir: cfg.DataDir, id: id, role: swarm.NodeRoleWorker, creds: creds, vault: v, log: log, engine: engine, mesh: mesh,
		book: newBook(id.Managers), roles: roles, heard: make(chan struct{}),
	}

	// What managers agree on.
	conf := cluster.NodeConfig{
		DataDir: cfg.DataDir, Credentials: creds, ListenAddr: id.ListenAddr, Start: start, Logger: log,
		Admit: noRaft,
	}
	if creds.Identity().Role == ca.RoleManager {
		m.role = swarm.NodeRoleManager
		m.manager = newManager(id, v, log)
		m.manager.tookOver = func() error { return m.note(func(id *identity) { id.Forced = false }) }
		conf.Key = v.key
		conf.Machine, conf.Resolve, conf.Admit = m.manager.store, m.manager.resolve, m.manager.admit
	}
	m.cluster = cluster.NewNode(conf)
	if m.manager != nil {
		m.manager.wire(m.cluster, m.book)
	}

	m.keeper = newKeeper(cluster.TLSDir(cfg.DataDir), creds, v.dataKey(), log)
	m.keeper.renew, m.keeper.prove = m.askRenewal, m.askExpired
	if m.manager != nil {
		m.keeper.own = func() (*api.Cluster, error) { return clusterOf(m.manager.store) }
	}
	m.client = session.NewClient(session.ClientConfig{
		Leader: m.leader, Moved: m.book.moved, Apply: m.apply, Log: log,
		Methods:   map[string]session.Method{methodLogs: m.logs, methodPorts: m.portOwners},
		Dialogues: map[string]session.Dialogue{methodExec: m.exec},
		Online:    func(yes bool) { m.worker.Online(yes) },
	})
	m.gossip, m.echoes = newRumours(m), newEchoes(m)
	if m.manager != nil {
		m.manager.gossip, m.manager.echo = m.gossip, m.echoes.answer
	}
	m.wireLocal(cfg, m.client.Report)
	return m
}

// newLockedMember wires a manager that can not read its own state. Its tasks
// and networks are kernel and engine, and need no manager to go on: failed
// containers are started again, and the engine finds the network driver.
func newLockedMember(cfg Config, id identity, file *seal.File, engine *docker.Executor, mesh *mesh, log *zap.Logger) *member {
	m := &member{
		dir: cfg.DataDir, id: id, role: swarm.NodeRoleManager, locked: file, log: log, engine: engine, mesh: mesh,
		book: newBook(id.Managers), heard: make(chan struct{}),
	}
	m.wireLocal(cfg, func([]api.TaskReport) {}) // once it is unlocked, everything is said again
	return m
}

// wireLocal wires what every node does.
func (m *member) wireLocal(cfg Config, report func([]api.TaskReport)) {
	m.guests = newGuests(m)
	m.plugin = plugin.New(plugin.Config{StateDir: filepath.Join(cfg.DataDir, "network"), Addresses: m.guests, Log: m.log.Named("plugin")})
	m.cipher = newCipher(m)
	if m.mesh.networkless != "" {
		m.net, m.names = noNetwork{}, noNames{}
	} else {
		ways := overlay.New(m.log.Named("overlay"))
		ways.Engine(m.engine.Bridges)
		ways.Encrypt(m.cipher.device, m.cipher)
		m.net, m.names = ways, dns.New(filepath.Join(cfg.DataDir, "network"), m.log.Named("dns"))
	}
	m.worker = task.New(task.Config{
		Executor: m.engine, Report: report, StateDir: filepath.Join(cfg.DataDir, "worker"), Log: m.log,
		Booted: booted(time.Now()),
	})
	m.worker.Online(false) // until a session begins
}

// listen opens the driver's socket: before anything that may take a while,
// because an engine that starts now waits for it.
func (m *member) listen() error {
	if err := m.net.Bar(); err != nil {
		m.log.Error("containers that start before the managers are heard may send anywhere", zap.Error(err))
	}
	return m.plugin.Listen()
}

// run is the member's life, until ctx ends or a part fails.
func (m *member) run(ctx context.Context) (err error) {
	// The driver goes last: containers that are being started meanwhile need it.
	driver, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- m.plugin.Run(driver) }()
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	if m.locked == nil {
		if err := m.awake(); err != nil {
			return err
		}
		m.cipher.begin()
	}
	if m.manager != nil {
		var release func()
		ctx, release = m.manager.outlast(ctx)
		defer release()
	}

	g, ctx := errgroup.WithContext(ctx)
	if m.locked == nil {
		g.Go(func() error { return m.cluster.Run(ctx) })
		g.Go(func() error { return m.gossip.run(ctx) })
		g.Go(func() error { return m.client.Run(ctx) })
		g.Go(func() error { return m.keeper.run(ctx) })
		g.Go(func() error { return m.describe(ctx) })
		g.Go(func() error { return m.guests.run(ctx) })
		g.Go(func() error { return m.cipher.run(ctx) })
	}
	switch {
	case m.manager != nil:
		g.Go(func() error { return m.manager.run(ctx) })
	case m.locked == nil:
		g.Go(func() error { return serveEndpoints(ctx, m.cluster.Port, m, m.endpoints(), m.log) })
	}
	g.Go(func() error { return m.worker.Run(ctx) })
	g.Go(func() error { return m.net.Run(ctx) })
	g.Go(func() error { return m.mesh.Run(ctx) })
	g.Go(func() error { return m.names.Run(ctx) })
	return g.Wait()
}

// apply makes this node what the managers want of it. The ways go before the
// mesh that uses them, and both before the tasks: one that is to stop gets no
// new connection when it hears of it. An error means that it may still.
func (m *member) apply(ctx context.Context, s *api.NodeState) error {
	m.state.Store(s)
	m.gossip.set(s)
	m.keeper.want(s.Trust)
	// What the end of the daemon cuts short is no difference to report: the next
	// run begins with the whole state.
	if err := m.net.Set(ctx, s); err != nil && ctx.Err() == nil {
		m.log.Error("overlay differs from what the managers want; it is tried again", zap.Error(err))
	}
	if err := m.plugin.Set(s); err != nil && ctx.Err() == nil {
		m.log.Error("containers do not reach all subnets of their networks", zap.Error(err))
	}
	served := m.mesh.Set(ctx, s)
	if err := served; err != nil && ctx.Err() == nil {
		m.log.Error("routing mesh differs from what the managers want; it is tried again", zap.Error(err))
	}
	m.names.Set(s)
	m.gossip.confirm()
	m.worker.Set(s)
	m.once.Do(func() { close(m.heard) })

	moved := m.book.update(s.Node, s.Peers)
	joined := m.identity().Joining && m.hasLog()
	if moved || joined {
		err := m.note(func(id *identity) {
			id.Managers = m.book.list()
			id.Joining = id.Joining && !joined
		})
		if err != nil {
			m.log.Error("can not note where the managers are; after a restart this node may not find them", zap.Error(err))
		}
	}
	if wanted := wantedRole(s.Node, m.role); wanted != m.role {
		select {
		case m.roles <- wanted:
		default: // it is known already
		}
	}
	return served
}

// hasLog tells whether a manager's log is on disk.
func (m *member) hasLog() bool {
	if m.manager == nil {
		return false
	}
	select {
	case <-m.cluster.Raft.Ready():
		return true
	default:
		return false
	}
}

// note changes what the node remembers of itself, on disk, too.
func (m *member) note(change func(*identity)) error {
	m.idMu.Lock()
	defer m.idMu.Unlock()
	change(&m.id)
	return m.id.save(m.dir)
}

// remember writes down what this node is: from then on it is that after a
// restart, too.
func (m *member) remember() error { return m.note(func(*identity) {}) }

func (m *member) identity() identity {
	m.idMu.Lock()
	defer m.idMu.Unlock()
	return m.id
}

// wantedRole says in which role a node should run. A manager that is to be
// demoted stays one until raft has let go of it, which is when its role says
// so.
func wantedRole(n *api.Node, now swarm.NodeRole) swarm.NodeRole {
	if n.Spec.Role == swarm.NodeRoleManager {
		return swarm.NodeRoleManager
	}
	if now == swarm.NodeRoleManager && n.Role == swarm.NodeRoleManager {
		return now
	}
	return swarm.NodeRoleWorker
}

// leader gives the way to the manager that leads, as far as this node knows.
func (m *member) leader(context.Context) (http.RoundTripper, string, error) {
	if m.manager != nil {
		if id, addr, ok := m.manager.leader(); ok {
			return m.transport(id, addr), "https://" + addr, nil
		}
	}
	p, ok := m.nextManager()
	if !ok {
		return nil, "", errors.New("no manager is known")
	}
	return m.transport(p.NodeID, p.Addr), "https://" + p.Addr, nil
}

// nextManager is whom to ask now, where it is by now.
func (m *member) nextManager() (swarm.Peer, bool) {
	p, ok := m.book.next()
	if ok {
		if addr, found := m.gossip.lookup(p.NodeID); found {
			p.Addr = addr
		}
	}
	return p, ok
}

// clear takes everything of the cluster off this machine, after run has ended.
func (m *member) clear(ctx context.Context) error {
	var errs []error
	// The engine asks the driver when it removes containers and networks.
	if err := m.plugin.Listen(); err != nil {
		errs = append(errs, err)
	}
	pctx, stop := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = m.plugin.Run(pctx) // what fails shows as an error of the engine below
	}()
	if err := m.engine.RemoveAll(ctx, m.id.ClusterID); errdefs.IsUnavailable(err) {
		errs = append(errs, fmt.Errorf("the engine does not answer: containers of this cluster remain on it; remove them with: docker rm -f $(docker ps -aq --filter label=com.shoal.cluster.id=%s): %w", m.id.ClusterID, err))
	} else if err != nil {
		errs = append(errs, fmt.Errorf("remove the cluster's containers: %w", err))
	}
	stop()
	<-served
	errs = append(errs, m.plugin.Clear(), m.names.Clear(), m.mesh.Clear(ctx), m.net.Clear(ctx))
	return errors.Join(errs...)
}

// headerTime bounds how long a peer may take over the head of a request.
const headerTime = 10 * time.Second

// booted is when this host came up; zero if the kernel does not say.
func booted(now time.Time) time.Time {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return time.Time{}
	}
	return now.Add(-time.Duration(info.Uptime) * time.Second)
}

package daemon

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sys/unix"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/doctor"
	"shoal/internal/netkit"
	"shoal/internal/store"
	"shoal/service"
	"shoal/task"
)

const (
	// diagnoseTime bounds a whole diagnosis, peersTime its part with other nodes,
	// diskTime the look at the disk, and askEngineTime a question to the engine.
	diagnoseTime  = 5 * time.Second
	peersTime     = 3 * time.Second
	diskTime      = 3 * time.Second
	askEngineTime = 2 * time.Second
)

// Diagnose looks at this node and at the ways to its peers. It changes nothing.
func (n *node) Diagnose(ctx context.Context) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, diagnoseTime)
	defer cancel()
	f := doctor.Facts{Now: time.Now(), State: doctor.Apart}
	f.Name, _ = os.Hostname() // "" is no reason not to look at the rest
	var parts sync.WaitGroup
	parts.Go(func() { f.Engine = n.engineFacts(ctx) })
	parts.Go(func() { f.Kernel = kernelFacts() })
	parts.Go(func() { f.Disk = n.disk.look(ctx, n.cfg.DataDir) })

	n.mu.Lock()
	m, again := n.member, n.again
	n.mu.Unlock()
	switch {
	case m == nil && again != nil:
		f.State, f.NodeID, f.Since = doctor.Pending, again.NodeID, f.Now
	case m == nil:
	case m.locked != nil:
		f.State, f.NodeID = doctor.Locked, m.id.NodeID
	default:
		f.State, f.NodeID, f.Since = doctor.Pending, m.id.NodeID, m.since
		if ok, _ := m.welcomed(); ok {
			f.State = doctor.Active
		}
		facts := m.facts(ctx)
		f.Member = &facts
	}
	parts.Wait()
	return doctor.Diagnose(f)
}

func (n *node) engineFacts(ctx context.Context) doctor.Engine {
	ctx, cancel := context.WithTimeout(ctx, askEngineTime)
	defer cancel()
	info, err := n.engine.Info(ctx)
	if err != nil {
		return doctor.Engine{Error: err.Error()}
	}
	return doctor.Engine{
		Version: info.ServerVersion, Swarm: string(info.Swarm.LocalNodeState), Driver: info.Driver,
		CgroupDriver: info.CgroupDriver, CgroupVersion: info.CgroupVersion, Warnings: info.Warnings,
	}
}

// Bits of CapEff in /proc/self/status.
const (
	capNetAdmin = 1 << unix.CAP_NET_ADMIN
	capNetRaw   = 1 << unix.CAP_NET_RAW
)

func kernelFacts() doctor.Kernel {
	var k doctor.Kernel
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		k.Release = unix.ByteSliceToString(uts.Release[:])
	}
	caps := capabilities()
	k.NetAdmin, k.NetRaw = caps&capNetAdmin != 0, caps&capNetRaw != 0
	if k.NetAdmin {
		missing, err := netkit.Lacking()
		if err != nil {
			missing = map[string]string{"network namespaces": err.Error()}
		}
		k.Missing = missing
	}
	k.Forwarding = readNumber("/proc/sys/net/ipv4/ip_forward") == 1
	k.Conntrack, k.ConntrackMax = readNumber("/proc/sys/net/netfilter/nf_conntrack_count"), readNumber("/proc/sys/net/netfilter/nf_conntrack_max")
	k.BridgeNF = readNumber("/proc/sys/net/bridge/bridge-nf-call-iptables") == 1
	return k
}

func capabilities() (caps uint64) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return caps
}

// readNumber is 0 for what is not there.
func readNumber(path string) int {
	b, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// diskLook measures the data directory's disk, once at a time: a disk that hangs
// takes the writes to it along for as long as it likes.
type diskLook struct{ busy chan struct{} }

func newDiskLook() diskLook { return diskLook{make(chan struct{}, 1)} }

func (l diskLook) look(ctx context.Context, dir string) doctor.Disk {
	ctx, cancel := context.WithTimeout(ctx, diskTime)
	defer cancel()
	d := doctor.Disk{Dir: dir}
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		d.Error = "a small write that was begun before has not reached the disk yet"
		return d
	}
	done := make(chan doctor.Disk, 1)
	go func() { // waited for by whoever looks next
		defer func() { <-l.busy }()
		d := d
		if err := measure(&d); err != nil {
			d.Error = err.Error()
		}
		done <- d
	}()
	select {
	case d = <-done:
	case <-ctx.Done():
		d.Error = "a small write has not reached the disk for seconds"
	}
	return d
}

// syncs is how many writes are measured; the one in the middle counts.
const syncs = 5

func measure(d *doctor.Disk) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.Dir, &st); err != nil {
		return err
	}
	d.Free, d.Total = st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	d.FilesFree, d.FilesTotal = st.Ffree, st.Files
	file, err := os.CreateTemp(d.Dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // it lives on without a name, and leaves nothing behind
		return err
	}
	var took []time.Duration
	for range syncs {
		began := time.Now()
		if _, err := file.Write(make([]byte, 4096)); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	d.Sync = took[len(took)/2]
	return nil
}

// facts are what a node in a cluster knows besides.
func (m *member) facts(ctx context.Context) doctor.Member {
	f := doctor.Member{Certificate: m.keeper.facts()}
	state := m.state.Load()
	var parts sync.WaitGroup
	if state != nil {
		parts.Go(func() { f.Drift = m.drift(ctx, state) })
		parts.Go(func() { f.Ports = m.heldPorts(ctx, state) })
		parts.Go(func() { f.Encryption = m.cipher.facts(state) })
	} else {
		state = m.remembered()
	}
	parts.Go(func() { f.Peers = m.examineAll(ctx, state) })
	parts.Wait()
	for _, p := range f.Peers {
		f.Session = f.Session || p.Session
	}
	if m.manager != nil {
		f.Nodes = nodeFacts(m.manager.store.View())
		st := m.cluster.Raft.Stats()
		f.Raft = &doctor.Raft{State: st.State, Leader: st.LeaderID, Applied: st.AppliedIndex, Last: st.LastIndex}
		for _, s := range st.Servers {
			if s.Voter {
				f.Raft.Voters++
			}
		}
	}
	return f
}

// nodeFacts are what the managers know of all nodes.
func nodeFacts(v *store.View) []doctor.Node {
	held := service.HeldUp(v)
	out := make([]doctor.Node, 0, v.Nodes.Len())
	for n := range v.Nodes.All() {
		d := doctor.Node{
			Name: cmp.Or(n.Description.Hostname, n.ID), Manager: n.Role == swarm.NodeRoleManager,
			Ready: n.Status.State == swarm.NodeStateReady, Down: n.Status.State == swarm.NodeStateDown, DownSince: n.DownSince,
			Left: n.Status.Message == control.NodeLeft, NoEngine: n.NoEngine, Message: n.Status.Message, HoldsUp: held[n.ID],
		}
		switch n.Spec.Availability {
		case swarm.NodeAvailabilityPause:
			d.Closed = "paused"
		case swarm.NodeAvailabilityDrain:
			d.Closed = "drained"
			for t := range v.Tasks.By(store.ByNode, n.ID) {
				if !api.Terminal(t.Status.State) {
					d.Staying++
				}
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b doctor.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// remembered stands for the managers' word where they have not spoken yet: what
// this manager's own state says or, on a worker, where the managers last were.
func (m *member) remembered() *api.NodeState {
	s := &api.NodeState{Peers: map[string]api.Peer{}, DataPathPort: m.id.DataPathPort}
	for _, p := range m.book.list() {
		s.Peers[p.NodeID] = api.Peer{NodeID: p.NodeID, Addr: p.Addr, Manager: true}
	}
	if m.manager != nil {
		for n := range m.manager.store.View().Nodes.All() {
			s.Peers[n.ID] = peerOf(n)
		}
	}
	delete(s.Peers, m.id.NodeID)
	return s
}

func (k *keeper) facts() doctor.Certificate {
	k.mu.Lock()
	wanted := k.wanted
	k.mu.Unlock()
	c := doctor.Certificate{To: k.creds.Expiry(), Renew: k.creds.Next(wanted, time.Now()).At, RootsUntil: k.creds.Issuer().NotAfter}
	if chain, err := ca.ParseCertificates(k.creds.Bundle().CertPEM); err == nil && len(chain) > 0 {
		c.From = chain[0].NotBefore
	}
	return c
}

// examineAll tries the ways to all peers at once.
func (m *member) examineAll(ctx context.Context, s *api.NodeState) []doctor.Peer {
	if len(s.Peers) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, peersTime)
	defer cancel()
	probes, err := netkit.OpenProbes(ctx)
	if err != nil {
		probes = nil // said by the check of the kernel
	} else {
		defer probes.Close()
	}
	peers := make([]api.Peer, 0, len(s.Peers))
	for _, p := range s.Peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b api.Peer) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.NodeID, b.NodeID))
	})
	wire := m.encryptedAnywhere(s)
	out := make([]doctor.Peer, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { out[i] = m.examine(ctx, probes, p, s.DataPathPort, wire && p.WireGuard.Key != "") })
	}
	all.Wait()
	return out
}

// drift compares what the managers want with what kernel and engine have.
func (m *member) drift(ctx context.Context, s *api.NodeState) doctor.Drift {
	d := doctor.Drift{Known: true}
	network, err := m.net.Differences()
	if err != nil {
		network = append(network, "can not be read: "+err.Error())
	}
	if why := m.names.Trouble(); why != "" {
		network = append(network, "containers can not ask for names: "+why)
	}
	d.Network = network
	mesh, err := m.mesh.Differs()
	if err != nil {
		mesh = "can not be read: " + err.Error()
	}
	if mesh != "" {
		d.Mesh = []string{mesh}
	}
	ctx, cancel := context.WithTimeout(ctx, askEngineTime)
	defer cancel()
	have, err := m.engine.List(ctx, s.ClusterID)
	if err != nil {
		d.Error = err.Error()
		return d
	}
	d.Missing, d.Superseded = compareTasks(s, have)
	return d
}

// compareTasks names tasks that the managers take for running and that are not,
// and containers that run for nobody.
func compareTasks(s *api.NodeState, have []task.Container) (missing, superseded []string) {
	runs := map[string]bool{}
	for _, c := range have {
		if c.Phase != task.Running {
			continue
		}
		runs[c.TaskID] = true
		// One that is told to stop takes as long as it likes; one that has ended
		// for the managers does not run.
		if a, ok := s.Tasks[c.TaskID]; !ok || api.Terminal(a.Task.Status.State) {
			superseded = append(superseded, c.ID[:min(12, len(c.ID))])
		}
	}
	for id, a := range s.Tasks {
		if a.Task.DesiredState == swarm.TaskStateRunning && a.Task.Status.State == swarm.TaskStateRunning && !runs[id] {
			missing = append(missing, id)
		}
	}
	slices.Sort(missing)
	slices.Sort(superseded)
	return missing, superseded
}

// heldPorts are the mesh's ports that a program or container of this host has,
// too.
func (m *member) heldPorts(ctx context.Context, s *api.NodeState) []doctor.HeldPort {
	ctx, cancel := context.WithTimeout(ctx, askEngineTime)
	defer cancel()
	var out []doctor.HeldPort
	for _, e := range s.Endpoints {
		for _, p := range e.Ports {
			if owner, err := m.portOwner(ctx, p); err == nil && owner != "" {
				out = append(out, doctor.HeldPort{Port: fmt.Sprintf("%d/%s", p.Published, p.Protocol), Owner: owner})
			}
		}
	}
	slices.SortFunc(out, func(a, b doctor.HeldPort) int { return cmp.Compare(a.Port, b.Port) })
	return out
}

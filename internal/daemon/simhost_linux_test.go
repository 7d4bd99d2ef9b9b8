package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"shoal/cluster"
	"shoal/cluster/seal"
	"shoal/internal/control"
	"shoal/internal/httpapi"
	"shoal/internal/session"
	"shoal/internal/sim"
	"shoal/internal/store"
)

const simCluster = "simulated"

// simHost is a host with a manager on it, as long as it lives.
type simHost struct {
	w     *simWorld
	id    string
	key   *seal.Key
	disk  string // what it keeps, while dead: what it starts from
	lives int

	mu   sync.Mutex
	life *simLife // nil while dead
}

// simLife is a manager from its start to its end: all of the product but the
// port and what is not a manager's.
type simLife struct {
	h         *simHost
	ctx       context.Context
	cancel    context.CancelFunc
	m         *manager
	transport *sim.Transport
	api       http.Handler  // for the other managers
	skew      atomic.Int64  // what its clock is off by
	slow      atomic.Int64  // how long it takes to apply an entry
	ended     chan struct{} // raft is
	leading   atomic.Int32
}

func (h *simHost) alive() *simLife {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.life
}

// start begins a life.
func (h *simHost) start(start cluster.Start) *simLife {
	t := h.w.t
	h.lives++
	l := &simLife{h: h, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.m = newManager(identity{NodeID: h.id, ClusterID: simCluster, AdvertiseAddr: simAddr(h.id)}, nil, zap.NewNop())
	l.m.gossip = newRumours(nil)
	l.m.server = session.NewServer(session.ServerConfig{Store: l.m.store, Identify: simIdentify, Leader: l.m.leader, Gone: l.m.gone, Log: zap.NewNop()})
	r := cluster.NewRaft(cluster.RaftConfig{
		Dir: h.disk, Key: h.key, Start: start,
		Machine: simMachine{l.m.store, l}, Logger: l.logger(),
		Transport: func() (raft.Transport, error) {
			l.transport = h.w.net.Transport(h.id)
			return l.transport, nil
		},
		// Often, so that those who come back need one.
		SnapshotEntries: 40, TrailingEntries: 10, SnapshotCheck: time.Second,
	})
	l.m.cluster, l.m.book = &cluster.Node{Raft: r}, &book{}
	l.m.store.Connect(simProposer{r, l})
	handler, err := httpapi.New(httpapi.Config{Node: simNode{Node: nil, l: l}, DockerHost: "unix:///nonexistent", Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	l.api = httpapi.Forwarded(handler)

	go func() {
		defer close(l.ended)
		err := r.Run(l.ctx)
		if l.transport != nil {
			l.transport.Wait()
		}
		switch {
		case errdefs.IsAborted(err) && l.ctx.Err() == nil:
			h.again(l)
		case err != nil:
			t.Errorf("%s: raft ended: %v", h.id, err)
		}
	}()
	select {
	case <-r.Ready():
	case <-l.ended:
		t.Fatalf("%s: raft does not start", h.id)
	}
	h.mu.Lock()
	h.life = l
	h.mu.Unlock()
	return l
}

// again is what follows when a manager ends by itself to be started again.
func (h *simHost) again(l *simLife) {
	h.w.count("a manager started itself again")
	h.mu.Lock()
	h.life = nil
	h.mu.Unlock()
	l.cancel()
	h.start(cluster.Restart).serve()
}

// serve lets it lead when it is its turn.
func (l *simLife) serve() {
	h := l.h
	linger := rand.New(rand.NewPCG(h.w.seed, uint64(h.lives)<<8|uint64(h.id[1])))
	h.w.rest.Go(func() {
		_ = l.m.cluster.Raft.RunAsLeader(l.ctx, func(ctx context.Context) error {
			if l.leading.Add(1) != 1 {
				h.w.t.Errorf("%s works as the leader twice at once", h.id)
			}
			defer l.leading.Add(-1)
			h.w.terms.Add(1)
			err := l.m.lead(ctx)
			if linger.IntN(2) == 0 { // its work takes a while to end
				_ = l.pause(l.ctx, time.Duration(linger.Int64N(int64(300*time.Millisecond))))
			}
			return err
		})
	})
}

// pause is how long something takes, on a host that may stand still.
func (l *simLife) pause(ctx context.Context, d time.Duration) error {
	if d > 0 {
		_ = l.h.w.sleep(ctx, d)
	}
	return l.h.w.net.Gate(ctx, l.h.id)
}

// kill is kill -9: what is on the disk now stays, and nothing the host does
// from now on is heard. Everything else is asleep when the disk is read, so that
// what is on it is what was synced.
func (h *simHost) kill() {
	l := h.alive()
	synctest.Wait()
	h.disk = h.copyDisk()
	h.mu.Lock()
	h.life = nil
	h.mu.Unlock()
	_ = l.transport.Close()
	l.cancel()
	h.w.rest.Go(func() { <-l.ended })
}

func (h *simHost) copyDisk() string {
	t := h.w.t
	dir := filepath.Join(h.w.dir, h.id+"-"+strconv.Itoa(h.lives))
	if err := os.CopyFS(dir, os.DirFS(h.disk)); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{dir, filepath.Join(dir, "snapshots")} {
		if err := os.Chmod(sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// logger holds raft up on a host that stands still where it finds that it has
// not heard of the others: before it stops leading. That a process wakes up in
// the belief that it still leads is what pauses are dangerous for, and timers
// that run on would hide it.
func (l *simLife) logger() *zap.Logger {
	lines := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m", TimeKey: "t", EncodeTime: l.h.w.since})
	core := zapcore.NewCore(lines, zapcore.AddSync(&l.h.w.said), zap.InfoLevel)
	return zap.New(core, zap.Fields(zap.String("of", l.h.id)), zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "failed to contact" && l.h.w.net.Paused(l.h.id) {
			l.h.w.woken.Add(1)
			if err := l.h.w.net.Gate(l.ctx, l.h.id); err == nil {
				_ = l.pause(l.ctx, 50*time.Millisecond) // others are scheduled first
			}
		}
		return nil
	}))
}

// simMachine stands still with its host.
type simMachine struct {
	*store.Store
	l *simLife
}

func (m simMachine) Apply(index uint64, data []byte) error {
	_ = m.l.pause(m.l.ctx, time.Duration(m.l.slow.Load())) // a dead host's state is nobody's
	return m.Store.Apply(index, data)
}

// simProposer has the host's clock, which is off.
type simProposer struct {
	*cluster.Raft
	l *simLife
}

func (p simProposer) Apply(ctx context.Context, data []byte) error {
	if skew := time.Duration(p.l.skew.Load()); skew != 0 {
		var txn store.Txn
		if err := json.Unmarshal(data, &txn); err != nil {
			return err
		}
		txn.At = txn.At.Add(skew)
		var err error
		if data, err = json.Marshal(txn); err != nil {
			return err
		}
	}
	err := p.Raft.Apply(ctx, data)
	if err != nil && p.l.slow.Load() > 0 {
		// Bad news travels slowly there: what the leader does besides goes on
		// for a while after it has ceased to be one.
		_ = p.l.pause(p.l.ctx, simReluctance)
	}
	return err
}

const simReluctance = 1500 * time.Millisecond

// simNode is what the API asks. What it does not answer is not asked here.
type simNode struct {
	httpapi.Node
	l *simLife
}

func (n simNode) Control() *control.Control {
	if !n.l.m.usable() {
		return nil
	}
	// Between the proof that it leads and the look at the state, a host may
	// stand still.
	_ = n.l.h.w.net.Gate(n.l.ctx, n.l.h.id)
	return n.l.m.control
}

// Forward knows nobody: requests have been passed on already, see enter.
func (n simNode) Forward() http.Handler { return nil }

func (n simNode) Status() httpapi.NodeStatus {
	return httpapi.NodeStatus{State: swarm.LocalNodeStateActive, ControlAvailable: true}
}

// enter answers a client: by itself if this host leads, or by passing it on.
func (l *simLife) enter() http.Handler {
	nodeID, self := l.m.cluster.Raft.Leader()
	if nodeID == "" || self {
		return l.api // which says so if it does not lead
	}
	return httpapi.Proxy(simRoute{l, nodeID}, "http://"+nodeID)
}

// simRoute carries requests between managers.
type simRoute struct {
	l  *simLife
	to string
}

func (r simRoute) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	net, from := r.l.h.w.net, r.l.h.id
	target := r.l.h.w.hosts[r.to].alive()
	if target == nil {
		return nil, sim.ErrReset
	}
	type answer struct {
		resp *http.Response
		err  error
	}
	answers := make(chan answer, 1)
	r.l.h.w.rest.Go(func() {
		// A request that is under way gets there though nobody waits any more.
		ctx, cancel := context.WithTimeout(target.ctx, 10*time.Second)
		defer cancel()
		if err := net.Carry(ctx, from, r.to); err != nil {
			answers <- answer{err: err}
			return
		}
		if target.ctx.Err() != nil {
			answers <- answer{err: sim.ErrReset}
			return
		}
		w := httptest.NewRecorder()
		in := req.Clone(ctx)
		in.Body = io.NopCloser(bytes.NewReader(body))
		target.api.ServeHTTP(w, in)
		if err := net.Carry(ctx, r.to, from); err != nil {
			answers <- answer{err: err}
			return
		}
		answers <- answer{resp: w.Result()}
	})
	select {
	case a := <-answers:
		return a.resp, a.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-target.ctx.Done():
		return nil, sim.ErrReset
	}
}

func simAddr(id string) string { return id + ":2377" }

// simTemp is where a run's disks are: in memory where that is possible, as their
// speed is not what is tested.
func simTemp(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "shoal-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

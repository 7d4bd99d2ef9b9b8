//go:build linux

package daemon

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/store"
)

// fleet is managers without engines, over real ports and a real raft.
type fleet struct {
	t    *testing.T
	root *ca.Root
	dir  string

	since uint64 // how far the log is that the next certificates are issued at

	mu    sync.Mutex
	addrs map[string]string
}

// ship is one of them.
type ship struct {
	*manager
	key  *seal.Key
	stop func()
}

func newFleet(t *testing.T) *fleet {
	root, err := ca.NewRoot("c1", time.Now().Add(-400*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, root: root, dir: t.TempDir(), addrs: map[string]string{}}
}

func (f *fleet) context() context.Context {
	ctx, cancel := context.WithTimeout(f.t.Context(), 60*time.Second)
	f.t.Cleanup(cancel)
	return ctx
}

// issue signs as the cluster's root does; one of another root is foreign.
func issue(t testing.TB, root *ca.Root, nodeID string, role ca.Role, at time.Time) *ca.Credentials {
	t.Helper()
	return issueSince(t, root, nodeID, role, at, 0)
}

// issueSince does so when the managers' log has a length.
func issueSince(t testing.TB, root *ca.Root, nodeID string, role ca.Role, at time.Time, since uint64) *ca.Credentials {
	t.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Sign(csr, ca.Identity{NodeID: nodeID, Role: role, ClusterID: "c1", Since: since}, ca.DefaultNodeValidity, at)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := ca.NewCredentials(ca.Bundle{CAPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key})
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

func (f *fleet) resolve(id string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if addr, ok := f.addrs[id]; ok {
		return addr, nil
	}
	return "", fmt.Errorf("no address for %s", id)
}

// start runs a manager whose endpoints are as the rules say; what is behind them
// is the caller's.
func (f *fleet) start(id string, how cluster.Start, endpoints func(*manager) []endpoint) *ship {
	f.t.Helper()
	return f.run(id, how, seal.NewKey(seal.Owner{ClusterID: "c1", NodeID: id}), endpoints)
}

// again starts a manager that was stopped.
func (f *fleet) again(s *ship) *ship {
	f.t.Helper()
	return f.run(s.id.NodeID, cluster.Restart, s.key, probes)
}

func (f *fleet) run(id string, how cluster.Start, key *seal.Key, endpoints func(*manager) []endpoint) *ship {
	f.t.Helper()
	m := newManager(identity{NodeID: id, ClusterID: "c1"}, nil, zap.NewNop())
	m.gossip = newRumours(nil)
	m.api = http.NotFoundHandler()
	m.echo = func(*http.Request) (any, error) { return struct{}{}, nil }
	node := cluster.NewNode(cluster.NodeConfig{
		DataDir: f.dir + "/" + id, Credentials: issueSince(f.t, f.root, id, ca.RoleManager, time.Now(), f.since),
		Key: key, ListenAddr: "127.0.0.1:0", Start: how,
		Machine: m.store, Resolve: f.resolve, Admit: m.admit,
	})
	m.wire(node, newBook(nil))
	srv, err := peerServer(m, endpoints(m), m.log)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	failed := make(chan error, 1)
	running.Go(func() { failed <- node.Run(ctx) })
	running.Go(func() {
		_ = node.Raft.RunAsLeader(ctx, func(ctx context.Context) error {
			m.leading.Store(true)
			defer m.leading.Store(false)
			<-ctx.Done()
			return nil
		})
	})
	running.Go(func() { _ = srv.Serve(node.Port.Listener(cluster.ProtocolHTTP)) })
	stop := sync.OnceFunc(func() {
		cancel()
		_ = srv.Close()
		running.Wait()
	})
	f.t.Cleanup(stop)
	select {
	case <-node.Raft.Ready():
	case err := <-failed:
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.addrs[id] = node.Port.Addr().String()
	f.mu.Unlock()
	return &ship{m, key, stop}
}

// put changes the state through a manager that leads.
func (s *ship) put(t testing.TB, ctx context.Context, objects ...api.Object) {
	t.Helper()
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		for _, o := range objects {
			if err := tx.Put(o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asRole is a node in the state.
func (f *fleet) asRole(id string, role swarm.NodeRole) *api.Node {
	addr, _ := f.resolve(id)
	return &api.Node{Meta: api.Meta{ID: id}, Spec: swarm.NodeSpec{Role: role}, Role: role, Addr: addr}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it did not happen that %s", what)
		}
	}
}

func (s *ship) role(id string) swarm.NodeRole {
	n, ok := s.store.View().Nodes.Get(id)
	if !ok {
		return ""
	}
	return n.Role
}

// handsOver has another one lead. On a busy machine that may take several tries.
func (s *ship) handsOver(t testing.TB, to *ship) {
	t.Helper()
	waitFor(t, to.id.NodeID+" leads", func() bool {
		if !to.leading.Load() {
			_ = s.cluster.Raft.TransferLeadership(t.Context(), to.id.NodeID)
		}
		return to.leading.Load()
	})
}

//go:build linux

package daemon

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/api"
)

// TestWhoMayCallAWorker plays all that a worker, and all that a manager, answers
// against every kind of peer, on a worker.
func TestWhoMayCallAWorker(t *testing.T) {
	f := newFleet(t)
	now, foreign := time.Now(), newRoot(t)
	creds := issue(t, f.root, "w0", ca.RoleWorker, now)
	m := &member{id: identity{NodeID: "w0", ClusterID: "c1"}, creds: creds, log: zap.NewNop()}
	m.cluster = cluster.NewNode(cluster.NodeConfig{DataDir: f.dir + "/w0", Credentials: creds, ListenAddr: "127.0.0.1:0", Admit: noRaft})
	m.gossip, m.echoes = newRumours(m), newEchoes(m)
	m.state.Store(&api.NodeState{Peers: map[string]api.Peer{
		"m1": {NodeID: "m1", Manager: true}, "w1": {NodeID: "w1"}, "demoted": {NodeID: "demoted"},
	}})

	own := m.endpoints()
	if len(own) != 1 || own[0].method+" "+own[0].pattern != "POST /shoal/echo" || own[0].who != nodes || own[0].where != anyNode {
		t.Errorf("a worker answers %+v", own)
	}
	for i := range own {
		own[i].serve = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "reached") })
	}
	// As if somebody had put one there that is not for a worker.
	own = append(own,
		endpoint{http.MethodPost, "/stray/join", applicants, anyNode, own[0].serve},
		endpoint{http.MethodPost, "/stray/lock", managers, anyNode, own[0].serve},
		endpoint{http.MethodPost, "/stray/session", nodes, leader, own[0].serve},
	)
	if _, err := guarded(m, []endpoint{{http.MethodPost, "/x", 0, anyNode, http.NotFoundHandler()}}); err == nil {
		t.Error("an endpoint without a rule was served")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = m.cluster.Run(ctx) })
	running.Go(func() { _ = serveEndpoints(ctx, m.cluster.Port, m, own, m.log) })
	t.Cleanup(func() { cancel(); running.Wait() })
	<-m.cluster.Port.Ready()
	addr := m.cluster.Port.Addr().String()

	const (
		member, stranger, removed = "200 reached", "401", "403"
		barred                    = "no answer"
	)
	peers := map[*peer]string{
		{name: "no certificate"}: stranger,
		{name: "worker", creds: issue(t, f.root, "w1", ca.RoleWorker, now)}:                                member,
		{name: "itself", creds: creds}:                                                                     member,
		{name: "manager", creds: issue(t, f.root, "m1", ca.RoleManager, now)}:                              member,
		{name: "demoted manager", creds: issue(t, f.root, "demoted", ca.RoleManager, now)}:                 member,
		{name: "foreign worker", creds: issue(t, foreign, "w1", ca.RoleWorker, now)}:                       barred,
		{name: "foreign manager", creds: issue(t, foreign, "m1", ca.RoleManager, now)}:                     barred,
		{name: "expired worker", creds: issue(t, f.root, "w1", ca.RoleWorker, now.Add(-200*24*time.Hour))}: barred,
		{name: "removed worker", creds: issue(t, f.root, "gone", ca.RoleWorker, now)}:                      removed,
		{name: "removed manager", creds: issue(t, f.root, "gone", ca.RoleManager, now)}:                    removed,
	}
	elsewhere := (&manager{}).endpoints()
	for p, want := range peers {
		rt := p.transport(addr)
		for kind, header := range map[string]http.Header{"": nil, ", with forged headers": forged} {
			if got := call(f.context(), rt, http.MethodPost, pathEcho, header); !strings.HasPrefix(got, want) || want != member && strings.Contains(got, "reached") {
				t.Errorf("%s%s: %q, want %q", p.name, kind, got, want)
			}
			for _, path := range []string{"/stray/join", "/stray/lock", "/stray/session"} {
				if got := call(f.context(), rt, http.MethodPost, path, header); strings.Contains(got, "reached") {
					t.Errorf("%s%s: %s: %q", p.name, kind, path, got)
				}
			}
			for _, e := range elsewhere {
				methods, path := requests(e)
				if e.pattern == pathEcho {
					methods = []string{http.MethodGet, http.MethodPut}
				}
				for _, method := range methods {
					got := call(f.context(), rt, method, path, header)
					if strings.Contains(got, "reached") || want != barred && !strings.HasPrefix(got, "404") && !strings.HasPrefix(got, "405") {
						t.Errorf("%s%s: %s %s: %q", p.name, kind, method, path, got)
					}
				}
			}
		}
		rt.CloseIdleConnections()
		if letIn(addr, p.config(cluster.ProtocolRaft)) {
			t.Errorf("%s: a worker speaks raft", p.name)
		}
	}

	m.state.Store(&api.NodeState{Peers: map[string]api.Peer{"m1": {NodeID: "m1", Manager: true}}})
	for p, want := range peers {
		if p.name != "worker" {
			continue
		}
		rt := p.transport(addr)
		if got := call(f.context(), rt, http.MethodPost, pathEcho, nil); want != member || !strings.HasPrefix(got, removed) {
			t.Errorf("removed meanwhile: %q", got)
		}
		rt.CloseIdleConnections()
	}
}

//go:build linux

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/gossip"
	"shoal/internal/api"
	"shoal/internal/session"
	"shoal/internal/store"
)

// TestEndpointRules names the rule of every endpoint a second time, so that
// none is loosened by accident.
func TestEndpointRules(t *testing.T) {
	f := newFleet(t)
	m := f.start("m1", cluster.Bootstrap, func(m *manager) []endpoint { return m.endpoints() })
	want := map[string]struct {
		who   who
		where where
	}{
		"POST /shoal/session":           {nodes, leader},
		"POST /shoal/session/call/{id}": {nodes, leader},
		"POST /shoal/join":              {applicants, leader},
		"POST /shoal/renew":             {nodes, leader},
		"POST /shoal/renew-expired":     {applicants, leader},
		"POST /shoal/leave":             {nodes, leader},
		"GET /shoal/progress":           {managers, anyNode},
		"GET /shoal/lock":               {managers, anyNode},
		"POST /shoal/echo":              {nodes, anyNode},
		"POST /shoal/attach":            {nodes, leader},
		"POST /shoal/detach":            {nodes, leader},
		"POST /shoal/name":              {nodes, leader},
		" /shoal/api/":                  {managers, anyNode},
	}
	got := m.endpoints()
	for _, e := range got {
		if w := want[e.method+" "+e.pattern]; w.who != e.who || w.where != e.where {
			t.Errorf("%s %s: rule %d, %d", e.method, e.pattern, e.who, e.where)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d endpoints, %d rules", len(got), len(want))
	}
	for _, e := range []endpoint{
		{"GET", "/x", 0, leader, http.NotFoundHandler()},
		{"GET", "/x", nodes, 0, http.NotFoundHandler()},
		{"GET", "/x", nodes, leader, nil},
	} {
		if _, err := guarded(m, []endpoint{e}); err == nil {
			t.Errorf("an endpoint without a rule was served: %+v", e)
		}
	}
}

// peer is somebody at the port.
type peer struct {
	name  string
	creds *ca.Credentials // nil: none is shown
	rank  who             // the most that it may call
	why   string          // why it does not get as far as an endpoint
	// raft says whether raft is for it, alone whether it is while nobody leads and
	// this manager's log may have fallen behind.
	raft, alone, gossip bool
}

func (p *peer) config(protocol string) *tls.Config {
	if p.creds == nil {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	}
	c := p.creds.ClientConfig(protocol, ca.Peer{})
	c.VerifyConnection = nil // a hostile peer does not care who answers
	return c
}

func (p *peer) transport(addr string) *cluster.Transport {
	return cluster.NewTransport(func(ctx context.Context) (*tls.Conn, error) {
		conn, err := (&tls.Dialer{Config: p.config(cluster.ProtocolHTTP)}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	})
}

// expected is what the rule says, in the words of call.
func (p *peer) expected(e endpoint, leads bool) string {
	switch {
	case p.why != "":
		return p.why
	case p.rank < e.who && p.creds == nil:
		return "401"
	case p.rank < e.who:
		return "403"
	case e.where == leader && !leads:
		return "503"
	}
	return "200 reached"
}

// forged is all that anybody might take for an identity.
var forged = http.Header{
	"X-Forwarded-For":         {"127.0.0.1"},
	"Forwarded":               {"for=m1;by=m1"},
	"X-Forwarded-Client-Cert": {`Subject="CN=m1,OU=swarm-manager,O=c1"`},
	"X-Remote-User":           {"m1"},
	"Authorization":           {"Bearer m1"},
	"Redirect":                {"m1"},
	"Remote-Addr":             {"127.0.0.1"},
	"Forwarded-Cert":          {"m1"},
	session.LeaderHeader:      {"m1 127.0.0.1:1"},
}

func call(ctx context.Context, rt http.RoundTripper, method, path string, header http.Header) string {
	req, err := http.NewRequestWithContext(ctx, method, "https://cluster"+path, strings.NewReader("{}"))
	if err != nil {
		return err.Error()
	}
	if header != nil {
		req.Header = header.Clone()
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)), " ", err)
}

// probes are the endpoints with their rules, and something behind them that
// tells that it was reached.
func probes(m *manager) []endpoint {
	es := m.endpoints()
	for i := range es {
		es[i].serve = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "reached") })
	}
	return es
}

// requests gives what to ask for to meet an endpoint.
func requests(e endpoint) (methods []string, path string) {
	methods, path = []string{e.method}, strings.Replace(e.pattern, "{id}", "c0ffee", 1)
	if e.method == "" {
		methods = []string{"GET", "POST", "DELETE"}
	}
	if strings.HasSuffix(path, "/") {
		path += "v1.44/nodes"
	}
	return methods, path
}

// matrix is a cluster of two with all sorts of peers.
type matrix struct {
	*fleet
	m1, m2 *ship
	peers  []*peer
}

func newMatrix(t *testing.T) *matrix {
	f := newFleet(t)
	x := &matrix{fleet: f, m1: f.start("m1", cluster.Bootstrap, probes), m2: f.start("m2", cluster.Join, probes)}
	waitFor(t, "m1 leads", x.m1.leading.Load)
	if err := x.m1.cluster.Raft.AddVoter(x.context(), "m2"); err != nil {
		t.Fatal(err)
	}
	x.m1.put(t, x.context(), &api.Cluster{Meta: api.Meta{ID: "c1"}},
		f.asRole("m1", swarm.NodeRoleManager), f.asRole("m2", swarm.NodeRoleManager), f.asRole("m3", swarm.NodeRoleManager),
		f.asRole("w1", swarm.NodeRoleWorker), f.asRole("demoted", swarm.NodeRoleWorker), f.asRole("promoted", swarm.NodeRoleManager))
	waitFor(t, "m2 has the state", func() bool { return x.m2.role("demoted") != "" })

	now, foreign := time.Now(), newRoot(t)
	const (
		removed = "403 node gone is not admitted: it was removed from the cluster"
		later   = "403 node later is not admitted: it was removed from the cluster"
		barred  = "no answer" // TLS ends it; which words come of that is tested with the port
	)
	x.peers = []*peer{
		{name: "no certificate", rank: applicants},
		{name: "worker", creds: issue(t, f.root, "w1", ca.RoleWorker, now), rank: nodes, gossip: true},
		{name: "manager", creds: issue(t, f.root, "m3", ca.RoleManager, now), rank: managers, raft: true, alone: true, gossip: true},
		{name: "server of raft", creds: issue(t, f.root, "m1", ca.RoleManager, now), rank: managers, raft: true, alone: true, gossip: true},
		{name: "demoted manager with its old certificate", creds: issue(t, f.root, "demoted", ca.RoleManager, now), rank: nodes, gossip: true},
		{name: "promoted worker with its old certificate", creds: issue(t, f.root, "promoted", ca.RoleWorker, now), rank: nodes, gossip: true},
		{name: "foreign worker", creds: issue(t, foreign, "w1", ca.RoleWorker, now), why: barred},
		{name: "foreign manager", creds: issue(t, foreign, "m1", ca.RoleManager, now), why: barred},
		{name: "expired worker", creds: issue(t, f.root, "w1", ca.RoleWorker, now.Add(-200*24*time.Hour)), why: barred},
		{name: "expired manager", creds: issue(t, f.root, "m1", ca.RoleManager, now.Add(-200*24*time.Hour)), why: barred},
		{name: "removed worker", creds: issue(t, f.root, "gone", ca.RoleWorker, now), why: removed},
		{name: "removed manager", creds: issue(t, f.root, "gone", ca.RoleManager, now), why: removed},
		{name: "manager that this one can not have heard of", creds: issueSince(t, f.root, "later", ca.RoleManager, now, 1<<40), why: later, alone: true},
		{name: "demoted manager that may have been promoted since", creds: issueSince(t, f.root, "demoted", ca.RoleManager, now, 1<<40), rank: nodes, alone: true, gossip: true},
	}
	return x
}

// check goes through all endpoints, peers and headers at one manager.
func (x *matrix) check(s *ship, when string, leads, led bool) {
	x.t.Helper()
	addr := s.cluster.Port.Addr().String()
	for _, p := range x.peers {
		rt := p.transport(addr)
		for _, e := range s.endpoints() {
			methods, path := requests(e)
			for _, method := range methods {
				for kind, header := range map[string]http.Header{"": nil, ", with forged headers": forged} {
					want := p.expected(e, leads)
					if got := call(x.context(), rt, method, path, header); !strings.HasPrefix(got, want) || (want != "200 reached" && strings.Contains(got, "reached")) {
						x.t.Errorf("%s: %s%s: %s %s: %q, want %q", when, p.name, kind, method, path, got, want)
					}
				}
			}
		}
		for _, path := range []string{"/", "/nodes", "/shoal", "/shoal/", "/shoal/apinodes", "/shoal/session/call/", "/shoal/join/x"} {
			want := p.why
			if want == "" {
				want = "404"
			}
			if got := call(x.context(), rt, "GET", path, nil); !strings.HasPrefix(got, want) {
				x.t.Errorf("%s: %s: %s: %q, want %q", when, p.name, path, got, want)
			}
		}
		rt.CloseIdleConnections()
	}
	var all sync.WaitGroup
	for _, p := range x.peers {
		for protocol, want := range map[string]bool{cluster.ProtocolRaft: p.raft || !led && p.alone, cluster.ProtocolGossip: p.gossip} {
			all.Go(func() {
				if got := letIn(addr, p.config(protocol)); got != want {
					x.t.Errorf("%s: %s on %s: let in %v, want %v", when, p.name, protocol, got, want)
				}
			})
		}
	}
	all.Wait()
}

// letIn tells whether the port keeps a connection that says nothing.
func letIn(addr string, config *tls.Config) bool {
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestWhoMayCallWhat plays every endpoint against every kind of peer, on the
// leader, on a follower, and on a manager that knows no leader.
func TestWhoMayCallWhat(t *testing.T) {
	x := newMatrix(t)
	x.check(x.m1, "on the leader", true, true)
	x.check(x.m2, "on a follower", false, true)
	x.m1.stop()
	// m1 hands over; m2 leads until it finds that it is alone.
	alone := 0
	waitFor(t, "m2 knows no leader, and stays so", func() bool {
		alone++
		if id, _ := x.m2.cluster.Raft.Leader(); id != "" {
			alone = 0
		}
		return alone > 100
	})
	x.check(x.m2, "without a leader", false, false)
}

// TestNobodyGetsThroughDuringALeaderChange asks without a pause while leadership
// goes to and fro: what the rules forbid is never reached.
func TestNobodyGetsThroughDuringALeaderChange(t *testing.T) {
	x := newMatrix(t)
	ctx, cancel := context.WithCancel(x.context())
	var asking sync.WaitGroup
	for _, s := range []*ship{x.m1, x.m2} {
		for _, p := range x.peers {
			asking.Go(func() {
				rt := p.transport(s.cluster.Port.Addr().String())
				defer rt.CloseIdleConnections()
				for ctx.Err() == nil {
					for _, e := range s.endpoints() {
						methods, path := requests(e)
						allowed := p.expected(e, true) == "200 reached"
						if got := call(ctx, rt, methods[0], path, forged); !allowed && strings.Contains(got, "reached") {
							t.Errorf("%s: %s: %s", p.name, path, got)
						}
					}
				}
			})
		}
	}
	for range 4 {
		// On a busy machine leadership moves by itself, too: whoever leads at the
		// moment gives it away.
		waitFor(t, "the leader hands over", func() bool {
			for _, s := range []*ship{x.m1, x.m2} {
				if s.leading.Load() && s.cluster.Raft.TransferLeadership(x.context(), "") == nil {
					return true
				}
			}
			return false
		})
		waitFor(t, "somebody leads again", func() bool { return x.m1.leading.Load() || x.m2.leading.Load() })
	}
	cancel()
	asking.Wait()
}

// TestADemotedManagerIsHeardNoMore: its raft stream was opened when it was one.
func TestADemotedManagerIsHeardNoMore(t *testing.T) {
	x := newMatrix(t)
	for _, p := range x.peers {
		if p.name != "manager" {
			continue
		}
		conn, err := tls.Dial("tcp", x.m2.cluster.Port.Addr().String(), p.config(cluster.ProtocolRaft))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		heard := func() bool {
			if _, err := conn.Write([]byte{0}); err != nil {
				return false
			}
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, err := conn.Read(make([]byte, 1))
			var ne net.Error
			return errors.As(err, &ne) && ne.Timeout()
		}
		if !heard() {
			t.Fatal("a manager is not heard")
		}
		x.m1.put(t, x.context(), x.asRole("m3", swarm.NodeRoleWorker))
		waitFor(t, "m2 knows", func() bool { return x.m2.role("m3") == swarm.NodeRoleWorker })
		if heard() {
			t.Error("it was demoted, and its stream is still read")
		}
		if letIn(x.m2.cluster.Port.Addr().String(), p.config(cluster.ProtocolRaft)) {
			t.Error("it was demoted, and opened another stream")
		}
	}
}

// TestAManagerOfYesterdayStaysOut: managers that start have the state of their
// last snapshot until somebody leads, and one that is gone is not let in on it.
func TestAManagerOfYesterdayStaysOut(t *testing.T) {
	for name, snapshot := range map[string]bool{"without a snapshot": false, "with one of when it was a manager": true} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			m1 := f.start("m1", cluster.Bootstrap, probes)
			waitFor(t, "m1 leads", m1.leading.Load)
			m1.put(t, f.context(), &api.Cluster{Meta: api.Meta{ID: "c1"}}, f.asRole("m1", swarm.NodeRoleManager))
			ships := map[string]*ship{}
			certs := map[string]*ca.Credentials{}
			for _, id := range []string{"m2", "gone", "demoted"} {
				f.since = m1.cluster.Raft.Stats().AppliedIndex
				ships[id] = f.start(id, cluster.Join, probes)
				certs[id] = issueSince(t, f.root, id, ca.RoleManager, time.Now(), f.since)
				m1.put(t, f.context(), f.asRole(id, swarm.NodeRoleManager))
				if err := m1.cluster.Raft.AddVoter(f.context(), id); err != nil {
					t.Fatal(err)
				}
			}
			m2 := ships["m2"]
			waitFor(t, "m2 has the state", func() bool { return m2.role("demoted") != "" })
			if snapshot {
				if err := m2.cluster.Raft.Snapshot(f.context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range []string{"gone", "demoted"} {
				if err := m1.cluster.Raft.RemoveServer(f.context(), id); err != nil {
					t.Fatal(err)
				}
				ships[id].stop()
			}
			m1.put(t, f.context(), f.asRole("demoted", swarm.NodeRoleWorker))
			err := m1.store.Update(f.context(), func(tx *store.Tx) error { return tx.Delete(api.KindNode, "gone") })
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, "m2 has that as well", func() bool { return m2.role("gone") == "" && m2.role("demoted") == swarm.NodeRoleWorker })
			m2.stop()
			m1.stop()

			m2 = f.again(m2)
			addr := m2.cluster.Port.Addr().String()
			for id, want := range map[string]bool{"m2": true, "gone": false, "demoted": false} {
				p := peer{creds: certs[id]}
				if got := letIn(addr, p.config(cluster.ProtocolRaft)); got != want {
					t.Errorf("%s: let in %v, want %v", id, got, want)
				}
			}
			if m2.role("demoted") == swarm.NodeRoleWorker {
				t.Fatal("m2 knows what came after its snapshot: nothing was tested")
			}
		})
	}
}

// TestAManagerThatWasAwayIsBroughtUpToDate: all others were replaced meanwhile,
// by nodes that it has never heard of.
func TestAManagerThatWasAwayIsBroughtUpToDate(t *testing.T) {
	f := newFleet(t)
	ships := map[string]*ship{"a": f.start("a", cluster.Bootstrap, probes)}
	leads := func() *ship {
		var found *ship
		waitFor(t, "somebody leads", func() bool {
			for _, s := range ships {
				if s.leading.Load() {
					found = s
				}
			}
			return found != nil
		})
		return found
	}
	leads().put(t, f.context(), &api.Cluster{Meta: api.Meta{ID: "c1"}}, f.asRole("a", swarm.NodeRoleManager))
	add := func(id string) {
		t.Helper()
		f.since = leads().cluster.Raft.Stats().AppliedIndex
		ships[id] = f.start(id, cluster.Join, probes)
		l := leads()
		l.put(t, f.context(), f.asRole(id, swarm.NodeRoleManager))
		if err := l.cluster.Raft.AddVoter(f.context(), id); err != nil {
			t.Fatal(err)
		}
		waitFor(t, id+" has the state", func() bool { return ships[id].role(id) != "" })
	}
	remove := func(id string) {
		t.Helper()
		if l := leads(); l == ships[id] {
			if err := l.cluster.Raft.TransferLeadership(f.context(), "c"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, id+" leads no more", func() bool { return !l.leading.Load() })
		}
		l := leads()
		if err := l.cluster.Raft.RemoveServer(f.context(), id); err != nil {
			t.Fatal(err)
		}
		l.put(t, f.context(), f.asRole(id, swarm.NodeRoleWorker))
		ships[id].stop()
		delete(ships, id)
	}
	add("b")
	add("away")
	away := ships["away"]
	leads().put(t, f.context(), f.asRole("w1", swarm.NodeRoleWorker))
	waitFor(t, "it has all of the state", func() bool { return away.role("w1") != "" })
	if err := away.cluster.Raft.Snapshot(f.context()); err != nil { // it starts with a state
		t.Fatal(err)
	}
	away.stop()
	delete(ships, "away")
	add("c")
	remove("a")
	add("d")
	remove("b")
	add("e")

	away = f.again(away)
	waitFor(t, "it has what happened while it was away", func() bool {
		return away.role("b") == swarm.NodeRoleWorker && away.role("e") == swarm.NodeRoleManager
	})
}

// TestAStrangerGetsOneThingAtATime: a second request ends the connection, and
// the first with it.
func TestAStrangerGetsOneThingAtATime(t *testing.T) {
	f := newFleet(t)
	m := f.start("m1", cluster.Bootstrap, (*manager).endpoints)
	waitFor(t, "m1 leads", m.leading.Load)
	stranger := &peer{}
	rt := stranger.transport(m.cluster.Port.Addr().String())
	defer rt.CloseIdleConnections()
	body, rest := io.Pipe() // it never ends by itself
	defer rest.Close()
	req, err := http.NewRequestWithContext(f.context(), http.MethodPost, "https://cluster"+pathJoin, body)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		resp, err := rt.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	if _, err := rest.Write([]byte(`{"Addr":"`)); err != nil { // the first is under way
		t.Fatal(err)
	}
	waitFor(t, "a second request fails", func() bool {
		got := call(f.context(), rt, http.MethodGet, "/", nil)
		return !strings.HasPrefix(got, "404")
	})
	if err := <-ended; err == nil {
		t.Error("the first request was answered all the same")
	}
}

// TestBodiesOfNoAndOfHugeLength: neither gets a certificate, or past a rule.
func TestBodiesOfNoAndOfHugeLength(t *testing.T) {
	f := newFleet(t)
	m := f.start("m1", cluster.Bootstrap, (*manager).endpoints)
	waitFor(t, "m1 leads", m.leading.Load)
	m.put(t, f.context(), &api.Cluster{Meta: api.Meta{ID: "c1"}}, f.asRole("m1", swarm.NodeRoleManager), f.asRole("w1", swarm.NodeRoleWorker))
	before := m.cluster.Raft.Stats().LastIndex
	addr := m.cluster.Port.Addr().String()
	for _, p := range []*peer{{name: "no certificate"}, {name: "worker", creds: issue(t, f.root, "w1", ca.RoleWorker, time.Now())}} {
		for _, path := range []string{pathJoin, pathRenew, pathExpired, pathLock, pathAPI + "/nodes"} {
			for name, body := range map[string]io.Reader{
				"none":          nil,
				"empty":         http.NoBody,
				"unknown empty": io.MultiReader(strings.NewReader("")),
				"huge":          strings.NewReader(strings.Repeat(" ", 16*maxPeerBody)),
				"unknown huge":  io.MultiReader(strings.NewReader(`{"Addr":"` + strings.Repeat("x", 16*maxPeerBody))),
			} {
				req, err := http.NewRequestWithContext(f.context(), http.MethodPost, "https://cluster"+path, body)
				if err != nil {
					t.Fatal(err)
				}
				rt := p.transport(addr)
				if resp, err := rt.RoundTrip(req); err == nil {
					if resp.StatusCode < 400 {
						t.Errorf("%s: %s with a body of length %s: %s", p.name, path, name, resp.Status)
					}
					resp.Body.Close()
				}
				rt.CloseIdleConnections()
			}
		}
	}
	if after := m.cluster.Raft.Stats().LastIndex; after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
}

// TestGossipKeysKeepTheirAgeUnderAnotherLeader: when they are due is in the
// state, and begins anew with no leader.
func TestGossipKeysKeepTheirAgeUnderAnotherLeader(t *testing.T) {
	x := newMatrix(t)
	aged := func(s *ship, age time.Duration) {
		c := s.store.View().Cluster().Tended()
		c.GossipKeys, c.GossipKeysSince = rawKeys([]gossip.Key{gossip.NewKey()}), time.Now().Add(-age)
		s.put(t, x.context(), c)
	}
	aged(x.m1, 23*time.Hour)
	x.m1.handsOver(t, x.m2)
	if wait, err := x.m2.nextGossipKeys(x.context()); err != nil || wait > time.Hour {
		t.Errorf("another leader waits for %s, %v", wait, err)
	}
	aged(x.m2, 25*time.Hour)
	x.m2.handsOver(t, x.m1)
	if _, err := x.m1.nextGossipKeys(x.context()); err != nil {
		t.Fatal(err)
	}
	if c := x.m1.store.View().Cluster(); len(c.GossipKeys) != 2 || c.GossipStep != 1 {
		t.Errorf("%d keys after %d steps", len(c.GossipKeys), c.GossipStep)
	}
}

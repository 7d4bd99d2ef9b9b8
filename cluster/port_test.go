package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/raft"

	"shoal/cluster/ca"
)

// authority hands out credentials for tests.
type authority struct {
	t       testing.TB
	cluster string
	root    *ca.Root
}

func newAuthority(t testing.TB, cluster string) *authority {
	t.Helper()
	root, err := ca.NewRoot(cluster, time.Now().Add(-400*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cluster, root}
}

func (a *authority) issue(nodeID string, role ca.Role, at time.Time) *ca.Credentials {
	a.t.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := a.root.Sign(csr, ca.Identity{NodeID: nodeID, Role: role, ClusterID: a.cluster}, ca.DefaultNodeValidity, at)
	if err != nil {
		a.t.Fatal(err)
	}
	creds, err := ca.NewCredentials(ca.Bundle{CAPEM: a.root.CertPEM(), CertPEM: cert, KeyPEM: key})
	if err != nil {
		a.t.Fatal(err)
	}
	return creds
}

func startPort(t testing.TB, cfg PortConfig) *Port {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	p := NewPort(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	<-p.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("port: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.open) != 0 {
			t.Errorf("%d connections are left open", len(p.open))
		}
	})
	return p
}

// echo answers every connection of a protocol with one line.
func echo(t testing.TB, l net.Listener, line string) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, line+"\n")
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}

func says(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return strings.TrimSpace(string(b)), err
}

func TestPortLetsInWhomItShould(t *testing.T) {
	home, foreign := newAuthority(t, "c1"), newAuthority(t, "c1")
	now := time.Now()
	server := startPort(t, PortConfig{
		Credentials: home.issue("server", ca.RoleManager, now),
		Admit: func(id ca.Identity, _ string) error {
			if id.NodeID == "removed" {
				return errors.New("it was removed")
			}
			return nil
		},
	})
	for _, p := range []string{ProtocolRaft, ProtocolHTTP, ProtocolGossip} {
		echo(t, server.Listener(p), "hello "+p)
	}
	addr := server.Addr().String()

	none := func(protocol string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	}
	with := func(c *ca.Credentials) func(string) *tls.Config {
		return func(protocol string) *tls.Config {
			cfg := c.ClientConfig(protocol, ca.Peer{})
			cfg.VerifyConnection = nil // a hostile client does not care who we are
			return cfg
		}
	}
	apiClient := func(protocol string) *tls.Config {
		csr, key, err := ca.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := home.root.SignClient(csr, "ann", home.cluster, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, Certificates: []tls.Certificate{pair}}
	}
	for _, c := range []struct {
		who               string
		config            func(string) *tls.Config
		raft, h2, gossip_ bool
	}{
		{"no certificate", none, false, true, false},
		{"manager", with(home.issue("m", ca.RoleManager, now)), true, true, true},
		{"worker", with(home.issue("w", ca.RoleWorker, now)), false, true, true},
		{"client of the API", apiClient, false, false, false},
		{"foreign manager", with(foreign.issue("m", ca.RoleManager, now)), false, false, false},
		{"expired manager", with(home.issue("m", ca.RoleManager, now.Add(-200*24*time.Hour))), false, false, false},
		{"removed manager", with(home.issue("removed", ca.RoleManager, now)), false, false, false},
	} {
		for protocol, want := range map[string]bool{ProtocolRaft: c.raft, ProtocolHTTP: c.h2, ProtocolGossip: c.gossip_} {
			if c.who == "removed manager" && protocol == ProtocolHTTP {
				continue // is told why: TestTheRefusedAreToldWhy
			}
			conn, err := tls.Dial("tcp", addr, c.config(protocol))
			got := ""
			if err == nil {
				got, err = says(conn)
				_ = conn.Close()
			}
			if (got == "hello "+protocol) != want || (err == nil && !want && got != "") {
				t.Errorf("%s on %s: let in %v, want %v (%q, %v)", c.who, protocol, !want, want, got, err)
			}
		}
	}
	if conn, err := tls.Dial("tcp", addr, none("smtp")); err == nil {
		conn.Close()
		t.Error("an unknown protocol was agreed on")
	}
	if conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{ProtocolHTTP}}); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestDialInsistsOnItsPeer(t *testing.T) {
	home, foreign := newAuthority(t, "c1"), newAuthority(t, "c1")
	now := time.Now()
	worker := startPort(t, PortConfig{Credentials: home.issue("w1", ca.RoleWorker, now)})
	stranger := startPort(t, PortConfig{Credentials: foreign.issue("m9", ca.RoleManager, now)})
	expired := startPort(t, PortConfig{Credentials: home.issue("m3", ca.RoleManager, now.Add(-200*24*time.Hour))})
	manager := startPort(t, PortConfig{Credentials: home.issue("m2", ca.RoleManager, now)})
	for _, p := range []*Port{worker, stranger, expired, manager} {
		for _, proto := range []string{ProtocolRaft, ProtocolGossip} {
			echo(t, p.Listener(proto), "hello")
		}
	}
	from := NewPort(PortConfig{Credentials: home.issue("m1", ca.RoleManager, now)})
	for _, c := range []struct {
		name     string
		to       *Port
		protocol string
		expect   ca.Peer
		fails    string
	}{
		{"as expected", manager, ProtocolRaft, ca.Peer{NodeID: "m2", Role: ca.RoleManager}, ""},
		{"anybody of the cluster", worker, ProtocolGossip, ca.Peer{}, ""},
		{"another node", manager, ProtocolRaft, ca.Peer{NodeID: "m7"}, "peer is node m2, expected m7"},
		{"another role", worker, ProtocolGossip, ca.Peer{Role: ca.RoleManager}, "peer is a swarm-worker"},
		{"raft to a worker", worker, ProtocolRaft, ca.Peer{}, "is not a manager"},
		{"another authority", stranger, ProtocolGossip, ca.Peer{}, "verify peer"},
		{"expired", expired, ProtocolGossip, ca.Peer{}, "expired"},
	} {
		conn, err := from.Dial(deadline(t), c.to.Addr().String(), c.protocol, c.expect)
		if c.fails == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if got, err := says(conn); got != "hello" {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
			conn.Close()
		} else if err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDialJoinPinsTheRoot(t *testing.T) {
	home, foreign := newAuthority(t, "c1"), newAuthority(t, "c1")
	manager := startPort(t, PortConfig{Credentials: home.issue("m1", ca.RoleManager, time.Now())})
	worker := startPort(t, PortConfig{Credentials: home.issue("w1", ca.RoleWorker, time.Now())})
	echo(t, manager.Listener(ProtocolHTTP), "hello")
	token := ca.Token{Digest: ca.Digest(home.root.Cert), Secret: ca.NewSecret()}

	conn, root, err := DialJoin(deadline(t), manager.Addr().String(), token)
	if err != nil || !root.Equal(home.root.Cert) {
		t.Fatal(err)
	}
	if got, err := says(conn); got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	conn.Close()
	if _, _, err := DialJoin(deadline(t), worker.Addr().String(), token); err == nil || !strings.Contains(err.Error(), "join through a manager") {
		t.Errorf("join through a worker: %v", err)
	}
	token.Digest = ca.Digest(foreign.root.Cert)
	if _, _, err := DialJoin(deadline(t), manager.Addr().String(), token); err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("join with another cluster's token: %v", err)
	}
}

// TestPortServesHTTP2 checks what net/http makes of our connections, with and
// without a client certificate.
func TestPortServesHTTP2(t *testing.T) {
	home := newAuthority(t, "c1")
	p := startPort(t, PortConfig{Credentials: home.issue("m1", ca.RoleManager, time.Now())})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := ca.PeerIdentity(r.TLS)
		fmt.Fprint(w, r.Proto, " ", id.NodeID, " ", errors.Is(err, ca.ErrNoCertificate))
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.Listener(ProtocolHTTP)) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	client := NewPort(PortConfig{Credentials: home.issue("w1", ca.RoleWorker, time.Now())})
	token := ca.Token{Digest: ca.Digest(home.root.Cert), Secret: ca.NewSecret()}
	for want, dial := range map[string]func(context.Context) (*tls.Conn, error){
		"HTTP/2.0 w1 false": func(ctx context.Context) (*tls.Conn, error) {
			return client.Dial(ctx, p.Addr().String(), ProtocolHTTP, ca.Peer{Role: ca.RoleManager})
		},
		"HTTP/2.0  true": func(ctx context.Context) (*tls.Conn, error) {
			c, _, err := DialJoin(ctx, p.Addr().String(), token)
			return c, err
		},
	} {
		transport := &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx)
			},
		}
		response, err := (&http.Client{Transport: transport}).Get("https://cluster/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		transport.CloseIdleConnections()
		if err != nil || string(body) != want {
			t.Errorf("got %q, %v; want %q", body, err, want)
		}
	}
}

// TestTheRefusedAreToldWhy: each kind of refusal has its own words, and none of
// them reaches an endpoint.
func TestTheRefusedAreToldWhy(t *testing.T) {
	home, foreign := newAuthority(t, "c1"), newAuthority(t, "c1")
	now := time.Now()
	p := startPort(t, PortConfig{
		Credentials: home.issue("m1", ca.RoleManager, now),
		Admit: func(id ca.Identity, _ string) error {
			if id.NodeID == "removed" {
				return fmt.Errorf("it was removed from the cluster: %w", errdefs.ErrPermissionDenied)
			}
			return nil
		},
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was let in", r.RemoteAddr)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.Listener(ProtocolHTTP)) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	for _, c := range []struct {
		who   string
		creds *ca.Credentials
		why   string
	}{
		{"removed", home.issue("removed", ca.RoleWorker, now), "403 node removed is not admitted: it was removed from the cluster"},
		{"expired", home.issue("w1", ca.RoleWorker, now.Add(-200*24*time.Hour)), "this node's certificate has expired"},
		{"another authority", foreign.issue("w1", ca.RoleWorker, now), "is of another cluster"},
	} {
		config := c.creds.ClientConfig(ProtocolHTTP, ca.Peer{})
		config.VerifyConnection = nil // to hear what the server says
		for range 20 {                // no race loses the reason
			transport := NewTransport(func(ctx context.Context) (*tls.Conn, error) {
				return dialTLS(ctx, p.Addr().String(), config)
			})
			request, err := http.NewRequestWithContext(deadline(t), http.MethodPost, "https://cluster/", strings.NewReader(strings.Repeat("x", 1000)))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if response, err := transport.RoundTrip(request); err != nil {
				got = err.Error()
			} else {
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				got = fmt.Sprint(response.StatusCode, " ", string(body))
			}
			transport.CloseIdleConnections()
			if !strings.Contains(got, c.why) {
				t.Fatalf("%s: %s", c.who, got)
			}
		}
	}
}

func TestCertificatesRotateWithoutARestart(t *testing.T) {
	home := newAuthority(t, "c1")
	creds := home.issue("m1", ca.RoleManager, time.Now().Add(-200*24*time.Hour))
	p := startPort(t, PortConfig{Credentials: creds})
	echo(t, p.Listener(ProtocolGossip), "hello")
	from := NewPort(PortConfig{Credentials: home.issue("w1", ca.RoleWorker, time.Now())})
	dial := func() error {
		conn, err := from.Dial(deadline(t), p.Addr().String(), ProtocolGossip, ca.Peer{})
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(); err == nil {
		t.Fatal("an expired server was trusted")
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := home.root.Sign(csr, creds.Identity(), time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.Replace(ca.Bundle{CAPEM: home.root.CertPEM(), CertPEM: cert, KeyPEM: key}); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
}

// TestRootRotationOverThreePorts takes three managers through a rotation in every
// order that the stages allow: at each point all can connect to all.
func TestRootRotationOverThreePorts(t *testing.T) {
	old, next := newAuthority(t, "c1"), newAuthority(t, "c1")
	crossSigned, err := old.root.CrossSign(next.root.Cert)
	if err != nil {
		t.Fatal(err)
	}
	both := slices.Concat(old.root.CertPEM(), next.root.CertPEM())
	ids := []string{"m1", "m2", "m3"}
	creds, ports := map[string]*ca.Credentials{}, map[string]*Port{}
	for _, id := range ids {
		creds[id] = old.issue(id, ca.RoleManager, time.Now())
		ports[id] = startPort(t, PortConfig{Credentials: creds[id]})
		echo(t, ports[id].Listener(ProtocolRaft), "hello")
	}
	connected := func(when string) {
		t.Helper()
		for _, from := range ids {
			for _, to := range ids {
				conn, err := ports[from].Dial(deadline(t), ports[to].Addr().String(), ProtocolRaft, ca.Peer{NodeID: to, Role: ca.RoleManager})
				if err != nil {
					t.Fatalf("%s: %s to %s: %v", when, from, to, err)
				}
				got, err := says(conn)
				if conn.Close(); got != "hello" {
					t.Fatalf("%s: %s to %s: %q, %v", when, from, to, got, err)
				}
			}
		}
	}
	trust := func(id string, roots []byte) {
		t.Helper()
		b := creds[id].Bundle()
		b.CAPEM = roots
		if err := creds[id].Replace(b); err != nil {
			t.Fatal(err)
		}
	}
	connected("before")
	for _, id := range ids {
		trust(id, both)
		connected(id + " trusts both")
	}
	for _, id := range ids {
		b := next.issue(id, ca.RoleManager, time.Now()).Bundle()
		b.CAPEM, b.CertPEM = both, slices.Concat(b.CertPEM, crossSigned)
		if err := creds[id].Replace(b); err != nil {
			t.Fatal(err)
		}
		connected(id + " has a certificate of the new root")
	}
	for _, id := range ids {
		trust(id, next.root.CertPEM())
		connected(id + " trusts the new root alone")
	}
	left := NewPort(PortConfig{Credentials: old.issue("m4", ca.RoleManager, time.Now())})
	if conn, err := left.Dial(deadline(t), ports["m1"].Addr().String(), ProtocolRaft, ca.Peer{}); err == nil {
		if got, _ := says(conn); got != "" {
			t.Error("a certificate of the old root still opens the port")
		}
		conn.Close()
	}
}

func TestStrangersAreBounded(t *testing.T) {
	home := newAuthority(t, "c1")
	p := startPort(t, PortConfig{Credentials: home.issue("m1", ca.RoleManager, time.Now())})
	echo(t, p.Listener(ProtocolGossip), "hello")
	count := func() int {
		p.strangers.mu.Lock()
		defer p.strangers.mu.Unlock()
		return p.strangers.all.Len()
	}

	// One address may have so many idle connections, the rest are closed.
	var idle []net.Conn
	for range 4 * maxStrangersPerAddr {
		c, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	eventually(t, "the rest are closed", func() bool {
		closed := 0
		for _, c := range idle {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
				closed++
			}
		}
		return closed >= len(idle)-maxStrangersPerAddr
	})
	if n := count(); n > maxStrangersPerAddr {
		t.Errorf("%d strangers from one address", n)
	}
	for _, c := range idle {
		c.Close()
	}
	eventually(t, "they are forgotten", func() bool { return count() == 0 })

	// Members do not count as strangers however long they stay, so more than
	// the cap may connect from one address.
	from := NewPort(PortConfig{Credentials: home.issue("m2", ca.RoleManager, time.Now())})
	for range 2 * maxStrangersPerAddr {
		c, err := from.Dial(deadline(t), p.Addr().String(), ProtocolGossip, ca.Peer{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "members are not counted", func() bool { return count() == 0 })
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestStrangersByAddress(t *testing.T) {
	var s strangers
	var dropped []string
	enter := func(ip string) (leave func()) {
		return s.enter(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}, func() { dropped = append(dropped, ip) })
	}
	drops := func(when string, want ...string) {
		t.Helper()
		if !slices.Equal(dropped, want) {
			t.Errorf("%s: %v had to go, want %v", when, dropped, want)
		}
		dropped = nil
	}
	leaves := []func(){enter("10.0.0.1")} // older than all others
	for i := range maxStrangersPerAddr {
		leaves = append(leaves, enter(fmt.Sprintf("2001:db8::%x", i+1)))
	}
	drops("as many as may be")
	leaves = append(leaves, enter("2001:db8::ffff"))
	drops("one more of an IPv6 network", "2001:db8::1")
	leaves = append(leaves, enter("2001:db8:0:1::1"))
	drops("one of another network")
	for _, leave := range leaves {
		leave()
		leave() // twice is once, and that of the dropped one is none
	}
	if s.all.Len() != 0 || len(s.byAddr) != 0 {
		t.Errorf("left over: %d, %v", s.all.Len(), s.byAddr)
	}
	for i := range maxStrangers {
		enter(fmt.Sprintf("10.%d.%d.1", i/200, i%200))
	}
	drops("as many as may be in all")
	enter("10.9.9.9")
	drops("one more", "10.0.0.1")
	if s.all.Len() != maxStrangers || len(s.byAddr) != maxStrangers {
		t.Errorf("%d strangers of %d addresses", s.all.Len(), len(s.byAddr))
	}
}

func TestTalkativeStrangerIsCutOff(t *testing.T) {
	a, b := net.Pipe()
	c := &strangerConn{Conn: a, onClose: func() {}}
	c.budget.Store(10)
	go func() {
		_, _ = b.Write(make([]byte, 20))
		b.Close()
	}()
	if _, err := io.ReadAll(c); !errors.Is(err, errTalkative) {
		t.Fatal(err)
	}
	c.Close()
}

// TestRaftOverThePort runs three managers over real connections.
func TestRaftOverThePort(t *testing.T) {
	home := newAuthority(t, "c1")
	var mu sync.Mutex
	addrs := map[string]string{}
	resolve := func(id string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if a, ok := addrs[id]; ok {
			return a, nil
		}
		return "", fmt.Errorf("no address for %s", id)
	}
	dir := t.TempDir()
	type running struct {
		*Node
		machine *ledger
		stop    func()
	}
	start := func(id string, how Start) *running {
		machine := &ledger{}
		n := NewNode(NodeConfig{
			DataDir: dir + "/" + id, ListenAddr: "127.0.0.1:0", Start: how, Machine: machine, Resolve: resolve,
			Credentials: home.issue(id, ca.RoleManager, time.Now()), Key: testKey(id),
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		select {
		case <-n.Raft.Ready():
		case err := <-done:
			cancel()
			t.Fatal(err)
		}
		mu.Lock()
		addrs[id] = n.Port.Addr().String()
		mu.Unlock()
		return &running{n, machine, sync.OnceFunc(func() {
			cancel()
			begin := time.Now()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if took := time.Since(begin); took > 15*time.Second {
				t.Errorf("%s took %s to stop", id, took)
			}
		})}
	}
	nodes := map[string]*running{"m1": start("m1", Bootstrap)}
	defer func() {
		for _, n := range nodes {
			n.stop()
		}
	}()
	if _, err := nodes["m1"].Raft.WaitLeader(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"m2", "m3"} {
		nodes[id] = start(id, Join)
		if err := nodes["m1"].Raft.AddVoter(deadline(t), id); err != nil {
			t.Fatal(err)
		}
	}
	leader := func() *running {
		var found *running
		eventually(t, "somebody leads", func() bool {
			for _, n := range nodes {
				if n.Raft.VerifyLeader(deadline(t)) == nil {
					found = n
					return true
				}
			}
			return false
		})
		return found
	}
	put := func(s string) {
		t.Helper()
		eventually(t, s+" is accepted", func() bool {
			return leader().Raft.Apply(deadline(t), []byte(s)) == nil
		})
	}
	agree := func(want string) {
		t.Helper()
		for id, n := range nodes {
			eventually(t, id+" has "+want, func() bool { return strings.Join(n.machine.all(), " ") == want })
		}
	}
	put("a")
	agree("a")

	// Everybody stops, and comes back at another address.
	for _, id := range []string{"m1", "m2", "m3"} {
		nodes[id].stop()
	}
	for _, id := range []string{"m1", "m2", "m3"} {
		nodes[id] = start(id, Restart)
	}
	put("b")
	agree("a b")

	// The leader leaves; the rest go on.
	gone := leader()
	id := gone.Port.cfg.Credentials.Identity().NodeID
	gone.stop()
	delete(nodes, id)
	put("c")
	agree("a b c")
	if leader().Raft.Stats().State != raft.Leader.String() {
		t.Error("the leader does not say so")
	}
}

func TestNodeLeavesNothingBehindWhenThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	n := NewNode(NodeConfig{
		DataDir: dir, ListenAddr: taken.Addr().String(), Start: Bootstrap, Machine: &ledger{},
		Credentials: newAuthority(t, "c1").issue("m1", ca.RoleManager, time.Now()), Key: testKey("m1"),
	})
	if err := n.Run(deadline(t)); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("run: %v", err)
	}
	refused := singleConfig(RaftDir(dir), Restart)
	if err := refuseStart(t, refused); !strings.Contains(err.Error(), "is missing") {
		t.Fatalf("a log was made all the same: %v", err)
	}
}

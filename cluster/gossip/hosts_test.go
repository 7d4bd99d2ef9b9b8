package gossip

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
)

var trials = flag.Int("trials", 3, "how often a real host dies, and half the seconds it starves")

// The test binary is also the daemon of a test host.
const (
	nodeEnv = "SHOAL_GOSSIP_TEST_NODE"
	hogEnv  = "SHOAL_GOSSIP_TEST_HOG"
)

func TestMain(m *testing.M) {
	if settings := os.Getenv(nodeEnv); settings != "" {
		if err := runNode(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(hogEnv) != "" {
		for end := time.Now().Add(hogTime); time.Now().Before(end); {
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// hogTime ends a hog whose test did not.
const hogTime = 2 * time.Minute

// nodeSettings is what a test host's daemon is told.
type nodeSettings struct {
	Dir  string // with its certificate
	Addr netip.AddrPort
	// Known is where the managers believe the nodes to be.
	Known []Peer
}

// runNode is a daemon that does nothing but gossip, and prints what it learns.
func runNode(settings string) error {
	var s nodeSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	creds, err := ca.Load(s.Dir, nil)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port := cluster.NewPort(cluster.PortConfig{Addr: fmt.Sprintf("0.0.0.0:%d", s.Addr.Port()), Credentials: creds})
	out := json.NewEncoder(os.Stdout)
	g, err := New(Config{
		NodeID: creds.Identity().NodeID, ClusterID: creds.Identity().ClusterID,
		Port: port, Keys: []Key{testKey(1)},
		Advertise: func() netip.AddrPort { return s.Addr },
		Peers:     func() []Peer { return s.Known },
		OnChange:  func(m Member) { _ = out.Encode(m) },
		Logger:    zap.NewNop(),
	})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { err = port.Run(ctx) })
	defer wg.Wait()
	return g.Run(ctx)
}

// hosts is a few network namespaces on one bridge, which is in another.
type hosts struct {
	t    *testing.T
	tag  string
	all  []*host
	dirs string
	nice int
}

type host struct {
	hosts *hosts
	n     int
	id    string
	ns    string
	addr  netip.AddrPort
	cmd   *exec.Cmd
	read  sync.WaitGroup

	mu      sync.Mutex
	view    map[string]Member
	history []Member
}

func newHosts(t *testing.T, n int) *hosts {
	t.Helper()
	if testing.Short() {
		t.Skip("takes real time")
	}
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and ip")
	}
	hs := &hosts{t: t, tag: fmt.Sprintf("gsp%d", os.Getpid()), dirs: t.TempDir()}
	hs.ip("netns", "add", hs.tag)
	t.Cleanup(func() { hs.ip("netns", "del", hs.tag) })
	hs.ip("-n", hs.tag, "link", "add", "br0", "up", "type", "bridge")
	root, err := ca.NewRoot("c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		h := &host{hosts: hs, n: i, id: fmt.Sprintf("node%d", i), addr: realAddr(i + 1)}
		hs.all = append(hs.all, h)
		hs.certify(root, h)
		h.plug()
		t.Cleanup(func() {
			h.end(syscall.SIGKILL)
			h.unplug()
		})
	}
	return hs
}

func realAddr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}), 2377)
}

func (hs *hosts) ip(args ...string) {
	hs.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		hs.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (hs *hosts) certify(root *ca.Root, h *host) {
	csr, key, err := ca.NewRequest()
	if err != nil {
		hs.t.Fatal(err)
	}
	cert, err := root.Sign(csr, ca.Identity{NodeID: h.id, Role: ca.RoleWorker, ClusterID: "c"}, ca.DefaultNodeValidity, time.Now())
	if err != nil {
		hs.t.Fatal(err)
	}
	if err := ca.Save(filepath.Join(hs.dirs, h.id), ca.Bundle{CAPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key}, nil); err != nil {
		hs.t.Fatal(err)
	}
}

// plug makes the host and connects it.
func (h *host) plug() {
	h.ns = fmt.Sprintf("%sh%d", h.hosts.tag, h.n)
	ip := h.hosts.ip
	ip("netns", "add", h.ns)
	ip("-n", h.hosts.tag, "link", "add", h.id, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	ip("-n", h.hosts.tag, "link", "set", h.id, "master", "br0", "up")
	ip("-n", h.ns, "link", "set", "lo", "up")
	ip("-n", h.ns, "link", "set", "eth0", "up")
	h.settle()
}

func (h *host) settle() {
	h.hosts.ip("-n", h.ns, "addr", "flush", "dev", "eth0", "scope", "global")
	h.hosts.ip("-n", h.ns, "addr", "add", h.addr.Addr().String()+"/24", "brd", "+", "dev", "eth0")
}

// unplug makes the host vanish, as a loss of power does.
func (h *host) unplug() {
	h.hosts.ip("-n", h.hosts.tag, "link", "del", h.id)
	h.hosts.ip("netns", "del", h.ns)
}

func (h *host) start() {
	h.hosts.t.Helper()
	s := nodeSettings{Dir: filepath.Join(h.hosts.dirs, h.id), Addr: h.addr}
	for i, o := range h.hosts.all {
		s.Known = append(s.Known, Peer{o.id, realAddr(i + 1)})
	}
	settings, err := json.Marshal(s)
	if err != nil {
		h.hosts.t.Fatal(err)
	}
	h.cmd = exec.Command("nice", "-n", strconv.Itoa(h.hosts.nice), "ip", "netns", "exec", h.ns, os.Args[0])
	h.cmd.Env = append(os.Environ(), nodeEnv+"="+string(settings))
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		h.hosts.t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		h.hosts.t.Fatal(err)
	}
	h.mu.Lock()
	h.view = map[string]Member{}
	h.mu.Unlock()
	h.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var m Member
			if json.Unmarshal(lines.Bytes(), &m) == nil {
				h.mu.Lock()
				h.view[m.NodeID] = m
				h.history = append(h.history, m)
				h.mu.Unlock()
			}
		}
	})
}

func (hs *hosts) restart(t *testing.T) {
	t.Helper()
	for _, h := range hs.all {
		h.end(syscall.SIGTERM)
		h.start()
	}
	hs.await(60*time.Second, "all know each other", hs.well)
	hs.forget()
}

// end ends the daemon, whatever state it is in.
func (h *host) end(sig syscall.Signal) {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(sig)
	h.read.Wait()
	_ = h.cmd.Wait()
	h.cmd = nil
}

func (h *host) signal(sig syscall.Signal) {
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.hosts.t.Fatal(err)
	}
}

func (h *host) of(o *host) Member {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.view[o.id]
}

// others hold that verdict of this host.
func (h *host) others(v Verdict) bool {
	for _, o := range h.hosts.all {
		if o != h && o.of(h).Verdict != v {
			return false
		}
	}
	return true
}

func (hs *hosts) well() bool {
	for _, a := range hs.all {
		for _, b := range hs.all {
			if m := a.of(b); a != b && (m.Verdict != Alive || m.Addr != b.addr) {
				return false
			}
		}
	}
	return true
}

func (hs *hosts) forget() {
	for _, h := range hs.all {
		h.mu.Lock()
		h.history = nil
		h.mu.Unlock()
	}
}

func (hs *hosts) convicted(v Verdict) (n int) {
	for _, h := range hs.all {
		h.mu.Lock()
		for _, m := range h.history {
			if m.Verdict == v {
				n++
			}
		}
		h.mu.Unlock()
	}
	return n
}

func (hs *hosts) await(within time.Duration, what string, cond func() bool) time.Duration {
	hs.t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if <-tick.C; time.Since(began) > within {
			for _, h := range hs.all {
				h.mu.Lock()
				hs.t.Logf("%s: %v", h.id, h.view)
				h.mu.Unlock()
			}
			hs.t.Fatalf("after %s still not: %s", within, what)
		}
	}
	return time.Since(began)
}

// TestOnRealHosts goes through what can befall a host, over a real port.
func TestOnRealHosts(t *testing.T) {
	hs := newHosts(t, 4)
	for _, h := range hs.all {
		h.start()
	}
	t.Logf("all found each other after %s", hs.await(15*time.Second, "all know each other", hs.well))
	victim := hs.all[1]
	// whole runs one misfortune, after which everything must be as before.
	whole := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			outer := hs.t
			hs.t = t
			defer func() { hs.t = outer }()
			hs.forget()
			f(t)
			t.Logf("all well again after %s", hs.await(20*time.Second, "all know each other again", hs.well))
		})
	}
	neverGone := func(t *testing.T) {
		if n := hs.convicted(Gone); n > 0 {
			t.Errorf("a host that lived was held for gone %d times", n)
		}
	}

	whole("daemon stopped", func(t *testing.T) {
		victim.signal(syscall.SIGSTOP)
		t.Logf("daemon down after %s", hs.await(30*time.Second, "daemon down", func() bool { return victim.others(DaemonDown) }))
		hs.pass(5 * time.Second)
		victim.signal(syscall.SIGCONT)
		hs.await(30*time.Second, "alive again", func() bool { return victim.others(Alive) })
		neverGone(t)
	})
	whole("daemon killed", func(t *testing.T) {
		victim.end(syscall.SIGKILL)
		t.Logf("daemon down after %s", hs.await(30*time.Second, "daemon down", func() bool { return victim.others(DaemonDown) }))
		hs.pass(5 * time.Second)
		victim.start()
		hs.await(30*time.Second, "alive again", func() bool { return victim.others(Alive) })
		neverGone(t)
	})
	whole("daemon restarted", func(t *testing.T) {
		victim.end(syscall.SIGTERM)
		victim.start()
		hs.await(30*time.Second, "all is well", hs.well)
		neverGone(t)
	})
	whole("cable pulled", func(t *testing.T) {
		var each []time.Duration
		for range *trials {
			began := time.Now()
			hs.ip("-n", hs.tag, "link", "set", victim.id, "down")
			hs.await(30*time.Second, "gone", func() bool { return victim.others(Gone) })
			each = append(each, hs.since(victim, began)...)
			hs.ip("-n", hs.tag, "link", "set", victim.id, "up")
			hs.await(20*time.Second, "all is well", hs.well)
		}
		distribution(t, "from the pulled cable to a node's verdict", each)
	})
	whole("host killed", func(t *testing.T) {
		var each []time.Duration
		for range *trials {
			began := time.Now()
			victim.unplug()
			victim.end(syscall.SIGKILL)
			hs.await(30*time.Second, "gone", func() bool { return victim.others(Gone) })
			each = append(each, hs.since(victim, began)...)
			victim.plug()
			victim.start()
			hs.await(20*time.Second, "all is well", hs.well)
		}
		distribution(t, "from the cut of power to a node's verdict", each)
	})
	whole("loss", func(t *testing.T) {
		if _, err := exec.LookPath("nft"); err != nil {
			t.Skip("needs nft")
		}
		for _, h := range hs.all {
			hs.ip("netns", "exec", h.ns, "nft", "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; add rule inet loss in iifname eth0 numgen random mod 100 < 30 counter drop")
		}
		hs.pass(10 * time.Second)
		for _, h := range hs.all {
			out, err := exec.Command("ip", "netns", "exec", h.ns, "nft", "list", "table", "inet", "loss").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "counter packets") || strings.Contains(string(out), "counter packets 0 ") {
				t.Errorf("nothing was lost: %v: %s", err, out)
			}
			hs.ip("netns", "exec", h.ns, "nft", "delete", "table", "inet", "loss")
		}
		neverGone(t)
		t.Logf("daemons held for down: %d", hs.convicted(DaemonDown))
	})
	// The daemons run at the lowest priority beside eight that take all they
	// can get: four in a thousand parts of a processor are left for them.
	whole("starvation", func(t *testing.T) {
		hs.nice = 19
		hs.restart(t)
		defer func() {
			hs.nice = 0
			hs.restart(t)
		}()
		feed := starve(t, 8)
		defer feed()
		hs.pass(time.Duration(2**trials) * time.Second)
		neverGone(t)
		t.Logf("daemons held for down: %d", hs.convicted(DaemonDown))
		began := time.Now()
		hs.ip("-n", hs.tag, "link", "set", victim.id, "down")
		defer hs.ip("-n", hs.tag, "link", "set", victim.id, "up")
		gone := func() bool { return victim.others(Gone) }
		// A daemon that knows itself starved lets no round count, so this may
		// take as long as that lasts, and must not take longer.
		for end := time.After(30 * time.Second); !gone(); {
			select {
			case <-end:
				t.Log("not while they starved")
				feed()
				hs.await(60*time.Second, "gone", gone)
			case <-time.After(5 * time.Millisecond):
			}
		}
		distribution(t, "starved, from the pulled cable to a node's verdict", hs.since(victim, began))
	})
	whole("one moves", func(t *testing.T) {
		victim.end(syscall.SIGTERM)
		victim.addr = realAddr(100)
		victim.settle()
		victim.start()
	})
	whole("all move", func(t *testing.T) {
		for i, h := range hs.all {
			h.end(syscall.SIGTERM)
			h.addr = realAddr(101 + i)
			h.settle()
		}
		for _, h := range hs.all {
			h.start()
		}
	})
}

// starve has that many processes take all the processor they can get, until
// the function that it returns is called.
func starve(t *testing.T, hogs int) (feed func()) {
	t.Helper()
	var all []*exec.Cmd
	feed = func() {
		for _, hog := range all {
			_ = hog.Process.Kill()
			_ = hog.Wait()
		}
		all = nil
	}
	for range hogs {
		hog := exec.Command(os.Args[0])
		hog.Env = append(os.Environ(), hogEnv+"=1")
		if err := hog.Start(); err != nil {
			feed()
			t.Fatal(err)
		}
		all = append(all, hog)
	}
	return feed
}

// pass lets time pass in which nothing must happen.
func (hs *hosts) pass(d time.Duration) { <-time.After(d) }

// since is when each of the others reached its verdict.
func (hs *hosts) since(victim *host, began time.Time) (each []time.Duration) {
	for _, h := range hs.all {
		if h != victim {
			each = append(each, h.of(victim).Since.Sub(began))
		}
	}
	return each
}

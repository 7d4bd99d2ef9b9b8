//go:build linux

package meshtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
	"shoal/lb/nft"
	"shoal/network/overlay"
	"shoal/network/plugin"
)

// nodeDir makes the test binary one node of a bed, with its sockets there.
const nodeDir = "SHOAL_MESHTEST_NODE"

// beNode is a node's network: driver, overlay and mesh in a process of their
// own, as in a daemon, until the test goes away.
func beNode(dir string) int {
	cfg := zap.NewDevelopmentConfig()
	cfg.Level.SetLevel(zap.ErrorLevel)
	log, err := cfg.Build()
	if err != nil {
		return 1
	}
	// With a /run of its own, which the next process of the node has, too, it has
	// control sockets of its own.
	own := filepath.Join(dir, "run")
	err = errors.Join(os.MkdirAll(own, 0o700), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), unix.Mount(own, "/run", "", unix.MS_BIND, ""))
	if err != nil {
		log.Error("make a private /run", zap.Error(err))
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	net1, mesh := overlay.New(log), nft.New(log)
	crypt, err := newCrypt(net1)
	if err != nil {
		log.Error("keys", zap.Error(err))
		return 1
	}
	driver := plugin.New(plugin.Config{Socket: filepath.Join(dir, "shoal.sock"), Spec: filepath.Join(dir, "shoal.json"), StateDir: dir, Log: log})
	parts := []func(context.Context) error{driver.Run, net1.Run, mesh.Run}
	done := make(chan error, len(parts))
	for _, run := range parts {
		go func() { done <- run(ctx) }()
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, errs ...error) {
		for _, err := range errs {
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
	}
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		state := &api.NodeState{}
		if err := json.NewDecoder(r.Body).Decode(state); err != nil {
			answer(w, err)
			return
		}
		crypt.state = state
		answer(w, net1.Set(r.Context(), state), mesh.Set(r.Context(), state))
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(crypt.ring.Public())
	})
	mux.HandleFunc("/step", func(w http.ResponseWriter, r *http.Request) {
		answer(w, crypt.step(r))
	})
	mux.HandleFunc("/clear", func(w http.ResponseWriter, r *http.Request) {
		answer(w, mesh.Clear(r.Context()), net1.Clear(r.Context()))
	})
	_ = os.Remove(filepath.Join(dir, "node.sock")) // of the node's process before
	ln, err := net.Listen("unix", filepath.Join(dir, "node.sock"))
	if err != nil {
		log.Error("listen", zap.Error(err))
		return 1
	}
	go func() { _ = http.Serve(ln, mux) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	for range parts {
		<-done
	}
	return 0
}

// bed is a cluster's networks: some nodes on one switch, and a client.
type bed struct {
	t        testing.TB
	client   *nettest.NS // 192.0.2.100
	nodes    []*node
	networks map[string]*api.Network
	services map[string]*api.Endpoint
}

// node is one of them.
type node struct {
	*host
	id      string
	addr    netip.Addr
	control *http.Client
	tasks   map[string]*api.Task
	away    bool // not one of the cluster's
	dir     string
	process *exec.Cmd
	alive   io.Closer // as long as it is open
}

const clientAddr = "192.0.2.100"

// newBed starts a cluster of n nodes, whose kernels are as strict about
// senders, and as closed, as any.
func newBed(t testing.TB, n int) *bed {
	t.Helper()
	b := &bed{t: t, client: nettest.NewNS(t), networks: map[string]*api.Network{}, services: map[string]*api.Endpoint{}}
	nettest.Switch(t, "lan")
	b.client.Plug("lan", "client", netip.MustParsePrefix(clientAddr+"/24"), 1500)
	for i := range n {
		b.nodes = append(b.nodes, b.start(fmt.Sprintf("node%d", i+1), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})))
	}
	return b
}

func (b *bed) start(id string, addr netip.Addr) *node {
	t := b.t
	t.Helper()
	ns := nettest.NewNS(t)
	ns.Plug("lan", id, netip.PrefixFrom(addr, 24), 1500)
	dir := t.TempDir()
	n := &node{
		host: &host{t: t, ns: ns, client: b.client, plugin: onSocket(filepath.Join(dir, "shoal.sock"))}, id: id, addr: addr, dir: dir,
		control: onSocket(filepath.Join(dir, "node.sock")), tasks: map[string]*api.Task{},
	}
	n.sh("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER")
	t.Cleanup(func() {
		n.end()
		n.sh("ip link del " + netkit.WireGuard + " 2>/dev/null || true") // what serves it outlives the node
	})
	n.begin()
	return n
}

// begin starts the node's process.
func (n *node) begin() {
	n.t.Helper()
	n.process = exec.Command("/proc/self/exe")
	n.process.Env = append(os.Environ(), nodeDir+"="+n.dir)
	n.process.Stdout, n.process.Stderr = os.Stdout, os.Stderr
	n.process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	var err error
	if n.alive, err = n.process.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	n.ns.Must(n.process.Start)
	for _, socket := range []string{"shoal.sock", "node.sock"} {
		within(n.t, patient, "node serves", func() bool {
			c, err := net.Dial("unix", filepath.Join(n.dir, socket))
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
}

// end ends it in good order.
func (n *node) end() {
	n.t.Helper()
	n.plugin.CloseIdleConnections()
	n.control.CloseIdleConnections()
	_ = n.alive.Close()
	if err := n.process.Wait(); err != nil {
		n.t.Errorf("%s: %v", n.id, err)
	}
}

// within waits for a condition.
func within(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(d)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// sh runs a command on the node's host.
func (n *node) sh(script string) (out string) {
	n.t.Helper()
	n.ns.Must(func() (err error) { out, err = command(script); return err })
	return out
}

// command runs where the caller is.
func command(script string) (string, error) {
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return string(out), err
}

func (b *bed) network(id, subnet string, change func(*api.Network)) {
	n := &api.Network{Meta: api.Meta{ID: id}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(subnet)}}}
	change(n)
	b.networks[id] = n
}

// run starts a task that serves under a name.
func (b *bed) run(on *node, network, addr, name string) *task {
	b.t.Helper()
	c := b.idle(on, network, addr, name)
	on.serve(c, name)
	return c
}

// idle starts one that serves nothing.
func (b *bed) idle(on *node, network, addr, name string) *task {
	b.t.Helper()
	on.host.state = &api.NodeState{Networks: map[string]*api.Network{}}
	spec := b.networks[network]
	on.host.network(network, spec.Subnets[0].Prefix.String(), func(n *api.Network) { n.Spec = spec.Spec })
	c := on.host.run(network, addr)
	on.tasks[name] = &api.Task{
		Meta: api.Meta{ID: name}, NodeID: on.id,
		Networks: []api.Attachment{{NetworkID: network, Addr: c.addr}},
	}
	return c
}

// service publishes port 8080 of tasks, by their names, and gives them a VIP.
func (b *bed) service(id, network, vip string, published uint16, tasks ...string) {
	e := &api.Endpoint{ServiceID: id}
	if published != 0 {
		e.Ports = []api.Port{{Protocol: "tcp", Target: 80, Published: published}, {Protocol: "udp", Target: 80, Published: published}}
	}
	if vip != "" {
		e.VIPs = []api.VIP{{NetworkID: network, Addr: netip.MustParseAddr(vip)}}
	}
	for _, n := range b.nodes {
		for name, t := range n.tasks {
			if slices.Contains(tasks, name) {
				e.Backends = append(e.Backends, api.Backend{TaskID: name, NodeID: n.id, Networks: t.Networks})
			}
		}
	}
	b.services[id] = e
}

// state is what managers would tell a node.
func (b *bed) state(self *node) *api.NodeState {
	s := &api.NodeState{
		Node: &api.Node{Meta: api.Meta{ID: self.id}, DataPath: self.addr.String()}, DataPathPort: 4789,
		Networks: map[string]*api.Network{}, Endpoints: b.services, Remotes: map[string]*api.Remote{}, Peers: map[string]api.Peer{},
	}
	for id, n := range b.networks {
		if n.Spec.Ingress {
			s.Networks[id] = n
		}
	}
	for _, t := range self.tasks {
		for _, at := range t.Networks {
			s.Networks[at.NetworkID] = b.networks[at.NetworkID]
		}
	}
	for _, n := range b.nodes {
		if n == self || n.away {
			continue
		}
		s.Peers[n.id] = api.Peer{NodeID: n.id, DataPath: n.addr, WireGuard: n.keys()}
		for name, t := range n.tasks {
			for _, at := range t.Networks {
				if s.Networks[at.NetworkID] != nil {
					s.Remotes[name] = &api.Remote{TaskID: name, NodeID: n.id, Networks: t.Networks}
				}
			}
		}
	}
	return s
}

// sync tells all nodes how things are.
func (b *bed) sync() {
	b.t.Helper()
	for _, n := range b.nodes {
		if !n.away {
			n.tell(b.state(n))
		}
	}
}

func (n *node) tell(s *api.NodeState) {
	n.t.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		n.t.Fatal(err)
	}
	n.post("/set", body)
}

func (n *node) post(path string, body []byte) {
	n.t.Helper()
	resp, err := n.control.Post("http://node"+path, "application/json", bytes.NewReader(body))
	if err != nil {
		n.t.Fatalf("%s%s: %v", n.id, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s%s: %s", n.id, path, strings.TrimSpace(string(text)))
	}
}

// at is an address on a node.
func (n *node) at(port int) string { return netip.AddrPortFrom(n.addr, uint16(port)).String() }

// udpPacket is what a tunnel carries from one node to another: VXLAN, Ethernet,
// IP and UDP headers, and a word.
func udpPacket(nodeFrom, nodeTo netip.Addr, from, to string, port uint16, word string) []byte {
	p := []byte{8, 0, 0, 0, 0, 0x10, 0, 0} // network 4096
	p = append(append(append(p, netkit.TunnelMAC(nodeTo)...), netkit.TunnelMAC(nodeFrom)...), 8, 0)
	udp := append([]byte{0x30, 0x39, byte(port >> 8), byte(port), 0, byte(8 + len(word)), 0, 0}, word...)
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(from).AsSlice()...), netip.MustParseAddr(to).AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = ^(sum>>16 + sum&0xffff)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	return append(append(p, ip...), udp...)
}

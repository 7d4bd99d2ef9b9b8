//go:build linux

// Package meshtest tests the network driver, the overlay and the routing mesh
// together, with real packets between network namespaces.
package meshtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
	"shoal/lb/nft"
	"shoal/network/overlay"
	"shoal/network/plugin"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == wireguardCommand {
		os.Exit(beWireGuard(os.Args[2]))
	}
	if dir := os.Getenv(nodeDir); dir != "" {
		os.Exit(beNode(dir))
	}
	nettest.Main(m)
}

const (
	nodeID = "node1"
	// patient is how long an answer may take, silence how long none must come.
	patient = 20 * time.Second
	silence = 300 * time.Millisecond
)

var nodeAddr = netip.MustParseAddr("192.0.2.1")

// host is a node: this process's namespace, with a client's host next to it.
type host struct {
	t       testing.TB
	ns      *nettest.NS // nil for this process's
	client  *nettest.NS // 192.0.2.2
	overlay *overlay.Overlay
	mesh    *nft.Plane
	plugin  *http.Client
	state   *api.NodeState
	tasks   int
}

func newHost(t testing.TB) *host {
	t.Helper()
	log := zaptest.NewLogger(t)
	h := &host{
		t: t, client: nettest.NewNS(t), overlay: overlay.New(log), mesh: nft.New(log),
		state: &api.NodeState{
			Node:     &api.Node{Meta: api.Meta{ID: nodeID}, DataPath: nodeAddr.String()},
			Networks: map[string]*api.Network{}, Endpoints: map[string]*api.Endpoint{},
		},
	}
	h.client.Connect("wan", netip.PrefixFrom(nodeAddr, 24), netip.MustParsePrefix("192.0.2.2/24"))
	dir := t.TempDir()
	p := plugin.New(plugin.Config{Socket: filepath.Join(dir, "shoal.sock"), Spec: filepath.Join(dir, "shoal.json"), StateDir: dir, Log: log})
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	h.plugin = onSocket(filepath.Join(dir, "shoal.sock"))
	t.Cleanup(func() {
		h.plugin.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("plugin: %v", err)
		}
		if err := h.overlay.Clear(context.Background()); err != nil {
			t.Errorf("clear overlay: %v", err)
		}
		if err := h.mesh.Clear(context.Background()); err != nil {
			t.Errorf("clear mesh: %v", err)
		}
	})
	return h
}

// onSocket speaks HTTP with whoever serves a unix socket.
func onSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// call plays the engine.
func (h *host) call(name string, req any) map[string]any {
	h.t.Helper()
	b, err := json.Marshal(req)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := h.plugin.Post("http://plugin/"+name, "application/json", bytes.NewReader(b))
	if err != nil {
		h.t.Fatalf("%s: %v", name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]any{}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		h.t.Fatalf("%s: %v", name, err)
	}
	if e, bad := out["Err"]; bad {
		h.t.Fatalf("%s: %v", name, e)
	}
	return out
}

func (h *host) network(id, subnet string, change func(*api.Network)) {
	h.t.Helper()
	n := &api.Network{Meta: api.Meta{ID: id}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(subnet)}}}
	change(n)
	h.state.Networks[id] = n
	h.call("NetworkDriver.CreateNetwork", map[string]any{
		"NetworkID": "engine-" + id,
		"Options": map[string]any{
			"com.docker.network.generic":  map[string]any{plugin.OptionNetworkID: id, plugin.OptionEncrypted: fmt.Sprint(n.Encrypted())},
			"com.docker.network.internal": n.Spec.Internal,
		},
		"IPv4Data": []any{map[string]string{"Pool": subnet}},
	})
}

func ingress(n *api.Network) { n.Spec.Ingress = true }

// task is a container with its place on one network.
type task struct {
	*nettest.NS
	id   string // of the endpoint
	addr netip.Prefix
}

func (h *host) run(network, addr string) *task {
	h.t.Helper()
	h.tasks++
	c := &task{NS: nettest.NewNS(h.t), id: fmt.Sprintf("%012d-endpoint", h.tasks), addr: netip.MustParsePrefix(addr)}
	h.call("NetworkDriver.CreateEndpoint", map[string]any{
		"NetworkID": "engine-" + network, "EndpointID": c.id, "Interface": map[string]string{"Address": addr},
	})
	j := h.call("NetworkDriver.Join", map[string]string{"NetworkID": "engine-" + network, "EndpointID": c.id, "SandboxKey": "/ns/" + c.id})
	var routes []*netlink.Route
	for _, r := range j["StaticRoutes"].([]any) {
		_, dst, _ := net.ParseCIDR(r.(map[string]any)["Destination"].(string))
		routes = append(routes, &netlink.Route{Dst: dst, Scope: netlink.SCOPE_LINK})
	}
	if gw, ok := j["Gateway"].(string); ok {
		routes = append(routes, &netlink.Route{Gw: net.ParseIP(gw)})
	}
	name := j["InterfaceName"].(map[string]any)
	c.TakeFrom(h.ns, name["SrcName"].(string), name["DstPrefix"].(string)+"0", c.addr, routes...)
	return c
}

// serve answers each TCP connection and UDP packet on port 80 with the task's
// name and the client's address.
func (h *host) serve(c *task, name string) {
	h.t.Helper()
	h.serveAt(c, ":80", name)
}

func (h *host) serveAt(c *task, port, name string) {
	h.t.Helper()
	ln := c.Listen(port)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 64)
				for { // each line is answered, so that a connection can be tried again
					if _, err := conn.Read(buf); err != nil {
						return
					}
					_, _ = fmt.Fprintf(conn, "%s %s\n", name, ip(conn.RemoteAddr()))
				}
			}()
		}
	}()
	pc := c.ListenUDP(port)
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(fmt.Appendf(nil, "%s %s\n", name, ip(from)), from)
		}
	}()
}

func ip(a net.Addr) string {
	host, _, _ := net.SplitHostPort(a.String())
	return host
}

// service publishes port 8080 of the given tasks, and gives them a VIP.
func (h *host) service(id, network, vip string, published uint16, tasks ...*task) {
	e := &api.Endpoint{ServiceID: id}
	if published != 0 {
		e.Ports = []api.Port{{Protocol: "tcp", Target: 80, Published: published}, {Protocol: "udp", Target: 80, Published: published}}
	}
	if vip != "" {
		e.VIPs = []api.VIP{{NetworkID: network, Addr: netip.MustParseAddr(vip)}}
	}
	for i, c := range tasks {
		e.Backends = append(e.Backends, api.Backend{
			TaskID: fmt.Sprint(id, i), NodeID: nodeID, Slot: i + 1,
			Networks: []api.Attachment{{NetworkID: network, Addr: c.addr}},
		})
	}
	h.state.Endpoints[id] = e
}

func (h *host) set() {
	h.t.Helper()
	state := *h.state // what was handed over never changes
	state.Endpoints, state.Networks = maps.Clone(state.Endpoints), maps.Clone(state.Networks)
	if err := h.mesh.Set(context.Background(), &state); err != nil {
		h.t.Fatal(err)
	}
	if err := h.overlay.Set(context.Background(), &state); err != nil {
		h.t.Fatal(err)
	}
}

// place is where a request comes from; nil is the host itself.
type place interface{ Do(func() error) error }

type self struct{}

func (self) Do(f func() error) error { return f() }

func dial(from place, proto, addr string, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout(proto, addr, wait)
		return err
	})
	return c, err
}

func ask(c net.Conn, wait time.Duration) (string, error) {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 128)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

func get(from place, proto, addr string) (string, error) {
	return getWithin(patient, from, proto, addr)
}

func getWithin(wait time.Duration, from place, proto, addr string) (string, error) {
	c, err := dial(from, proto, addr, wait)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return ask(c, wait)
}

func (h *host) want(from place, proto, addr, answer string) {
	h.t.Helper()
	got, err := get(from, proto, addr)
	if err != nil || got != answer {
		h.t.Errorf("%s %s: got %q, %v; want %q", proto, addr, got, err, answer)
	}
}

func TestPublishedPort(t *testing.T) {
	h := newHost(t)
	h.network("ing", "10.0.0.0/24", ingress)
	web := h.run("ing", "10.0.0.7/24")
	h.serve(web, "web")
	other := h.run("ing", "10.0.0.9/24")
	h.service("s1", "ing", "10.0.0.5", 8080, web)
	h.set()
	for _, proto := range []string{"tcp", "udp"} {
		h.want(h.client, proto, "192.0.2.1:8080", "web 192.0.2.2")
		h.want(self{}, proto, "192.0.2.1:8080", "web 192.0.2.1")
		h.want(self{}, proto, "127.0.0.1:8080", "web 192.0.2.1")
		h.want(other, proto, "192.0.2.1:8080", "web 10.0.0.9")
		h.want(web, proto, "192.0.2.1:8080", "web 169.254.1.1")
		h.want(other, proto, "169.254.1.1:8080", "web 10.0.0.9")
		h.want(other, proto, "10.0.0.5:80", "web 10.0.0.9")
		h.want(web, proto, "10.0.0.5:80", "web 169.254.1.1")
		h.want(other, proto, "10.0.0.7:80", "web 10.0.0.9")
	}
}

// refused wants an immediate refusal, as from a closed port.
func (h *host) refused(from place, proto, addr string) {
	h.t.Helper()
	start := time.Now()
	got, err := get(from, proto, addr)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		h.t.Errorf("%s %s after %s: got %q, %v; want it refused", proto, addr, time.Since(start), got, err)
	}
}

// silent wants no answer of any kind.
func (h *host) silent(from place, proto, addr string) {
	h.t.Helper()
	got, err := getWithin(silence, from, proto, addr)
	if err == nil || !strings.Contains(err.Error(), "timeout") {
		h.t.Errorf("%s %s: got %q, %v; want silence", proto, addr, got, err)
	}
}

func TestIsolation(t *testing.T) {
	h := newHost(t)
	h.network("a", "10.1.0.0/24", func(*api.Network) {})
	h.network("b", "10.2.0.0/24", func(*api.Network) {})
	h.network("closed", "10.3.0.0/24", func(n *api.Network) { n.Spec.Internal = true })
	a, b := h.run("a", "10.1.0.7/24"), h.run("b", "10.2.0.7/24")
	c, c2 := h.run("closed", "10.3.0.7/24"), h.run("closed", "10.3.0.8/24")
	h.serve(a, "a")
	h.serve(b, "b")
	h.serve(c, "c")
	h.service("sb", "b", "10.2.0.2", 0, b)
	h.service("sc", "closed", "10.3.0.2", 0, c)
	h.set()

	outside := task{NS: h.client}
	h.serve(&outside, "outside")
	local := h.listenHere("0.0.0.0:7000")
	defer func() { _ = local.Close() }()

	t.Run("own network", func(t *testing.T) {
		h.want(c2, "tcp", "10.3.0.7:80", "c 10.3.0.8")
		h.want(c2, "tcp", "10.3.0.2:80", "c 10.3.0.8")
	})
	t.Run("way out", func(t *testing.T) {
		h.want(a, "tcp", "192.0.2.2:80", "outside 192.0.2.1")
		h.want(a, "udp", "192.0.2.2:80", "outside 192.0.2.1")
		if got, err := getWithin(silence, c, "tcp", "192.0.2.2:80"); err == nil {
			t.Errorf("out of an internal network: got %q", got)
		}
	})
	t.Run("out of an internal network by the host", func(t *testing.T) {
		h.network("ing", "10.0.0.0/24", ingress)
		i := h.run("ing", "10.0.0.7/24")
		h.serve(i, "i")
		h.service("si", "ing", "", 8080, i)
		h.set()
		h.want(b, "tcp", "192.0.2.1:7000", "the host itself")
		h.want(b, "tcp", "192.0.2.1:8080", "i 10.2.0.7")
		c.Must(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: netkit.Host(nodeAddr), Gw: net.ParseIP("169.254.1.1")})
		})
		h.silent(c, "tcp", "192.0.2.1:7000")
		h.silent(c, "tcp", "192.0.2.1:8080")
	})
	t.Run("out of an internal network by a route of its own", func(t *testing.T) {
		c.Must(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("169.254.1.1")})
		})
		h.silent(c, "tcp", "192.0.2.2:80")
	})
	t.Run("other networks", func(t *testing.T) {
		h.silent(a, "tcp", "10.2.0.7:80")
		h.silent(a, "tcp", "10.2.0.2:80") // a virtual address
		h.silent(a, "udp", "10.2.0.7:80")
	})
	t.Run("from outside, by address", func(t *testing.T) {
		h.silent(h.client, "tcp", "10.1.0.7:80")
		h.refused(h.client, "tcp", "10.2.0.2:80")
	})
	t.Run("addresses that nobody has", func(t *testing.T) {
		h.refused(a, "tcp", "10.1.0.99:7000")
		h.refused(a, "udp", "10.1.0.99:7000")
		h.refused(self{}, "tcp", "10.2.0.2:7000")
	})
	t.Run("the host's loopback", func(t *testing.T) {
		a.Must(func() error {
			link, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		})
		if got, err := getWithin(silence, a, "tcp", "127.0.0.1:7000"); err == nil {
			t.Errorf("a container reached the host's 127.0.0.1: %q", got)
		}
	})
	t.Run("spoofed sender", func(t *testing.T) {
		a.Must(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("10.2.0.9"), Mask: net.CIDRMask(32, 32)}})
		})
		err := a.Do(func() error {
			d := net.Dialer{Timeout: silence, LocalAddr: &net.TCPAddr{IP: net.ParseIP("10.2.0.9")}}
			c, err := d.Dial("tcp", "10.2.0.7:80")
			if err == nil {
				_ = c.Close()
			}
			return err
		})
		if err == nil {
			t.Error("a container spoke as one of another network")
		}
	})
}

func (h *host) listenHere(addr string) net.Listener {
	h.t.Helper()
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 64)) // or the answer may be lost with what was not read
			_, _ = io.WriteString(c, "the host itself\n")
			_ = c.Close()
		}
	}()
	return ln
}

func TestNoBackends(t *testing.T) {
	h := newHost(t)
	h.network("ing", "10.0.0.0/24", ingress)
	web := h.run("ing", "10.0.0.7/24")
	h.serve(web, "web")
	other := h.run("ing", "10.0.0.9/24")
	h.service("s1", "ing", "10.0.0.5", 8080)
	h.set()
	ln := h.listenHere("0.0.0.0:8080")
	defer func() { _ = ln.Close() }()
	for _, proto := range []string{"tcp", "udp"} {
		for _, from := range []place{h.client, self{}, other} {
			h.refused(from, proto, "192.0.2.1:8080")
		}
		h.refused(self{}, proto, "127.0.0.1:8080")
		h.refused(other, proto, "10.0.0.5:80")
		h.refused(other, proto, "10.0.0.5:8080")
	}
	h.service("s1", "ing", "10.0.0.5", 8080, web)
	h.set()
	h.want(h.client, "tcp", "192.0.2.1:8080", "web 192.0.2.2")
	h.want(h.client, "udp", "192.0.2.1:8080", "web 192.0.2.2")
	h.refused(other, "tcp", "10.0.0.5:8080") // the VIP serves the task's ports, not the published one
}

func TestBackendLeaves(t *testing.T) {
	h := newHost(t)
	h.network("ing", "10.0.0.0/24", ingress)
	one, two := h.run("ing", "10.0.0.7/24"), h.run("ing", "10.0.0.8/24")
	h.serve(one, "one")
	h.serve(two, "two")
	h.service("s1", "ing", "10.0.0.5", 8080, one)
	h.set()
	tcp, err := dial(h.client, "tcp", "192.0.2.1:8080", patient)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := dial(h.client, "udp", "192.0.2.1:8080", patient)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(c net.Conn, want string) {
		t.Helper()
		if got, err := ask(c, patient); err != nil || got != want+" 192.0.2.2" {
			t.Errorf("got %q, %v; want an answer of %s", got, err, want)
		}
	}
	answer(tcp, "one")
	answer(udp, "one")
	h.service("s1", "ing", "10.0.0.5", 8080, two)
	h.set()
	answer(tcp, "one")
	answer(udp, "two")
	h.want(h.client, "tcp", "192.0.2.1:8080", "two 192.0.2.2")
}

// TestMute takes a node's tasks out and puts them back.
func TestMute(t *testing.T) {
	h := newHost(t)
	h.network("ing", "10.0.0.0/24", ingress)
	one, two := h.run("ing", "10.0.0.7/24"), h.run("ing", "10.0.0.8/24")
	h.serve(one, "one")
	h.serve(two, "two")
	h.service("s1", "ing", "10.0.0.5", 8080, one, two)
	h.state.Endpoints["s1"].Backends[1].NodeID = "node2"
	h.set()
	answers := func() map[string]int {
		n := map[string]int{}
		for range 64 {
			got, err := get(h.client, "tcp", "192.0.2.1:8080")
			if err != nil {
				t.Fatal(err)
			}
			n[strings.Fields(got)[0]]++
		}
		return n
	}
	if n := answers(); n["one"] < 10 || n["two"] < 10 {
		t.Errorf("unfair: %v", n)
	}
	if err := h.mesh.Mute(context.Background(), "node2", true); err != nil {
		t.Fatal(err)
	}
	if n := answers(); n["two"] != 0 {
		t.Errorf("a muted node got connections: %v", n)
	}
	if err := h.mesh.Mute(context.Background(), "node2", false); err != nil {
		t.Fatal(err)
	}
	if n := answers(); n["two"] == 0 {
		t.Errorf("muted for ever: %v", n)
	}
}

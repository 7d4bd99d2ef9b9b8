//go:build linux

package meshtest

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/internal/api"
)

func plain(*api.Network) {}

// TestBetweenNodes tries what a task on one node must not do to one on another.
func TestBetweenNodes(t *testing.T) {
	b := newBed(t, 3)
	b.network("ing", "10.0.0.0/24", ingress)
	b.network("a", "10.1.0.0/24", plain)
	b.network("b", "10.2.0.0/24", plain)
	b.network("closed", "10.3.0.0/24", func(n *api.Network) { n.Spec.Internal = true })
	one, two, three := b.nodes[0], b.nodes[1], b.nodes[2]
	a1, b1 := b.run(one, "a", "10.1.0.11/24", "a1"), b.run(one, "b", "10.2.0.11/24", "b1")
	a2, b2 := b.run(two, "a", "10.1.0.12/24", "a2"), b.run(two, "b", "10.2.0.12/24", "b2")
	c1 := b.run(one, "closed", "10.3.0.11/24", "c1")
	b.run(two, "closed", "10.3.0.12/24", "c2")
	b.run(three, "ing", "10.0.0.13/24", "i3")
	b.service("sb", "b", "10.2.0.100", 0, "b2")
	b.service("sc", "closed", "10.3.0.100", 0, "c2")
	b.service("si", "ing", "10.0.0.100", 8080, "i3")
	b.sync()

	one.want(a1, "tcp", "10.1.0.12:80", "a2 10.1.0.11")
	one.want(b1, "udp", "10.2.0.100:80", "b2 10.2.0.11")
	one.want(c1, "tcp", "10.3.0.12:80", "c2 10.3.0.11")
	one.want(c1, "tcp", "10.3.0.100:80", "c2 10.3.0.11")
	one.want(a2, "tcp", three.at(8080), "i3 192.0.2.2")
	one.want(a2, "tcp", two.at(8080), "i3 10.1.0.12")

	one.silent(a1, "tcp", "10.2.0.12:80")
	one.silent(a1, "udp", "10.2.0.12:80")
	one.silent(a1, "tcp", "10.2.0.100:80") // a virtual address
	one.silent(a2, "tcp", "10.0.0.13:80")  // behind a published port
	one.refused(a1, "tcp", "10.1.0.99:80")

	t.Run("from outside by address", func(t *testing.T) {
		b.client.Must(func() error { return sh("ip route add 10.0.0.0/8 via 192.0.2.1") })
		one.silent(b.client, "tcp", "10.1.0.12:80")
		one.silent(b.client, "tcp", "10.0.0.13:80")
		one.silent(b.client, "tcp", "10.1.0.11:80")
	})
	t.Run("as another sender", func(t *testing.T) {
		a1.Must(func() error { return sh("ip addr add 10.2.0.11/32 dev eth0; ip addr add 10.1.0.12/32 dev eth0") })
		for _, as := range []string{"10.2.0.11", "10.1.0.12"} {
			if c, err := dialAs(a1, as, "10.2.0.12:80"); err == nil {
				_ = c.Close()
				t.Errorf("spoke as %s", as)
			}
		}
	})
	t.Run("through the tunnel's port", func(t *testing.T) {
		// A task, a process of the engine's networks and a stranger each send
		// what looks like a tunnel's packet: from b1's address to b2.
		// Each says who it is, as packets of one may come late.
		got := make(chan string, 100)
		sink := b2.ListenUDP("10.2.0.12:7777")
		go func() {
			buf := make([]byte, 100)
			for {
				n, from, err := sink.ReadFrom(buf)
				if err != nil {
					return
				}
				got <- string(buf[:n]) + " from " + from.String()
			}
		}()
		shout := func(from place, who string) {
			t.Helper()
			c, err := dial(from, "udp", two.at(4789), patient)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			for range 3 {
				_, _ = c.Write(udpPacket(one.addr, two.addr, "10.2.0.11", "10.2.0.12", 7777, who))
			}
		}
		hears := func(who string, want bool) {
			t.Helper()
			wait := silence
			if want {
				wait = patient
			}
			end := time.After(wait)
			for {
				select {
				case m := <-got:
					switch {
					case !strings.HasPrefix(m, who+" from "):
						continue
					case !want:
						t.Errorf("%s spoke for another: %s", who, m)
					}
				case <-end:
					if want {
						t.Errorf("%s was not heard: the test proves nothing", who)
					}
				}
				return
			}
		}
		shout(one.ns, "the node") // it may, and shows that the packet is right
		hears("the node", true)
		shout(a1, "a task")
		hears("a task", false)
		shout(b.client, "a stranger")
		hears("a stranger", false)
		one.sh("ip link add br-0123456789ab type bridge; ip addr add 172.31.0.1/24 dev br-0123456789ab; ip link set br-0123456789ab up; " +
			"ip link add e0 type veth peer name e0p; ip link set e0 master br-0123456789ab up; iptables -P FORWARD ACCEPT; " +
			"iptables -t nat -A POSTROUTING -s 172.31.0.0/24 -j MASQUERADE")
		other := b.idle(one, "a", "10.1.0.77/24", "guest")
		other.TakeFrom(one.ns, "e0p", "eth1", netip.MustParsePrefix("172.31.0.2/24"))
		other.Must(func() error { return sh("ip route replace default via 172.31.0.1 dev eth1") })
		shout(other, "a container of the engine's own")
		hears("a container of the engine's own", false)
	})
}

func sh(script string) error { _, err := command(script); return err }

func dialAs(from place, as, to string) (net.Conn, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		d := net.Dialer{Timeout: silence, LocalAddr: &net.TCPAddr{IP: net.ParseIP(as)}}
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// TestPeersChange lets nodes come, go and change their address.
func TestPeersChange(t *testing.T) {
	b := newBed(t, 3)
	b.network("ing", "10.0.0.0/24", ingress)
	for i, n := range b.nodes {
		name := fmt.Sprintf("web%d", i+1)
		b.run(n, "ing", fmt.Sprintf("10.0.0.%d/24", 11+i), name)
		b.service(fmt.Sprintf("s%d", i+1), "ing", fmt.Sprintf("10.0.0.%d", 101+i), uint16(8081+i), name)
	}
	one, two, three := b.nodes[0], b.nodes[1], b.nodes[2]
	three.away = true
	b.sync()
	one.want(b.client, "tcp", two.at(8081), "web1 "+clientAddr)
	one.refused(b.client, "tcp", one.at(8083))

	three.away = false
	b.sync()
	one.want(b.client, "tcp", one.at(8083), "web3 "+clientAddr)
	one.want(b.client, "tcp", three.at(8081), "web1 "+clientAddr)

	open, err := dial(b.client, "tcp", one.at(8082), patient)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	still := func(when string) {
		t.Helper()
		if got, err := ask(open, patient); err != nil || got != "web2 "+clientAddr {
			t.Errorf("connection %s: %q, %v", when, got, err)
		}
	}
	still("opened")

	// The third moves; its old address goes to nobody, then to the second.
	three.sh("echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries; ip addr add 192.0.2.33/24 dev eth0; ip addr del 192.0.2.3/24 dev eth0")
	three.addr = netip.MustParseAddr("192.0.2.33")
	b.sync()
	one.want(b.client, "tcp", one.at(8083), "web3 "+clientAddr)
	one.want(b.client, "udp", three.at(8081), "web1 "+clientAddr)
	two.sh("ip addr add 192.0.2.3/24 dev eth0")
	two.addr = netip.MustParseAddr("192.0.2.3")
	one.sh("ip neigh flush dev eth0") // as if the second had announced its new address
	three.sh("ip neigh flush dev eth0")
	b.client.Must(func() error { return sh("ip neigh flush dev eth0") })
	b.sync()
	still("after its task's node moved")
	one.want(b.client, "tcp", one.at(8082), "web2 "+clientAddr)
	one.want(b.client, "tcp", two.at(8083), "web3 "+clientAddr)

	two.away = true
	b.sync()
	one.refused(b.client, "tcp", one.at(8082))
	two.silent(b.client, "tcp", two.at(8083)) // nobody listens to the second any more
	one.want(b.client, "tcp", three.at(8081), "web1 "+clientAddr)
	for _, n := range b.nodes {
		n.post("/clear", nil)
		if left := n.sh("ip -o link; ip rule; ip route show table all; iptables -S"); strings.Contains(left, "shoal") || strings.Contains(left, "proto 83 metric 1 ") {
			t.Errorf("%s keeps: %s", n.id, left)
		}
	}
}

// TestTwoBeds has two clusters on one wire with the same networks, tasks and
// tunnels' number.
func TestTwoBeds(t *testing.T) {
	b := newBed(t, 2)
	other := &bed{t: t, client: b.client, networks: b.networks, services: map[string]*api.Endpoint{}}
	for i := range 2 {
		other.nodes = append(other.nodes, other.start(fmt.Sprintf("other%d", i+1), netip.AddrFrom4([4]byte{192, 0, 2, byte(51 + i)})))
	}
	b.network("ing", "10.0.0.0/24", ingress)
	for i, x := range []*bed{b, other} {
		x.run(x.nodes[1], "ing", "10.0.0.12/24", fmt.Sprintf("web-of-%d", i))
		x.service("s", "ing", "10.0.0.100", 8080, fmt.Sprintf("web-of-%d", i))
		x.sync()
	}
	for range 20 {
		for i, x := range []*bed{b, other} {
			for _, n := range x.nodes {
				n.want(b.client, "tcp", n.at(8080), fmt.Sprintf("web-of-%d %s", i, clientAddr))
			}
		}
	}
	// One that believes it belongs to the other is not heard by it.
	s := other.state(other.nodes[0])
	s.Peers = map[string]api.Peer{"x": {NodeID: "x", DataPath: b.nodes[1].addr}}
	for _, r := range s.Remotes {
		r.NodeID = "x"
	}
	other.nodes[0].tell(s)
	other.nodes[0].silent(b.client, "tcp", other.nodes[0].at(8080))
}

// TestLarge moves more than fits a packet, of sizes around the tunnel's and the
// wire's, both ways, by each node.
func TestLarge(t *testing.T) {
	t.Run("plain", func(t *testing.T) { large(t, ingress, 1450) })
	t.Run("encrypted", func(t *testing.T) {
		large(t, func(n *api.Network) { ingress(n); encrypted(n) }, 1370)
	})
}

func large(t *testing.T, kind func(*api.Network), mtu int) {
	b := newBed(t, 2)
	b.network("ing", "10.0.0.0/24", kind)
	one, two := b.nodes[0], b.nodes[1]
	from := b.idle(one, "ing", "10.0.0.11/24", "from")
	to := b.idle(two, "ing", "10.0.0.12/24", "to")
	b.service("s", "ing", "10.0.0.100", 8080, "to")
	b.sync()
	ln := to.Listen(":80")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	pc := to.ListenUDP(":80")
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, a, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], a)
		}
	}()
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	for _, tc := range []struct {
		name string
		from place
		at   string
	}{
		{"task to task", from, "10.0.0.12:80"},
		{"outside by the other node", b.client, one.at(8080)},
		{"outside by its node", b.client, two.at(8080)},
		{"host's own", one.ns, "127.0.0.1:8080"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := dial(tc.from, "tcp", tc.at, patient)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(4 * patient))
			go func() { _, _ = c.Write(data) }()
			h := sha256.New()
			if _, err := io.CopyN(h, c, int64(len(data))); err != nil || [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
				t.Errorf("TCP: %v, same: %t", err, [32]byte(h.Sum(nil)) == sha256.Sum256(data))
			}
			for _, size := range []int{1, 1300, mtu - 28, mtu - 27, mtu, 1472, 1473, 9000, 60000} {
				u, err := dial(tc.from, "udp", tc.at, patient)
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 1<<16)
				answered := false
				for try := 0; try < 3 && !answered; try++ { // the first may teach the sender the size
					_ = u.SetDeadline(time.Now().Add(patient / 5))
					_, _ = u.Write(data[:size])
					n, err := u.Read(buf)
					answered = err == nil && n == size
				}
				if !answered {
					t.Errorf("UDP of %d bytes got no answer", size)
				}
				_ = u.Close()
			}
		})
	}
	// TCP was told in time: no packet was too large for the tunnel.
	for _, n := range b.nodes {
		for _, f := range strings.Fields(n.sh("awk '/shoal0/ { print $12, $13, $15 }' /proc/net/dev")) {
			if v, _ := strconv.Atoi(f); v != 0 {
				t.Errorf("%s: the tunnel lost packets", n.id)
			}
		}
	}
}

//go:build linux

package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
	"shoal/network/overlay"
	"shoal/network/wireguard"
)

// wireguardCommand makes the test binary what serves WireGuard.
const wireguardCommand = "wireguard"

func beWireGuard(name string) int {
	err := wireguard.Serve(context.Background(), name, func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "wireguard: "+format+"\n", args...)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// crypt is a node's part in encrypted networks.
type crypt struct {
	overlay *overlay.Overlay
	ring    *wireguard.Ring
	state   *api.NodeState
}

// soon is a rotation without waiting for anything but other nodes.
var soon = wireguard.Rotation{Period: time.Hour}

func newCrypt(o *overlay.Overlay) (*crypt, error) {
	device := wireguard.New(netkit.WireGuard, "/proc/self/exe", wireguardCommand)
	key, err := device.Private()
	if err != nil {
		return nil, err
	}
	ring, err := wireguard.NewRing(soon, key)
	if err != nil {
		return nil, err
	}
	o.Encrypt(device, ring)
	return &crypt{overlay: o, ring: ring}, nil
}

// step goes one step in the change of keys.
func (c *crypt) step(r *http.Request) error {
	var f wireguard.Facts
	if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
		return err
	}
	if _, err := c.ring.Step(f); err != nil {
		return err
	}
	return c.overlay.Set(r.Context(), c.state)
}

func (n *node) keys() (w api.WireGuard) {
	n.t.Helper()
	resp, err := n.control.Get("http://node/keys")
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&w); err != nil {
		n.t.Fatal(err)
	}
	return w
}

// rotate takes steps until the node's keys are as wanted, and tells the others
// after a while.
func (b *bed) rotate(n *node, what string, done func(api.WireGuard) bool, while func()) {
	b.t.Helper()
	now := time.Now()
	for range 4 {
		known := n.keys()
		if done(known) {
			while()
			b.sync()
			return
		}
		f, err := json.Marshal(wireguard.Facts{Now: now, Known: known, Since: now.Add(-2 * soon.Period), AllUp: true})
		if err != nil {
			b.t.Fatal(err)
		}
		n.post("/step", f)
	}
	b.t.Fatalf("%s has not %s: %+v", n.id, what, n.keys())
}

// newClosedBed has nodes that let nothing of IPv6 in.
func newClosedBed(t *testing.T, n int) *bed {
	t.Helper()
	b := newBed(t, n)
	for _, n := range b.nodes {
		n.sh("ip6tables -P INPUT DROP")
	}
	return b
}

func encrypted(n *api.Network) {
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{api.OptionEncrypted: ""}}
}

// raw is an address as it is in a packet.
func raw(addr string) string { return string(netip.MustParseAddr(addr).AsSlice()) }

// TestEncrypted listens on the wire while tasks speak on an encrypted network
// and on a plain one.
func TestEncrypted(t *testing.T) {
	b := newClosedBed(t, 3)
	b.network("open", "10.4.0.0/24", plain)
	b.network("closed", "10.5.0.0/24", encrypted)
	one, two := b.nodes[0], b.nodes[1]
	o1 := b.run(one, "open", "10.4.0.11/24", "readable-o1")
	o2 := b.run(two, "open", "10.4.0.12/24", "readable-o2")
	var closed []*task
	for i, n := range b.nodes {
		closed = append(closed, b.run(n, "closed", fmt.Sprintf("10.5.0.%d/24", 11+i), fmt.Sprintf("confidential-%d", i+1)))
	}
	b.service("sc", "closed", "10.5.0.100", 0, "confidential-2")
	c := nettest.Listen(t, "")
	b.sync()
	for _, proto := range []string{"tcp", "udp"} {
		one.want(o1, proto, "10.4.0.12:80", "readable-o2 10.4.0.11")
		for i, from := range closed {
			for j := range closed {
				if i != j {
					one.want(from, proto, fmt.Sprintf("10.5.0.%d:80", 11+j), fmt.Sprintf("confidential-%d 10.5.0.%d", j+1, 11+i))
				}
			}
		}
		one.want(closed[0], proto, "10.5.0.100:80", "confidential-2 10.5.0.11")
	}
	one.refused(closed[0], "tcp", "10.5.0.99:80")
	// Neither what they say nor who they are.
	c.Without("readable-o2", "confidential", raw("10.5.0.11")+raw("10.5.0.12"), raw("10.5.0.12")+raw("10.5.0.11"), raw("10.5.0.13")+raw("10.5.0.12"))

	t.Run("nobody writes to it in the clear", func(t *testing.T) {
		two.sh("ip -6 addr add fd00::2/64 dev eth0 nodad; ip6tables -P INPUT ACCEPT")
		b.client.Must(func() error { return sh("ip -6 addr add fd00::100/64 dev eth0 nodad") })
		for _, way := range []struct {
			name    string
			from    place
			at      string
			network byte
			to      *task
			as      string
			heard   bool
		}{
			{"a node to a plain network", one.ns, two.at(4789), 0, o2, "10.4.0.11", true},
			{"a node to an encrypted one", one.ns, two.at(4789), 0, closed[1], "10.5.0.11", false},
			{"a node, under the encrypted tunnel's number", one.ns, two.at(4789), 1, closed[1], "10.5.0.11", false},
			{"a stranger over IPv6, likewise", b.client, "[fd00::2]:4789", 1, closed[1], "10.5.0.11", false},
		} {
			to := way.to.addr.Addr().String()
			sink := way.to.ListenUDP(to + ":7777")
			conn, err := dial(way.from, "udp", way.at, patient)
			if err != nil {
				t.Fatal(err)
			}
			p := udpPacket(one.addr, two.addr, way.as, to, 7777, "forged")
			if p[6] = way.network; way.network != 0 { // the number's last byte
				copy(p[8:], netkit.EncryptedMAC(two.addr))
				copy(p[14:], netkit.EncryptedMAC(one.addr))
			}
			wait := silence
			if way.heard {
				wait = patient
			}
			for range 3 {
				_, _ = conn.Write(p)
			}
			_ = sink.SetReadDeadline(time.Now().Add(wait))
			_, _, err = sink.ReadFrom(make([]byte, 100))
			if (err == nil) != way.heard {
				t.Errorf("%s: heard: %t", way.name, err == nil)
			}
			_, _ = conn.Close(), sink.Close()
		}
	})

	t.Run("what serves it lives without a reader of its complaints", func(t *testing.T) {
		status, err := os.ReadFile("/proc/" + one.served(t) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, ignored, _ := strings.Cut(string(status), "SigIgn:")
		mask, err := strconv.ParseUint(strings.Fields(ignored)[0], 16, 64)
		if err != nil || mask&(1<<(syscall.SIGPIPE-1)) == 0 {
			t.Errorf("it ignores %x (%v), and not SIGPIPE", mask, err)
		}
	})

	t.Run("large packets stay in one piece where the kernel can", func(t *testing.T) {
		one.served(t)
		if !kernelAtLeast(t, 6, 17) {
			return
		}
		from, to := b.idle(one, "closed", "10.5.0.21/24", "large-1"), b.idle(two, "closed", "10.5.0.22/24", "large-2")
		b.sync()
		stream := echoing(t, from, to)
		_ = stream.SetDeadline(time.Now().Add(patient))
		bytes, packets := one.sentByWireGuard(t)
		const length = 4 << 20
		go func() { _, _ = stream.Write(make([]byte, length)) }()
		if _, err := io.CopyN(io.Discard, stream, length); err != nil {
			t.Fatal(err)
		}
		b2, p2 := one.sentByWireGuard(t)
		if mean := (b2 - bytes) / (p2 - packets); mean < 1500 {
			t.Errorf("the kernel handed over packets of %d bytes", mean)
		}
	})

	t.Run("everything is taken away", func(t *testing.T) {
		for _, n := range b.nodes {
			n.post("/clear", nil)
			left := n.sh("ip -o link; ip rule; ip route show table all; iptables -S; ip6tables -S; nft list tables")
			if strings.Contains(left, "shoal") || strings.Contains(left, "proto 83 metric 1 ") {
				t.Errorf("%s keeps: %s", n.id, left)
			}
		}
	})
}

// TestEncryptedFailsClosed takes pieces of the way away, with the node's process
// standing still, so that it mends nothing.
func TestEncryptedFailsClosed(t *testing.T) {
	b := newClosedBed(t, 2)
	b.network("open", "10.4.0.0/24", plain)
	b.network("closed", "10.5.0.0/24", encrypted)
	one, two := b.nodes[0], b.nodes[1]
	o1 := b.run(one, "open", "10.4.0.11/24", "readable-o1")
	b.run(two, "open", "10.4.0.12/24", "readable-o2")
	c1 := b.run(one, "closed", "10.5.0.11/24", "confidential-1")
	c2 := b.run(two, "closed", "10.5.0.12/24", "confidential-2")
	b.sync()
	works := func(when string) {
		t.Helper()
		for from, to := range map[*task]string{c1: "10.5.0.12:80", c2: "10.5.0.11:80"} {
			within(t, patient, "encrypted network works "+when, func() bool {
				got, err := getWithin(time.Second, from, "tcp", to)
				return err == nil && strings.HasPrefix(got, "confidential")
			})
		}
	}
	works("at first")
	// The packets that tasks try to send, and what a node that has lost its
	// wits might do with them.
	astray := "ip route replace 10.5.0.12 via 192.0.2.2 dev shoal0 onlink proto 83 metric 1"
	past := "ip route replace 10.5.0.12 via 192.0.2.2 dev eth0 onlink proto 83 metric 1"
	for name, damage := range map[string]string{
		"device gone":                      "ip link del " + netkit.WireGuard,
		"device gone, routed in the clear": "ip link del " + netkit.WireGuard + "; " + astray,
		"device gone, routed past tunnels": "ip link del " + netkit.WireGuard + "; " + past,
		"routed in the clear":              astray,
		"routed past tunnels":              past,
		"what serves it killed":            "kill -9 $(" + serving + ")",
		"encrypted tunnel gone":            "ip link del " + netkit.EncryptedTunnel,
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(damage, serving) {
				one.served(t)
			}
			if err := one.process.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = one.process.Process.Signal(syscall.SIGCONT) }() // or it never ends
			one.sh(damage)
			c := nettest.Listen(t, "")
			for _, proto := range []string{"tcp", "udp"} {
				_, err := getWithin(silence, c1, proto, "10.5.0.12:80")
				if err == nil {
					t.Error("a task was answered")
				}
				_, _ = getWithin(silence, c2, proto, "10.5.0.11:80")
				one.want(o1, proto, "10.4.0.12:80", "readable-o2 10.4.0.11")
			}
			c.Without("readable-o2", "confidential", raw("10.5.0.11")+raw("10.5.0.12"), raw("10.5.0.12")+raw("10.5.0.11"))
			if err := one.process.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			one.sh("ip link del " + netkit.EncryptedTunnel + " 2>/dev/null || true") // or it is the clock's turn to mend routes
			works("again")
		})
	}
}

// TestEncryptedIsRemoved takes the network away while its tasks still speak, as
// when they take their time to stop.
func TestEncryptedIsRemoved(t *testing.T) {
	t.Run("the only one", func(t *testing.T) { removeEncrypted(t, false) })
	t.Run("one of two", func(t *testing.T) { removeEncrypted(t, true) })
}

func removeEncrypted(t *testing.T, another bool) {
	b := newClosedBed(t, 2)
	b.network("open", "10.4.0.0/24", plain)
	b.network("closed", "10.5.0.0/24", encrypted)
	one, two := b.nodes[0], b.nodes[1]
	o1 := b.run(one, "open", "10.4.0.11/24", "readable-o1")
	b.run(two, "open", "10.4.0.12/24", "readable-o2")
	c1 := b.idle(one, "closed", "10.5.0.11/24", "c1")
	c2 := b.idle(two, "closed", "10.5.0.12/24", "c2")
	var k1 *task
	if another { // then the tunnel stays
		b.network("kept", "10.6.0.0/24", encrypted)
		k1 = b.idle(one, "kept", "10.6.0.11/24", "k1")
		b.run(two, "kept", "10.6.0.12/24", "k2")
	}
	for _, n := range b.nodes {
		n.sh("ip route add default via " + clientAddr)
	}
	b.sync()
	there, back := chat(t, c1, c2, 7001), chat(t, c2, c1, 7002)
	within(t, patient, "answers", func() bool { return there.answered.Load() > 10 && back.answered.Load() > 10 })
	stream := echoing(t, c1, c2)
	c := nettest.Listen(t, "")
	removed := func(n *node) {
		s := b.state(n)
		delete(s.Networks, "closed")
		for id, r := range s.Remotes {
			if r.Networks[0].NetworkID == "closed" {
				delete(s.Remotes, id)
			}
		}
		n.tell(s)
	}
	for _, step := range []func(){
		func() { removed(one) }, // the other has not heard of it
		func() { one.sh("ip route del 10.5.0.11") },
		func() { removed(two) },
	} {
		step()
		sent := [2]int64{there.sent.Load(), back.sent.Load()}
		if _, err := io.WriteString(stream, "still here"); err != nil {
			t.Fatal(err)
		}
		within(t, patient, "more packets", func() bool {
			return there.sent.Load() > sent[0]+100 && back.sent.Load() > sent[1]+100
		})
		one.want(o1, "tcp", "10.4.0.12:80", "readable-o2 10.4.0.11")
		if another {
			one.want(k1, "tcp", "10.6.0.12:80", "k2 10.6.0.11")
		}
	}
	answered := there.answered.Load() + back.answered.Load()
	there.stop()
	back.stop()
	if got := there.answered.Load() + back.answered.Load(); got != answered {
		t.Errorf("%d answers on a network that is gone", got-answered)
	}
	c.Without("readable-o2", "confidential", "still here", raw("10.5.0.11")+raw("10.5.0.12"), raw("10.5.0.12")+raw("10.5.0.11"))
}

// serving lists the processes that serve the device of the host it runs on.
const serving = "for p in $(pgrep -x -f '.*exe " + wireguardCommand + " " + netkit.WireGuard + "'); do [ $(readlink /proc/$p/ns/net) != $(readlink /proc/self/ns/net) ] || echo $p; done"

// served is the process that serves the node's device. Without one the kernel
// does, and the test is about nothing.
func (n *node) served(t *testing.T) (pid string) {
	t.Helper()
	if strings.Contains(n.sh("ip -d link show dev "+netkit.WireGuard), " wireguard ") {
		t.Skip("this kernel serves WireGuard by itself")
	}
	pids := strings.Fields(n.sh(serving))
	if len(pids) != 1 {
		t.Fatalf("%d processes serve %s: %v", len(pids), netkit.WireGuard, pids)
	}
	return pids[0]
}

// sentByWireGuard is what the kernel has handed to the node's device.
func (n *node) sentByWireGuard(t *testing.T) (bytes, packets uint64) {
	t.Helper()
	n.ns.Must(func() error {
		link, err := netlink.LinkByName(netkit.WireGuard)
		if err == nil {
			bytes, packets = link.Attrs().Statistics.TxBytes, link.Attrs().Statistics.TxPackets
		}
		return err
	})
	return bytes, packets
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var have [2]int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &have[0], &have[1]); err != nil {
		t.Fatal(err)
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}

// chatter sends a numbered packet every millisecond and counts the answers.
type chatter struct {
	sent, answered atomic.Int64
	ended          atomic.Bool
	stop           func()
}

// over tells whether there is nothing more to come.
func (c *chatter) over() bool { return c.ended.Load() && c.answered.Load() >= c.sent.Load() }

func chat(t *testing.T, from *task, to *task, port int) *chatter {
	t.Helper()
	at := netip.AddrPortFrom(to.addr.Addr(), uint16(port)).String()
	pc := to.ListenUDP(at)
	go func() {
		buf := make([]byte, 100)
		for {
			n, a, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], a)
		}
	}()
	conn, err := dial(from, "udp", at, patient)
	if err != nil {
		t.Fatal(err)
	}
	c := &chatter{}
	stop, sender, reader := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sender)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := conn.Write([]byte("confidential")); err == nil {
					c.sent.Add(1)
				}
			case <-stop:
				return
			}
		}
	}()
	go func() {
		defer close(reader)
		buf := make([]byte, 100)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			if c.answered.Add(1); c.over() {
				return
			}
		}
	}()
	c.stop = func() {
		close(stop)
		<-sender
		c.ended.Store(true)
		wait := patient / 10 // for what is on its way
		if c.over() {
			wait = 0
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		<-reader
		_, _ = conn.Close(), pc.Close()
	}
	return c
}

// losable is how many packets, of one each millisecond, a few changes of keys may
// lose: those between the calls that change a key and the address that goes with
// it. Few are lost, but a busy machine may stop a process there for a while.
const losable = 500

// TestKeysRotate changes keys, and the process of a node, under traffic.
func TestKeysRotate(t *testing.T) {
	b := newClosedBed(t, 3)
	b.network("closed", "10.5.0.0/24", encrypted)
	b.network("open", "10.4.0.0/24", plain)
	one, two, three := b.nodes[0], b.nodes[1], b.nodes[2]
	t1 := b.idle(one, "closed", "10.5.0.11/24", "t1")
	t2 := b.idle(two, "closed", "10.5.0.12/24", "t2")
	t3 := b.idle(three, "closed", "10.5.0.13/24", "t3")
	o1 := b.run(one, "open", "10.4.0.11/24", "readable-o1")
	b.run(two, "open", "10.4.0.12/24", "readable-o2")
	b.sync()
	stream := echoing(t, t1, t2)

	announced := func(w api.WireGuard) bool { return w.Next != "" }
	alone := func(w api.WireGuard) bool { return w.Last == "" }
	nothing := func() {}
	changed := func(w api.WireGuard) bool { return w.Last != "" }
	turn := func(n *node, while func()) {
		b.rotate(n, "announced another key", announced, nothing)
		b.rotate(n, "changed to it", changed, while)
		b.rotate(n, "forgotten the old one", alone, nothing)
	}
	for _, step := range []struct {
		name string
		do   func(while func())
	}{
		{"one's key", func(while func()) { turn(one, while) }},
		{"the other's key", func(while func()) { turn(two, while) }},
		{"all three at once", func(while func()) {
			for _, n := range b.nodes {
				b.rotate(n, "announced another key", announced, nothing)
			}
			for _, n := range b.nodes {
				b.rotate(n, "changed to it", changed, while)
			}
			for _, n := range b.nodes {
				b.rotate(n, "forgotten the old one", alone, nothing)
			}
		}},
		{"the node's process starts anew", func(func()) {
			key := one.keys()
			one.end()
			one.begin()
			if got := one.keys(); got != key {
				t.Errorf("key %+v, after the restart %+v", key, got)
			}
			b.sync()
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			c := nettest.Listen(t, "")
			one.want(o1, "tcp", "10.4.0.12:80", "readable-o2 10.4.0.11")
			there, back, third := chat(t, t1, t2, 7001), chat(t, t2, t1, 7002), chat(t, t3, t1, 7003)
			within(t, patient, "answers", func() bool {
				return there.answered.Load() > 100 && back.answered.Load() > 100 && third.answered.Load() > 100
			})
			// Whatever is lost for longer than a change takes is far more than
			// what a busy machine lets be lost during one.
			more := func() {
				mark := there.sent.Load()
				within(t, patient, "more packets", func() bool { return there.sent.Load() > mark+2*losable })
			}
			step.do(more)
			more()
			chatters := map[string]*chatter{"there": there, "back": back, "third": third}
			var stopped sync.WaitGroup
			for _, ch := range chatters {
				stopped.Go(ch.stop)
			}
			stopped.Wait()
			for name, ch := range chatters {
				lost := ch.sent.Load() - ch.answered.Load()
				t.Logf("%s: %d of %d packets lost", name, lost, ch.sent.Load())
				if lost > losable {
					t.Errorf("%s: %d of %d packets lost", name, lost, ch.sent.Load())
				}
			}
			if got, err := echo(stream); err != nil || got != "still here" {
				t.Errorf("the open connection: %q, %v", got, err)
			}
			c.Without("readable-o2", "confidential", "still here")
		})
	}
}

// echoing is a connection to a task that says back what it hears.
func echoing(t *testing.T, from, to *task) net.Conn {
	t.Helper()
	at := netip.AddrPortFrom(to.addr.Addr(), 80).String()
	ln := to.Listen(at)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	stream, err := dial(from, "tcp", at, patient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	if got, err := echo(stream); err != nil || got != "still here" {
		t.Fatalf("the connection: %q, %v", got, err)
	}
	return stream
}

func echo(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patient))
	if _, err := io.WriteString(c, "still here"); err != nil {
		return "", err
	}
	buf := make([]byte, 10)
	_, err := io.ReadFull(c, buf)
	return string(buf), err
}

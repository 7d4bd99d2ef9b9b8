package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"

	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// patience bounds every wait.
const patience = 30 * time.Second

func eventually(t *testing.T, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// bed is a node's namespace with a container, a stranger beside it, and a name
// server of the host on loopback.
type bed struct {
	*Server
	dir                 string
	container, stranger *nettest.NS
}

// start serves the test's world. The containers' gateway is not there yet.
func start(t *testing.T, dir string) *Server {
	t.Helper()
	s := New(dir, zaptest.NewLogger(t))
	s.upstream.file = filepath.Join(dir, "resolv.conf")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{dir: t.TempDir(), container: nettest.NewNS(t), stranger: nettest.NewNS(t)}
	b.resolv(t, "127.0.0.1")
	b.Server = start(t, b.dir)
	b.Set(world())
	if err := netkit.EnsureGateway(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netkit.RemoveGateway() })
	for i, c := range []struct {
		ns   *nettest.NS
		addr string
	}{{b.container, "10.0.1.9"}, {b.stranger, "10.0.1.77"}} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("shl%d", i)
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("shp%d", i)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(veth) })
		link, err := netlink.LinkByName(attrs.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: netkit.Host(netip.MustParseAddr(c.addr)), Scope: netlink.SCOPE_LINK}
		c.ns.Take(veth.PeerName, "eth0", netip.MustParsePrefix(c.addr+"/24"), &netlink.Route{Dst: netkit.Host(netkit.Gateway), Scope: netlink.SCOPE_LINK})
		if err := netlink.RouteAdd(route); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bed) resolv(t *testing.T, servers ...string) {
	t.Helper()
	text := ""
	for _, s := range servers {
		text += "nameserver " + s + "\n"
	}
	if err := os.WriteFile(filepath.Join(b.dir, "resolv.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ask puts a question from a namespace.
func ask(ns *nettest.NS, network string, q *dns.Msg) (reply *dns.Msg, err error) {
	err = ns.Do(func() error {
		c := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: dns.MaxMsgSize}
		reply, _, err = c.Exchange(q, netip.AddrPortFrom(netkit.Gateway, 53).String())
		return err
	})
	return reply, err
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// hostServer is a name server of the host, which knows every name as 192.0.2.1.
func hostServer(t *testing.T, addr string, rcode int, records int) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		srv := &dns.Server{Net: network, Addr: addr + ":53", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			r := new(dns.Msg).SetRcode(q, rcode)
			for i := range records {
				r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 77}, A: net.IPv4(192, 0, byte(i), 1)})
			}
			if network == "udp" {
				r.Truncate(dns.MinMsgSize)
			}
			_ = w.WriteMsg(r)
		})}
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		done := make(chan error, 1)
		go func() { done <- srv.ListenAndServe() }()
		select {
		case <-up:
		case err := <-done:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = srv.Shutdown(); <-done })
	}
}

func TestServe(t *testing.T) {
	b := newBed(t)
	hostServer(t, "127.0.0.1", dns.RcodeSuccess, 1)
	hostServer(t, "127.0.0.2", dns.RcodeServerFailure, 0)
	hostServer(t, "127.0.0.3", dns.RcodeSuccess, 100)
	for _, network := range []string{"udp", "tcp"} {
		var got *dns.Msg
		eventually(t, func() (err error) { got, err = ask(b.container, network, question("web.", dns.TypeA)); return err })
		if len(got.Answer) != 1 || !strings.HasSuffix(got.Answer[0].String(), "10.0.1.2") {
			t.Errorf("%s: %v", network, got)
		}
		got, err := ask(b.container, network, question("example.com.", dns.TypeA))
		if err != nil || len(got.Answer) != 1 || !strings.HasSuffix(got.Answer[0].String(), "192.0.0.1") || got.Answer[0].Header().Ttl != 77 {
			t.Errorf("%s: passed on: %v %v", network, got, err)
		}
	}

	t.Run("strangers", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			c := question("web.", dns.TypeA)
			err := b.stranger.Do(func() error {
				client := dns.Client{Net: network, Timeout: 300 * time.Millisecond}
				_, _, err := client.Exchange(c, "169.254.1.1:53")
				return err
			})
			if err == nil {
				t.Errorf("%s: a stranger got an answer", network)
			}
		}
		// Nor is nonsense answered, which the library does by itself.
		err := b.stranger.Do(func() error {
			c, err := net.Dial("udp4", "169.254.1.1:53")
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write([]byte("\x00\x01\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if n, err := c.Read(make([]byte, 512)); err == nil {
				return fmt.Errorf("%d bytes for a stranger", n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})

	// A container that holds connections takes none away from others.
	t.Run("hoarder", func(t *testing.T) {
		refused := 0
		err := b.container.Do(func() error {
			for range maxPerAsker + 5 {
				c, err := net.Dial("tcp4", "169.254.1.1:53")
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				client := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
				if _, _, err := client.ExchangeWithConn(question("web.", dns.TypeA), &dns.Conn{Conn: c}); err != nil {
					refused++
				}
			}
			return nil
		})
		if err != nil || refused != 5 {
			t.Errorf("%d of %d connections at once are refused (%v)", refused, maxPerAsker+5, err)
		}
		if got := b.conns.count(); got != maxPerAsker {
			t.Errorf("%d connections count", got)
		}
	})
	eventually(t, func() error { // and when it lets go, it may come again
		if n := b.conns.count(); n != 0 {
			return fmt.Errorf("%d connections count", n)
		}
		return nil
	})

	t.Run("the host's servers change", func(t *testing.T) {
		b.resolv(t) // none
		eventually(t, func() error {
			got, err := ask(b.container, "udp", question("example.com.", dns.TypeA))
			if err != nil || got.Rcode != dns.RcodeServerFailure {
				return fmt.Errorf("%v %w", got, err)
			}
			return nil
		})
		b.resolv(t, "127.0.0.99", "127.0.0.2", "127.0.0.3") // nobody, one that fails, one that works
		eventually(t, func() error {
			got, err := ask(b.container, "udp", question("example.com.", dns.TypeA))
			if err != nil || got.Rcode != dns.RcodeSuccess || !got.Truncated {
				return fmt.Errorf("%v %w", got, err)
			}
			return nil
		})
		if got, err := ask(b.container, "tcp", question("example.com.", dns.TypeA)); err != nil || len(got.Answer) != 100 {
			t.Errorf("over TCP: %v %v", got, err)
		}
	})

	t.Run("own servers", func(t *testing.T) {
		s := world()
		s.Tasks["both"].Revision = s.Tasks["back"].Revision
		b.Set(s)
		got, err := ask(b.container, "udp", question("example.com.", dns.TypeA))
		if err != nil || got.Rcode != dns.RcodeServerFailure {
			t.Errorf("the engine is not sent on: %v %v", got, err)
		}
		if got, err = ask(b.container, "udp", question("web.", dns.TypeA)); err != nil || len(got.Answer) != 1 {
			t.Errorf("names of the cluster: %v %v", got, err)
		}
	})

	t.Run("muted", func(t *testing.T) {
		b.Mute("n2", true)
		got, err := ask(b.container, "udp", question("tasks.web.", dns.TypeA))
		if err != nil || len(got.Answer) != 1 {
			t.Errorf("%v %v", got, err)
		}
		b.Mute("n2", false)
		if got, err = ask(b.container, "udp", question("tasks.web.", dns.TypeA)); err != nil || len(got.Answer) != 2 {
			t.Errorf("%v %v", got, err)
		}
	})

	t.Run("after a restart", func(t *testing.T) {
		eventually(t, func() error {
			_, err := os.Stat(filepath.Join(b.dir, zoneFile))
			return err
		})
		again := New(b.dir, zaptest.NewLogger(t))
		again.load()
		z := again.zone.Load()
		if z == nil {
			t.Fatal("nothing is known")
		}
		addrs, _ := z.Lookup(z.Askers[netip.MustParseAddr("10.0.1.9")], "tasks.web")
		if len(addrs) != 2 {
			t.Errorf("tasks.web: %v", addrs)
		}
		// In a folder of its own: the running server may yet save what it knows.
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, zoneFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		damaged := New(dir, zaptest.NewLogger(t))
		if damaged.load(); damaged.zone.Load() != nil {
			t.Error("a damaged record is believed")
		}
	})
}

// TestPortTaken: somebody else's server keeps ours from listening and nothing
// from running; when it goes, ours answers.
func TestPortTaken(t *testing.T) {
	c, err := net.ListenPacket("udp4", "0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, t.TempDir())
	eventually(t, func() error {
		if why := s.Trouble(); !strings.Contains(why, fmt.Sprintf("(pid %d)", os.Getpid())) {
			return fmt.Errorf("trouble: %q", why)
		}
		return nil
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if why := s.Trouble(); why != "" {
			return fmt.Errorf("trouble: %s", why)
		}
		return nil
	})
}

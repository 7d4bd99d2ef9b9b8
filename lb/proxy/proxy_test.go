package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/lb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// task is a server on an address of its own on the loopback network, where
// every host has the whole of 127.0.0.0/8.
type task struct {
	addr     string
	listener net.Listener
	accepted atomic.Int32
	work     sync.WaitGroup
}

func startTask(t *testing.T, addr string, port int, serve func(c *net.TCPConn)) *task {
	t.Helper()
	l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", addr, port))
	if err != nil {
		t.Fatal(err)
	}
	s := &task{addr: addr, listener: l}
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			s.work.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(s.end)
	return s
}

func (s *task) end() {
	_ = s.listener.Close()
	s.work.Wait()
}

// echo says who it is, then gives back what it gets.
func echo(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name+"\n")
		_, _ = io.Copy(c, c)
	}
}

// free finds a port that nobody has, for TCP and UDP, on all addresses.
func free(t *testing.T) uint16 {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port}); err == nil {
			u.Close()
			return uint16(port)
		}
	}
	t.Fatal("no free port")
	return 0
}

// state publishes one port with these backends.
func state(protocol string, published, target uint16, header bool, backends ...string) *api.NodeState {
	s := &api.NodeState{
		Node:      &api.Node{Meta: api.Meta{ID: "n1"}},
		Networks:  map[string]*api.Network{"ing": {Meta: api.Meta{ID: "ing"}}},
		Endpoints: map[string]*api.Endpoint{},
	}
	s.Networks["ing"].Spec.Ingress = true
	e := &api.Endpoint{ServiceID: "web", Ports: []api.Port{{Protocol: protocol, Published: published, Target: target}}, ProxyProtocol: header}
	for i, b := range backends {
		e.Backends = append(e.Backends, api.Backend{
			TaskID: fmt.Sprint(i), NodeID: "n" + b[strings.LastIndex(b, ".")+1:],
			Networks: []api.Attachment{{NetworkID: "ing", Addr: netip.MustParsePrefix(b + "/8")}},
		})
	}
	s.Endpoints["web"] = e
	return s
}

func all(lb.Port) bool { return true }

func start(t *testing.T, serve func(lb.Port) bool) *Plane {
	t.Helper()
	p := New(zaptest.NewLogger(t), lb.Compile, serve)
	runPlane(t, p)
	return p
}

func runPlane(t *testing.T, p *Plane) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func dial(t *testing.T, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// who reads which task took a connection.
func who(t *testing.T, c net.Conn) string {
	t.Helper()
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		t.Fatalf("nobody took the connection: %v", err)
	}
	return strings.TrimSpace(line)
}

func set(t *testing.T, p *Plane, s *api.NodeState) {
	t.Helper()
	if err := p.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if d, _ := p.Differs(); d != "" {
		t.Fatalf("differs: %s", d)
	}
}

// TestChange: new connections follow the table from the moment that Set returns,
// and those that are open live on through every change, even through the end of
// the port.
func TestChange(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.1.1", int(target), echo("one"))
	startTask(t, "127.0.1.2", int(target), echo("two"))
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.1.1"))
	old := dial(t, published)
	if got := who(t, old); got != "one" {
		t.Fatalf("%s took it", got)
	}
	set(t, p, state("tcp", published, target, false, "127.0.1.1", "127.0.1.2"))
	seen := map[string]bool{}
	for len(seen) < 2 {
		seen[who(t, dial(t, published))] = true
	}
	set(t, p, state("tcp", published, target, false, "127.0.1.2"))
	for range 50 {
		if got := who(t, dial(t, published)); got != "two" {
			t.Fatalf("after it left, %s took a connection", got)
		}
	}
	if err := p.Mute(t.Context(), "n2", true); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", published)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("with nobody behind it, the port says %v", err)
	}
	if _, err := io.WriteString(old, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := old.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(old); err != nil || string(rest) != "still here" {
		t.Fatalf("an open connection got %q, %v", rest, err)
	}
	if err := p.Mute(t.Context(), "n2", false); err != nil {
		t.Fatal(err)
	}
	if got := who(t, dial(t, published)); got != "two" {
		t.Fatalf("%s took it", got)
	}
}

// TestDeadTask: one that refuses, or a daemon that has not heard yet that it is
// gone, costs a client nothing while another serves.
func TestDeadTask(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.2.1", int(target), echo("alive"))
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.2.1", "127.0.2.2", "127.0.2.3"))
	for range 30 {
		if got := who(t, dial(t, published)); got != "alive" {
			t.Fatal(got)
		}
	}
}

// TestEnds: how one end closes is how the other sees it closed.
func TestEnds(t *testing.T) {
	target, published := free(t), free(t)
	got := make(chan error, 1)
	startTask(t, "127.0.3.1", int(target), func(c *net.TCPConn) {
		word := make([]byte, 5)
		if _, err := io.ReadFull(c, word); err != nil {
			got <- err
			return
		}
		switch string(word) {
		case "reset":
			_ = c.SetLinger(0)
		case "half.": // its end comes first, the client's words after
			_ = c.CloseWrite()
			rest, err := io.ReadAll(c)
			if err == nil && string(rest) != "more" {
				err = fmt.Errorf("got %q", rest)
			}
			got <- err
		case "await":
			got <- nil
			_, err := c.Read(word)
			got <- err
		}
	})
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.3.1"))
	t.Run("half", func(t *testing.T) {
		c := dial(t, published)
		_, _ = io.WriteString(c, "half.")
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Fatalf("%q, %v", rest, err)
		}
		_, _ = io.WriteString(c, "more")
		_ = c.CloseWrite()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("reset by the task", func(t *testing.T) {
		c := dial(t, published)
		_, _ = io.WriteString(c, "reset")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the client sees %v", err)
		}
	})
	t.Run("reset by the client", func(t *testing.T) {
		c := dial(t, published)
		_, _ = io.WriteString(c, "await")
		if err := <-got; err != nil { // the word is not lost with the connection
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the task sees %v", err)
		}
	})
}

// TestShutdown: the end of the plane ends every connection, also those of a port
// that was closed before.
func TestShutdown(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.5.1", int(target), echo("a"))
	p := New(zaptest.NewLogger(t), lb.Compile, all)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	set(t, p, state("tcp", published, target, false, "127.0.5.1"))
	c := dial(t, published)
	who(t, c)
	set(t, p, state("tcp", published, target, false)) // nothing is behind the port any more
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the plane waits for its clients")
	}
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// TestHeader: a task that wants to hears who its client is, and of nothing else.
func TestHeader(t *testing.T) {
	target, published := free(t), free(t)
	heard := make(chan string, 1)
	startTask(t, "127.0.4.1", int(target), func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		h, err := proxyproto.Read(r)
		if err != nil {
			heard <- err.Error()
			return
		}
		line, _ := r.ReadString('\n')
		heard <- fmt.Sprintf("v%d %s %s %s", h.Version, h.SourceAddr, h.DestinationAddr, line)
	})
	p := start(t, func(p lb.Port) bool { return p.ProxyProtocol })
	set(t, p, state("tcp", published, target, true, "127.0.4.1"))
	c := dial(t, published)
	_, _ = io.WriteString(c, "hello\n")
	want := fmt.Sprintf("v2 %s %s hello\n", c.LocalAddr(), c.RemoteAddr())
	if got := <-heard; got != want {
		t.Fatalf("the task heard %q, want %q", got, want)
	}
	set(t, p, state("tcp", published, target, false, "127.0.4.1"))
	if _, err := net.Dial("tcp4", c.RemoteAddr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a port of another plane is served: %v", err)
	}
}

// TestNamesPort: a listener on every address would keep containers from asking for
// names, so it is never made.
func TestNamesPort(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		p := start(t, all)
		if err := p.Set(t.Context(), state(protocol, 53, 80, false, "127.0.5.1")); err != nil {
			t.Fatal(err)
		}
		if d, _ := p.Differs(); !strings.Contains(d, protocol+" port 53: containers ask for names on 169.254.1.1:53") || p.Holds(protocol, 53) {
			t.Errorf("differs: %q, held: %v", d, p.Holds(protocol, 53))
		}
	}
}

// TestTakenPort: a port that another process has is not lost, but tried again.
func TestTakenPort(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.5.1", int(target), echo("one"))
	thief, err := net.Listen("tcp4", fmt.Sprintf(":%d", published))
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, all)
	if err := p.Set(t.Context(), state("tcp", published, target, false, "127.0.5.1")); err != nil {
		t.Fatal(err)
	}
	if d, _ := p.Differs(); !strings.Contains(d, fmt.Sprint(published)) || !strings.Contains(d, "in use") {
		t.Fatalf("differs: %q", d)
	}
	thief.Close()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", published)); err == nil {
			defer c.Close()
			if got := who(t, c); got == "one" {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("never served")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestDatagrams: a client keeps its task while that is there, is answered from
// the address that it asked, and gets another task when its own leaves.
func TestDatagrams(t *testing.T) {
	target, published := free(t), free(t)
	for _, a := range []string{"127.0.6.1", "127.0.6.2"} {
		c, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", a, target))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 100)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(a+" "+string(buf[:n])), from)
			}
		}()
		t.Cleanup(func() { c.Close(); <-done })
	}
	p := start(t, all)
	both := state("udp", published, target, false, "127.0.6.1", "127.0.6.2")
	set(t, p, both)
	client := func(to string) *net.UDPConn {
		c, err := net.Dial("udp4", net.JoinHostPort(to, fmt.Sprint(published)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UDPConn)
	}
	ask := func(c *net.UDPConn) (task string) {
		buf := make([]byte, 100)
		for range 20 { // the first after a change may be lost
			_, _ = io.WriteString(c, "hello")
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			if n, err := c.Read(buf); err == nil {
				task, word, _ := strings.Cut(string(buf[:n]), " ")
				if word != "hello" {
					t.Fatalf("got %q", buf[:n])
				}
				return task
			}
		}
		t.Fatal("no answer")
		return ""
	}
	c := client("127.0.0.9") // connected: an answer from any other address is not heard
	first := ask(c)
	for range 20 {
		if got := ask(c); got != first {
			t.Fatalf("%s answers, and %s did before", got, first)
		}
	}
	seen := map[string]bool{}
	for len(seen) < 2 {
		seen[ask(client("127.0.0.1"))] = true
	}
	other := "127.0.6.1"
	if first == other {
		other = "127.0.6.2"
	}
	set(t, p, state("udp", published, target, false, other))
	if got := ask(c); got != other {
		t.Fatalf("%s answers for one that left", got)
	}
	set(t, p, both)
	if got := ask(c); got != other {
		t.Fatalf("%s answers; a task that comes takes no clients away", got)
	}
}

// TestNobodyIsLost changes the table all the time under clients that come and
// go: each is served by one that was in the table.
func TestNobodyIsLost(t *testing.T) {
	target, published := free(t), free(t)
	for i := 1; i <= 4; i++ {
		a := fmt.Sprintf("127.0.7.%d", i)
		startTask(t, a, int(target), echo(a))
	}
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.7.1", "127.0.7.2"))
	var clients sync.WaitGroup
	stop := make(chan struct{})
	var served atomic.Int32
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", published))
				if err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				line, err := bufio.NewReader(c).ReadString('\n')
				c.Close()
				if err != nil {
					t.Errorf("%q, %v", line, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 300 {
		a, b := fmt.Sprintf("127.0.7.%d", 1+i%4), fmt.Sprintf("127.0.7.%d", 1+(i+1)%4)
		set(t, p, state("tcp", published, target, false, a, b))
	}
	close(stop)
	clients.Wait()
	t.Logf("%d connections through 300 tables", served.Load())
}

package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"shoal/lb"
)

// eventually waits for something that is bound to come.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// look has every loop look at what it has.
func look(p *Plane, at func(*loop)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var mu sync.Mutex
	p.loops.each(func(l *loop) {
		mu.Lock()
		defer mu.Unlock()
		at(l)
	})
}

// open counts the connections that a plane carries.
func open(p *Plane) (n int) {
	look(p, func(l *loop) { n += len(l.conns) })
	return n
}

// speech is what one end of a connection says: as many bytes as its seed tells.
func speech(seed uint64) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	sizes := rand.New(random)
	all := make([]byte, sizes.IntN([]int{1, 100, bufferSize, 2 << 20}[sizes.IntN(4)]))
	_, _ = random.Read(all)
	return all
}

// say says all of a speech, in pieces of all sizes.
func say(c *net.TCPConn, seed uint64) error {
	all, pieces := speech(seed), rand.New(rand.NewPCG(seed, 1))
	for len(all) > 0 {
		n := min(len(all), 1+pieces.IntN([]int{100, 5000, 200000}[pieces.IntN(3)]))
		if _, err := c.Write(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return c.CloseWrite()
}

// hear compares all that is heard with a speech.
func hear(c *net.TCPConn, seed uint64) error {
	want := speech(seed)
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("heard %d bytes, and %d others were said", len(got), len(want))
	}
	return err
}

// TestEveryByte: connections at once whose ends talk at the same time, or one
// after the other, and are finished at different times.
func TestEveryByte(t *testing.T) {
	target, published := free(t), free(t)
	bad := make(chan error, 1000)
	startTask(t, "127.0.8.1", int(target), func(c *net.TCPConn) {
		var first [8]byte
		if _, err := io.ReadFull(c, first[:]); err != nil {
			bad <- err
			return
		}
		bad <- talk(c, binary.BigEndian.Uint64(first[:])+1, binary.BigEndian.Uint64(first[:]))
	})
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.8.1"))
	var clients sync.WaitGroup
	for i := range uint64(60) {
		clients.Go(func() {
			c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", published))
			if err != nil {
				bad <- err
				return
			}
			defer c.Close()
			if _, err := c.Write(binary.BigEndian.AppendUint64(nil, i*2)); err != nil {
				bad <- err
				return
			}
			bad <- talk(c.(*net.TCPConn), i*2, i*2+1)
		})
	}
	clients.Wait()
	for range 120 {
		if err := <-bad; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "every connection is forgotten", func() bool { return open(p) == 0 })
}

// talk says one speech and hears another: in this order, in the other, or both at
// once.
func talk(c *net.TCPConn, mine, other uint64) error {
	// Both ends go by what they say together, or each would wait for the other.
	switch how := min(mine, other) / 2 % 3; {
	case how == 0 && mine < other, how == 1 && mine > other:
		return errors.Join(say(c, mine), hear(c, other))
	case how < 2:
		return errors.Join(hear(c, other), say(c, mine))
	}
	said := make(chan error)
	go func() { said <- say(c, mine) }()
	return errors.Join(hear(c, other), <-said)
}

// TestSlowReader: what a task does not take stays with the client, but for a
// buffer or a pipe, and comes when it takes it.
func TestSlowReader(t *testing.T) {
	target, published := free(t), free(t)
	listen := make(chan struct{})
	heard := make(chan int64, 4)
	startTask(t, "127.0.9.1", int(target), func(c *net.TCPConn) {
		<-listen
		n, err := io.Copy(io.Discard, c)
		if err != nil {
			t.Error(err)
		}
		heard <- n
	})
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.9.1"))
	var (
		clients sync.WaitGroup
		said    atomic.Int64
		enough  atomic.Bool
	)
	for range 4 {
		c := dial(t, published)
		clients.Go(func() {
			for !enough.Load() {
				n, err := c.Write(make([]byte, 100_000))
				said.Add(int64(n))
				if err != nil {
					t.Error(err)
					return
				}
			}
			_ = c.CloseWrite()
		})
	}
	eventually(t, "every task was sent more than it takes", func() bool {
		full := 0
		look(p, func(l *loop) {
			for c := range l.conns {
				if c.up.held > 0 && !c.up.writable {
					full++
				}
				if len(c.up.kept) > bufferSize || c.up.held > pipeSize {
					t.Errorf("holds %d bytes, %d of them in memory", c.up.held, len(c.up.kept))
				}
			}
		})
		return full == 4
	})
	enough.Store(true)
	close(listen)
	clients.Wait()
	var all int64
	for range 4 {
		all += <-heard
	}
	if all != said.Load() {
		t.Errorf("%d of %d bytes were heard", all, said.Load())
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestBroken: a connection that breaks amid much is broken for the other end, too,
// and nobody takes it for finished.
func TestBroken(t *testing.T) {
	target, published := free(t), free(t)
	seen := make(chan error, 1)
	startTask(t, "127.0.10.1", int(target), func(c *net.TCPConn) {
		var word [1]byte
		if _, err := io.ReadFull(c, word[:]); err != nil {
			seen <- err
			return
		}
		if word[0] == 'v' { // the task vanishes
			_, _ = io.CopyN(c, zeros{}, 8<<20)
			_ = c.SetLinger(0)
			return
		}
		_, err := io.Copy(c, zeros{})
		seen <- err
	})
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.10.1"))
	for range 20 {
		c := dial(t, published)
		_, _ = io.WriteString(c, "v")
		if n, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("after %d bytes the client sees %v", n, err)
		}
		c = dial(t, published)
		_, _ = io.WriteString(c, "c")
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("the task sees %v", err)
		}
	}
	eventually(t, "every connection is forgotten", func() bool { return open(p) == 0 })
}

// TestUrgent: a read stops before an urgent byte, which looks as if there was no
// more. The byte itself is for those who ask for it, and not passed on.
func TestUrgent(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.11.1", int(target), echo("a"))
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.11.1"))
	c := dial(t, published)
	who(t, c)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// While the loops are held up all of it comes, and is there at once.
	look(p, func(*loop) {
		for _, part := range []struct {
			word  string
			flags int
		}{{"before", 0}, {"!", unix.MSG_OOB}, {"after", 0}} {
			if err := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(part.word), part.flags, nil) }); err != nil {
				t.Error(err)
			}
		}
	})
	_ = c.CloseWrite()
	rest, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(rest, []byte("before")) || !bytes.HasSuffix(rest, []byte("after")) {
		t.Fatalf("heard %q, %v", rest, err)
	}
}

// deaf listens on an address and answers nobody who wants to connect: its queue
// is full.
func deaf(t *testing.T, addr string, port uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	to := &unix.SockaddrInet4{Port: int(port), Addr: [4]byte(net.ParseIP(addr).To4())}
	if err := errors.Join(unix.Bind(fd, to), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
}

// TestDeafTask: one that does not answer is passed over, and a new table ends the
// wait for it at once.
func TestDeafTask(t *testing.T) {
	target, published := free(t), free(t)
	deaf(t, "127.0.12.1", target)
	startTask(t, "127.0.12.2", int(target), echo("alive"))
	p := start(t, all)
	dialing := func() (n int) {
		look(p, func(l *loop) { n += l.dialing.Len() })
		return n
	}
	set(t, p, state("tcp", published, target, false, "127.0.12.1"))
	var clients []*net.TCPConn
	for i := range 3 {
		clients = append(clients, dial(t, published))
		fmt.Fprintf(clients[i], "word %d", i)
	}
	eventually(t, "all clients wait for the task", func() bool { return dialing() == 3 })
	set(t, p, state("tcp", published, target, false, "127.0.12.2"))
	for i, c := range clients {
		_ = c.CloseWrite()
		if heard, err := io.ReadAll(c); err != nil || string(heard) != fmt.Sprintf("alive\nword %d", i) {
			t.Fatalf("heard %q, %v", heard, err)
		}
	}
	set(t, p, state("tcp", published, target, false, "127.0.12.1", "127.0.12.2"))
	for range 6 { // one of them meets the deaf one first, most likely
		clients = append(clients, dial(t, published))
	}
	for _, c := range clients[3:] {
		if got := who(t, c); got != "alive" {
			t.Fatal(got)
		}
	}
	if n := dialing(); n > 0 {
		t.Errorf("%d clients still wait", n)
	}
	set(t, p, state("tcp", published, target, false, "127.0.12.1"))
	c := dial(t, published)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("a client that no task takes sees %v", err)
	}
	c = dial(t, published)
	eventually(t, "the client waits for the task", func() bool { return dialing() == 1 })
	set(t, p, state("tcp", published, target, false))
	if n := dialing(); n > 0 {
		t.Error("a task that left is still called")
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("a client whose port was closed sees %v", err)
	}
}

// TestNoDescriptors: clients wait while there are none, and are served when there
// are some again. Nobody is refused.
func TestNoDescriptors(t *testing.T) {
	target, published := free(t), free(t)
	// Tasks have this listener's queue until there are descriptors.
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.13.1:%d", target))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	core, logged := observer.New(zapcore.WarnLevel)
	p := New(zap.New(core), lb.Compile, all)
	runPlane(t, p)
	set(t, p, state("tcp", published, target, false, "127.0.13.1"))

	const clients = 20
	var sockets []int
	for range clients {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, fd)
	}
	restore := leaveDescriptors(t, 7)
	for i, fd := range sockets {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(published), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			restore()
			t.Fatalf("client %d: %v", i, err)
		}
	}
	eventually(t, "it is said that clients wait", func() bool { return logged.Len() > 0 })
	restore()

	var tasks sync.WaitGroup
	for range clients {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tasks.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
	}
	for i, fd := range sockets {
		f := os.NewFile(uintptr(fd), "client")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		word := fmt.Sprintf("client %d", i)
		if _, err := io.WriteString(c, word); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(c); err != nil || string(rest) != word {
			t.Errorf("%s heard %q, %v", word, rest, err)
		}
	}
	tasks.Wait()
	if logged.Len() > 1 {
		t.Errorf("it was said %d times", logged.Len())
	}
}

// leaveDescriptors has the process have so many more, until restore.
func leaveDescriptors(t *testing.T, n int) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	// The limit is on numbers: all that are free below the highest are taken first.
	var fill []int
	for fd, top := -1, highest(t); fd <= top; fill = append(fill, fd) {
		var err error
		if fd, err = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
	limit := unix.Rlimit{Cur: uint64(fill[len(fill)-1] + 1 + n), Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
		for _, fd := range fill {
			_ = unix.Close(fd)
		}
	})
}

// highest is the highest descriptor that is open.
func highest(t *testing.T) (fd int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		var n int
		if _, err := fmt.Sscan(e.Name(), &n); err == nil {
			fd = max(fd, n)
		}
	}
	return fd
}

// TestShared: connections that come one by one and stay are not all with the loop
// that accepts them.
func TestShared(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.14.1", int(target), echo("a"))
	p := start(t, all)
	set(t, p, state("tcp", published, target, false, "127.0.14.1"))
	for range 20 * len(p.loops.all) {
		who(t, dial(t, published))
	}
	look(p, func(l *loop) {
		if len(l.conns) == 0 || int(l.load.Load()) != len(l.conns) {
			t.Errorf("a loop has %d connections, and says that it has %d", len(l.conns), l.load.Load())
		}
	})
}

// TestShutdownAmongClients: no connection outlives the plane, however it stood
// when that ended.
func TestShutdownAmongClients(t *testing.T) {
	target, published := free(t), free(t)
	startTask(t, "127.0.15.1", int(target), echo("a"))
	p := New(zaptest.NewLogger(t), lb.Compile, all)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	set(t, p, state("tcp", published, target, false, "127.0.15.1"))
	var (
		clients sync.WaitGroup
		served  atomic.Int32
	)
	for range 8 {
		clients.Go(func() {
			for {
				c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", published))
				if err != nil {
					return // the port is closed
				}
				defer c.Close() // it stays open for as long as the plane lets it
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return
				}
				clients.Go(func() { _, _ = io.Copy(io.Discard, c) })
				served.Add(1)
			}
		})
	}
	eventually(t, "clients are served", func() bool { return served.Load() > 100 })
	cancel()
	<-done
	clients.Wait()
}

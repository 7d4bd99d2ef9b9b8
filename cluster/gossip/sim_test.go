package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// bubble runs a test in simulated time.
func bubble(t *testing.T, f func(t *testing.T)) {
	if raceDetector {
		t.Skip("synctest and the race detector do not go together before Go 1.27")
	}
	synctest.Test(t, f)
}

// world is a network without cables: it delays, loses, and cuts.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	loss  float64
	delay time.Duration
	cut   func(from, to int) bool // nil: nothing is cut
	hosts []*simHost
	at    map[netip.AddrPort]*simHost
	keys  []Key
	tap   func(packet []byte) // sees what is sent
	admit func(id string) bool
	sent  int // packets, for the figures
	bytes int
}

// simHost is one host with its daemon.
type simHost struct {
	w     *world
	n     int
	id    string
	addr  netip.AddrPort
	power bool       // the kernel answers
	sock  *simSocket // of the running daemon

	g      *Gossip
	cancel context.CancelFunc
	done   chan error

	mu      sync.Mutex
	history []Member // what OnChange said
}

type simPacket struct {
	b    []byte
	from netip.AddrPort
}

type simSocket struct {
	h       *simHost
	addr    netip.AddrPort
	packets chan simPacket
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func simAddr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 2377)
}

func newWorld(t *testing.T, n int) *world {
	w := &world{t: t, delay: 200 * time.Microsecond, at: map[netip.AddrPort]*simHost{}, keys: []Key{testKey(1)}}
	for i := range n {
		h := &simHost{w: w, n: i, id: fmt.Sprintf("node%03d", i), addr: simAddr(i + 1), power: true}
		w.hosts = append(w.hosts, h)
		w.at[h.addr] = h
	}
	return w
}

func testKey(b byte) Key {
	k := make(Key, KeySize)
	k[0] = b
	return k
}

// start runs the daemon of a host. The managers' list has everybody where they
// were first.
func (h *simHost) start() {
	var peers []Peer
	for i, o := range h.w.hosts {
		peers = append(peers, Peer{o.id, simAddr(i + 1)})
	}
	g, err := New(Config{
		NodeID: h.id, ClusterID: "c", Keys: h.w.keys,
		Advertise: func() netip.AddrPort {
			h.w.mu.Lock()
			defer h.w.mu.Unlock()
			return h.addr
		},
		Peers: func() []Peer { return peers },
		OnChange: func(m Member) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.history = append(h.history, m)
		},
		Admit:  h.w.admit,
		Meta:   "v1",
		Logger: zap.NewNop(),
	})
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.w.mu.Lock()
	s := &simSocket{h: h, addr: h.addr, packets: make(chan simPacket, 4096), streams: make(chan net.Conn, 64), closed: make(chan struct{})}
	h.sock, h.g = s, g
	h.w.mu.Unlock()
	g.open = func(context.Context) (network, error) { return s, nil }
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.done = cancel, make(chan error, 1)
	go func() { h.done <- g.Run(ctx) }()
}

// stop ends the daemon; the host lives on.
func (h *simHost) stop() {
	h.w.mu.Lock()
	h.sock = nil
	h.w.mu.Unlock()
	h.cancel()
	if err := <-h.done; err != nil {
		h.w.t.Errorf("%s: %v", h.id, err)
	}
	h.cancel = nil
}

// kill takes the power away. The daemon is stopped in the test's own process,
// which nobody sees.
func (h *simHost) kill() {
	h.w.mu.Lock()
	h.power = false
	h.w.mu.Unlock()
	h.stop()
}

func (h *simHost) boot() {
	h.w.mu.Lock()
	h.power = true
	h.w.mu.Unlock()
	h.start()
}

// move gives a host another address.
func (h *simHost) move(to netip.AddrPort) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	delete(h.w.at, h.addr)
	h.addr = to
	h.w.at[to] = h
	if h.sock != nil {
		h.sock.addr = to
	}
}

func (w *world) startAll() {
	for _, h := range w.hosts {
		h.start()
	}
	w.await(20*time.Second, "everybody knows everybody", func() bool { return w.count(Alive) == len(w.hosts)*(len(w.hosts)-1) })
}

func (w *world) stopAll() {
	for _, h := range w.hosts {
		if h.cancel != nil {
			h.stop()
		}
	}
	time.Sleep(5 * time.Second) // memberlist does not wait for a probe in flight
}

// count is how many times a running node has that verdict of another.
func (w *world) count(v Verdict) (n int) {
	for _, h := range w.hosts {
		if h.cancel == nil {
			continue
		}
		for _, m := range h.g.Members() {
			if m.Verdict == v {
				n++
			}
		}
	}
	return n
}

// of is what a running node has to say of another.
func (h *simHost) of(o *simHost) Member {
	m, _ := h.g.Lookup(o.id)
	return m
}

func (w *world) await(within time.Duration, what string, cond func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > within {
			w.t.Fatalf("after %s still not: %s (alive %d, daemon down %d, gone %d)", within, what, w.count(Alive), w.count(DaemonDown), w.count(Gone))
		}
		time.Sleep(5 * time.Millisecond) // in simulated time
	}
	return time.Since(began)
}

// convicted is how often anybody reached a verdict, since the beginning.
func (w *world) convicted(v Verdict) (n int) {
	for _, h := range w.hosts {
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

func (w *world) forget() {
	for _, h := range w.hosts {
		h.mu.Lock()
		h.history = nil
		h.mu.Unlock()
	}
}

// passes decides over one packet. w.mu is held.
func (w *world) passes(from, to *simHost) bool {
	return from.power && to.power && (w.cut == nil || !w.cut(from.n, to.n)) && rand.Float64() >= w.loss
}

// trip is a packet there and one back.
func (w *world) trip(from *simHost, addr netip.AddrPort, packets int) (*simHost, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	to, ok := w.at[addr]
	for i := 0; ok && i < packets; i++ {
		ok = w.passes(from, to) && w.passes(to, from)
	}
	return to, ok
}

func (s *simSocket) Write(b []byte, to netip.AddrPort) error {
	w := s.h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	w.bytes += len(b) + 28
	if w.tap != nil {
		w.tap(b)
	}
	if dest, ok := w.at[to]; ok && w.passes(s.h, dest) {
		w.deliver(dest, simPacket{append([]byte(nil), b...), s.addr})
	}
	return nil
}

func (w *world) deliver(dest *simHost, p simPacket) {
	delay := w.delay + time.Duration(rand.Int64N(int64(w.delay)+1))
	time.AfterFunc(delay, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if dest.sock == nil || !dest.power {
			return
		}
		select {
		case dest.sock.packets <- p:
		default:
		}
	})
}

func (s *simSocket) Shout(b []byte) {
	w := s.h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dest := range w.hosts {
		if dest != s.h && w.passes(s.h, dest) {
			w.deliver(dest, simPacket{append([]byte(nil), b...), s.addr})
		}
	}
}

func (s *simSocket) Read(buf []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.packets:
		return copy(buf, p.b), p.from, nil
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *simSocket) Accept() (net.Conn, error) {
	select {
	case c := <-s.streams:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Dial takes about eight packets to go through, as TCP with TLS does; when one
// is lost it is not done in time.
func (s *simSocket) Dial(ctx context.Context, addr netip.AddrPort, nodeID string) (net.Conn, error) {
	w := s.h.w
	to, ok := w.trip(s.h, addr, 4)
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if to.id != nodeID {
		return nil, fmt.Errorf("this is %s and not %s", to.id, nodeID)
	}
	w.mu.Lock()
	sock := to.sock
	w.mu.Unlock()
	if sock == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case sock.streams <- there:
		return here, nil
	default:
		return nil, errors.New("connection refused")
	}
}

func (s *simSocket) Knock(ctx context.Context, addr netip.AddrPort) bool {
	if _, ok := s.h.w.trip(s.h, addr, 1); !ok {
		<-ctx.Done()
		return false
	}
	select {
	case <-time.After(2 * s.h.w.delay):
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *simSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

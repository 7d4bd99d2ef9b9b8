package gossip

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestWellFormed(t *testing.T) {
	for name, c := range map[string]struct {
		packet []byte
		want   bool
	}{
		"empty":                 {nil, false},
		"ping":                  {[]byte{msgPing, 0x80}, true},
		"nack":                  {[]byte{msgNack, 0x80}, true},
		"push/pull":             {[]byte{msgPushPull, 0x80}, false},
		"user message":          {[]byte{8, 1}, false},
		"compressed":            {[]byte{9, 1}, false},
		"with a label":          {[]byte{244, 1, 'x'}, false},
		"checksum and ping":     {[]byte{msgCRC, 1, 2, 3, 4, msgPing}, true},
		"checksum of nothing":   {[]byte{msgCRC, 1, 2, 3, 4}, false},
		"two checksums":         {[]byte{msgCRC, 1, 2, 3, 4, msgCRC, 1, 2, 3, 4, msgPing}, false},
		"compound":              {[]byte{msgCompound, 2, 0, 1, 0, 1, msgPing, msgAck}, true},
		"compound of compounds": {[]byte{msgCompound, 1, 0, 2, msgCompound, 0}, false},
		"compound, compressed":  {[]byte{msgCompound, 1, 0, 1, 9}, false},
		"compound, truncated":   {[]byte{msgCompound, 2, 0, 1, 0, 9, msgPing}, false},
		"compound, no lengths":  {[]byte{msgCompound, 9, 0}, false},
		"compound, trailing":    {[]byte{msgCompound, 1, 0, 1, msgPing, 0}, false},
		"compound, empty part":  {[]byte{msgCompound, 1, 0, 0}, false},
	} {
		if got := wellFormed(c.packet); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The grammar is of a protocol that is not ours: everything that memberlist
// really sends, in trouble too, must be in it.
func TestGrammarFitsMemberlist(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 12)
		r := ring(t, "c", w.keys...)
		seen := map[byte]int{}
		w.tap = func(b []byte) {
			k, _, body, ok := r.open(b)
			if !ok {
				t.Error("a packet that does not open")
			}
			if k != kindMember {
				return
			}
			if !wellFormed(body) {
				t.Errorf("refused: %x", body)
			}
			if body[0] == msgCRC {
				body = body[5:]
			}
			seen[body[0]]++
			if body[0] == msgCompound {
				for i := range int(body[1]) {
					at := 2 + 2*int(body[1])
					for j := range i {
						at += int(body[2+2*j])<<8 + int(body[3+2*j])
					}
					seen[body[at]]++
				}
			}
		}
		w.startAll()
		defer w.stopAll()
		w.setLoss(0.3)
		w.hosts[3].kill()
		time.Sleep(5 * time.Second)
		for _, kind := range []byte{msgPing, msgIndirectPing, msgAck, msgNack, msgCompound, 3, 4, msgDead} {
			if seen[kind] == 0 {
				t.Errorf("no message of type %d was seen", kind)
			}
		}
	})
}

func TestCall(t *testing.T) {
	for _, addr := range []string{"10.0.0.1:2377", "[fd00::1]:1"} {
		in := call{42, netip.MustParseAddrPort(addr)}
		if out, ok := decodeCall(in.encode()); !ok || out != in {
			t.Errorf("%v became %v", in, out)
		}
	}
	for _, bad := range []string{"0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:5"} {
		if _, ok := decodeCall(call{1, netip.MustParseAddrPort(bad)}.encode()); ok {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestStreamIsGuarded(t *testing.T) {
	for name, c := range map[string]struct {
		first byte
		size  int
		want  int
	}{
		"push/pull":    {msgPushPull, 100, 100},
		"user message": {8, 100, 0},
		"compressed":   {9, 100, 0},
		"sealed":       {10, 100, 0},
		"without end":  {msgPushPull, maxStream + 1, maxStream},
	} {
		tr := newTransport(nil, nil, "me", simAddr(1))
		here, there := net.Pipe()
		s, ok := tr.guard(here, msgPushPull, msgPing)
		if !ok {
			t.Fatal("not taken")
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = there.Write(append([]byte{c.first}, make([]byte, c.size-1)...))
			_ = there.Close()
		}()
		got, err := io.ReadAll(s)
		_ = tr.Shutdown() // which also ends the stream
		<-sent
		if len(got) != c.want || (err != nil) != (c.want < c.size) {
			t.Errorf("%s: %d bytes and %v", name, len(got), err)
		}
	}
}

// live is a node with a running memberlist, in real time.
func live(t testing.TB) (*Gossip, *simSocket) {
	w := newWorld(nil, 2)
	s := &simSocket{h: w.hosts[0], addr: simAddr(1), packets: make(chan simPacket, 16), streams: make(chan net.Conn), closed: make(chan struct{})}
	g, err := New(Config{NodeID: "node000", ClusterID: "c", Keys: w.keys, Advertise: func() netip.AddrPort { return simAddr(1) }})
	if err != nil {
		t.Fatal(err)
	}
	g.open = func(context.Context) (network, error) { return s, nil }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for tick := time.NewTicker(time.Millisecond); g.current() == nil; {
		<-tick.C
	}
	return g, s
}

// FuzzPacket is everything a stranger can send: nobody opens it.
func FuzzPacket(f *testing.F) {
	g, s := live(f)
	good, err := ring(f, "c", testKey(2)).seal(kindPing, "x", call{1, simAddr(2)}.encode())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{format})
	f.Fuzz(func(t *testing.T, b []byte) {
		s.packets <- simPacket{b, simAddr(2)}
		if len(g.Members()) != 0 {
			t.Error("a stranger became a member")
		}
	})
}

// FuzzMember is everything a member gone bad can send in a packet.
func FuzzMember(f *testing.F) {
	_, s := live(f)
	r := ring(f, "c", testKey(1))
	f.Add(byte(kindMember), []byte{msgPing, 0x80})
	f.Add(byte(kindMember), []byte{msgCompound, 2, 0, 1, 0, 1, msgPing, msgAck})
	f.Add(byte(kindMember), append([]byte{4}, "\x86\xabIncarnation\x01\xa4Node\xa1x\xa4Addr\xc4\x04\x0a\x00\x00\x01\xa4Port\x01\xa4Meta\xc0\xa3Vsn\xc4\x06\x01\x05\x02\x00\x00\x00"...))
	f.Add(byte(kindMember), append([]byte{3}, "\x83\xabIncarnation\x09\xa4Node\xa7node000\xa4From\xa1x"...))
	f.Add(byte(kindPing), call{1, simAddr(2)}.encode())
	f.Add(byte(kindPong), call{1, simAddr(2)}.encode())
	f.Add(byte(kindDoubt), []byte("node001"))
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		packet, err := r.seal(kind(k), "node001", body)
		if errors.Is(err, errOversize) {
			t.Skip()
		}
		s.packets <- simPacket{packet, simAddr(2)}
	})
}

// FuzzStream is everything a member gone bad can send over a stream.
func FuzzStream(f *testing.F) {
	g, _ := live(f)
	f.Add([]byte{msgPushPull, 0x83})
	f.Add(append([]byte{msgPushPull}, "\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3\x87\xa4Name\xa1x\xa4Addr\xc4\x04\x0a\x00\x00\x01\xa4Port\x01\xa4Meta\xc0\xabIncarnation\x01\xa5State\x00\xa3Vsn\xc4\x06\x01\x05\x02\x00\x00\x00"...))
	f.Add(append([]byte{msgPing}, "\x82\xa5SeqNo\x01\xa4Node\xa7node000"...))
	f.Add([]byte{10, 0, 0, 0, 29})
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = there.Write(b)
			_ = there.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = io.Copy(io.Discard, there)
			_ = there.Close()
		}()
		g.current().transport.stream(here)
		<-sent
	})
}

func TestShoutGoesToTheWholeSegment(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.7.5/24": "192.168.7.255", "10.1.2.3/8": "10.255.255.255", "172.16.5.4/30": "172.16.5.7",
		"127.0.0.1/8": "", "10.0.0.1/31": "", "10.0.0.1/32": "", "fe80::1/64": "ff02::1%eth9", "fd00::1/64": "",
	} {
		ip, ipnet, err := net.ParseCIDR(in)
		if err != nil {
			t.Fatal(err)
		}
		ipnet.IP = ip
		got, ok := everybody(ipnet, "eth9")
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s %v", in, got, ok)
		}
	}
}

package wireguard

import (
	"bytes"
	"encoding/binary"
	"testing"
)

const timestamps = "\x01\x01\x08\x0a\x00\x00\x00\x01\x00\x00\x00\x02"

// large is a packet as the kernel hands it over, and what it says of it.
func large(k packet, size int) (virtio, []byte) {
	b := k.bytes()
	binary.LittleEndian.PutUint16(b[atTCP+16:], fold(pseudo4(b[atIP:], len(b)-atTCP)))
	h := virtio(make([]byte, tunnelHeader))
	h.setTunnelled(atUDP, atIP, atTCP, leastTCP+len(k.options), size)
	return h, b
}

func TestSplit(t *testing.T) {
	const size = 100
	for name, c := range map[string]struct {
		whole packet
		want  []packet
	}{
		"even": {
			packet{seq: 7, id: 3, data: content(200), flags: flagACK},
			[]packet{{seq: 7, id: 3, data: content(200)[:100], flags: flagACK}, {seq: 107, id: 4, data: content(200)[100:], flags: flagACK}},
		},
		"a rest, and TCP's options": {
			packet{seq: 7, data: content(101), flags: flagACK, options: timestamps},
			[]packet{{seq: 7, data: content(101)[:100], flags: flagACK, options: timestamps}, {seq: 107, id: 1, data: content(101)[100:], flags: flagACK, options: timestamps}},
		},
		"numbers begin again": {
			packet{seq: 1<<32 - 50, id: 1<<16 - 1, data: content(150), flags: flagACK},
			[]packet{{seq: 1<<32 - 50, id: 1<<16 - 1, data: content(150)[:100], flags: flagACK}, {seq: 50, data: content(150)[100:], flags: flagACK}},
		},
		"flags of the first and of the last": {
			packet{data: content(250), flags: flagACK | flagFIN | flagPSH | flagCWR},
			[]packet{
				{data: content(250)[:100], flags: flagACK | flagCWR},
				{seq: 100, id: 1, data: content(250)[100:200], flags: flagACK},
				{seq: 200, id: 2, data: content(250)[200:], flags: flagACK | flagFIN | flagPSH},
			},
		},
		"one": {
			packet{data: content(50), flags: flagACK | flagPSH},
			[]packet{{data: content(50), flags: flagACK | flagPSH}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := newSuper(large(c.whole, size))
			if !ok {
				t.Fatal("refused")
			}
			buf := make([]byte, 1500)
			for i, want := range c.want {
				if !s.more() {
					t.Fatalf("%d packets, not %d", i, len(c.want))
				}
				if got := buf[:s.next(buf)]; !bytes.Equal(got, want.bytes()) {
					t.Errorf("packet %d:\n%x\n%x", i, got, want.bytes())
				}
			}
			if s.more() {
				t.Errorf("more than %d packets", len(c.want))
			}
		})
	}
	t.Run("a tunnel without checksums", func(t *testing.T) {
		h, b := large(packet{data: content(150), flags: flagACK}, size)
		h[0] &^= sumsTunnel
		b[atUDP+6], b[atUDP+7] = 0, 0
		s, ok := newSuper(h, b)
		if !ok {
			t.Fatal("refused")
		}
		buf := make([]byte, 1500)
		if s.next(buf); buf[atUDP+6] != 0 || buf[atUDP+7] != 0 {
			t.Error("it has one now")
		}
	})
}

func TestNotSplit(t *testing.T) {
	for name, spoil := range map[string]func(h virtio, p []byte) []byte{
		"no size":                func(h virtio, p []byte) []byte { h[4], h[5] = 0, 0; return p },
		"larger than a buffer":   func(h virtio, p []byte) []byte { h[4], h[5] = 0xff, 0xff; return p },
		"another kind":           func(h virtio, p []byte) []byte { h[1] = 0x04 | 0x40; return p },
		"in no tunnel":           func(h virtio, p []byte) []byte { h[1] = 0x01; return p },
		"complete":               func(h virtio, p []byte) []byte { h[0] = 0; return p },
		"headers too early":      func(h virtio, p []byte) []byte { h[20] = 39; return p },
		"headers over others":    func(h virtio, p []byte) []byte { h[22] = atUDP + 7; return p },
		"headers out of order":   func(h virtio, p []byte) []byte { h[6] = atIP + 19; return p },
		"nothing but headers":    func(_ virtio, p []byte) []byte { return p[:leastTCP] },
		"cut off":                func(_ virtio, p []byte) []byte { return p[:atTCP] },
		"TCP's header too short": func(_ virtio, p []byte) []byte { p[atTCP+12] = 0x40; return p },
	} {
		t.Run(name, func(t *testing.T) {
			h, p := large(packet{data: content(150), flags: flagACK}, 100)
			p = spoil(h, p)
			if _, ok := newSuper(h, p); ok {
				t.Error("taken")
			}
		})
	}
}

// TestComplete has the checksum of a packet left to us, as the kernel does with
// one that is not large.
func TestComplete(t *testing.T) {
	want := packet{data: content(77), flags: flagACK}.bytes()
	h, p := large(packet{data: content(77), flags: flagACK}, 100)
	if !h.complete(p) || !bytes.Equal(p, want) {
		t.Errorf("%x\n%x", p, want)
	}
	if !virtio(make([]byte, plainHeader)).complete(p) || !bytes.Equal(p, want) {
		t.Error("a complete one was changed")
	}
	if h.complete(p[:atTCP+17]) {
		t.Error("the checksum is outside, and was written")
	}
}

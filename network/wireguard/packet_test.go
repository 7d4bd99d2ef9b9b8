package wireguard

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// packet is TCP in a tunnel, as it is on its way.
type packet struct {
	seq     uint32
	data    []byte
	flags   byte
	options string
	port    uint16
	id      uint16
}

// bytes makes a packet with right checksums, by the book.
func (k packet) bytes() []byte {
	b := make([]byte, leastTCP+len(k.options)+len(k.data))
	put := func(at, n int) { binary.BigEndian.PutUint16(b[at:], uint16(n)) }
	b[0], b[6], b[7] = 0x60, protoUDP, 64
	put(4, len(b)-atUDP)
	copy(b[8:], "\xfe\x80\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\xfe\x80\x00\x00\x00\x00\x00\x00\x11\x12\x13\x14\x15\x16\x17\x18")
	put(atUDP, 40000)
	put(atUDP+2, 4789)
	put(atUDP+4, len(b)-atUDP)
	copy(b[atVXLAN:], "\x08\x00\x00\x00\x00\x10\x01\x00")
	copy(b[atEther:], "\x02\x65\x01\x02\x03\x04\x02\x65\x05\x06\x07\x08\x08\x00")
	b[atIP], b[atIP+8], b[atIP+9] = 0x45, 63, protoTCP
	put(atIP+2, len(b)-atIP)
	put(atIP+4, int(k.id))
	put(atIP+6, dontFragment)
	copy(b[atIP+12:], "\x0a\x05\x00\x0b\x0a\x05\x00\x0c")
	put(atTCP, int(k.port))
	put(atTCP+2, 80)
	binary.BigEndian.PutUint32(b[atTCP+4:], k.seq)
	binary.BigEndian.PutUint32(b[atTCP+8:], 77)
	b[atTCP+12], b[atTCP+13] = byte(20+len(k.options))/4<<4, k.flags
	put(atTCP+14, 500)
	copy(b[leastTCP:], k.options)
	copy(b[leastTCP+len(k.options):], k.data)
	resum(b)
	return b
}

// resum sets the checksums, innermost first.
func resum(b []byte) {
	put := func(at int, sum uint16) { binary.BigEndian.PutUint16(b[at:], sum) }
	put(atIP+10, 0)
	put(atIP+10, ^slowSum(b[atIP:atTCP]))
	put(atTCP+16, 0)
	put(atTCP+16, ^slowSum(b[atIP+12:atIP+20], []byte{0, protoTCP}, word(len(b)-atTCP), b[atTCP:]))
	put(atUDP+6, 0)
	of := ^slowSum(b[8:40], []byte{0, protoUDP}, word(len(b)-atUDP), b[atUDP:])
	if of == 0 {
		of = 0xffff
	}
	put(atUDP+6, of)
}

func word(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// slowSum is RFC 1071's sum, word by word.
func slowSum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var of uint32
	for ; len(b) > 0; b = b[2:] {
		of += uint32(binary.BigEndian.Uint16(b))
		of = of>>16 + of&0xffff
	}
	return uint16(of)
}

func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestSum(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {0xff}, {1, 2}, bytes.Repeat([]byte{0xff}, 40), content(7), content(31), content(32), content(1400), content(65535)} {
		if got, want := fold(sum(0, b)), turned(int(slowSum(b))); uint64(got) != want {
			t.Errorf("%d bytes: %#x, not %#x", len(b), got, want)
		}
	}
	if got := fold(add(1<<64-1, 1<<64-1)); got != right {
		t.Errorf("carry lost: %#x", got)
	}
}

func TestIntact(t *testing.T) {
	whole := packet{data: content(99), flags: flagACK}.bytes()
	if _, ok := tunnelled(whole); !ok || !intact(whole) {
		t.Fatal("a right one is not")
	}
	for at := range whole {
		b := slices.Clone(whole)
		b[at] ^= 0x20
		// The rest of IPv6's header has no checksum, and is compared.
		if _, ok := tunnelled(b); ok && intact(b) && at > 4 && at != 7 {
			t.Errorf("damaged at %d, and nobody sees", at)
		}
	}
	for n := range whole {
		if _, ok := tunnelled(whole[:n]); ok {
			t.Errorf("%d bytes of it are a whole one", n)
		}
	}
	none := slices.Clone(whole)
	none[atUDP+6], none[atUDP+7] = 0, 0
	if intact(none) {
		t.Error("without the tunnel's checksum")
	}
}

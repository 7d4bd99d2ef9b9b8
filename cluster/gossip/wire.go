package gossip

import (
	"encoding/binary"
	"net/netip"
)

// The types of memberlist's messages that this package lets through. They are
// part of its wire protocol; TestGrammarFitsMemberlist compares.
const (
	msgIndirectPing = 1
	msgAck          = 2
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgNack         = 11
	msgCRC          = 12
	msgError        = 13
	msgPing         = 0
)

// wellFormed is memberlist's grammar for packets, as far as we use it: an
// optional checksum, then one message or a flat list of them. Compression and
// user messages are off, and a compound inside a compound is never sent; to
// unpack such things for a member gone bad could cost without limit.
func wellFormed(packet []byte) bool {
	if len(packet) > 5 && packet[0] == msgCRC {
		packet = packet[5:]
	}
	if len(packet) == 0 {
		return false
	}
	if packet[0] != msgCompound {
		return simple(packet)
	}
	if len(packet) < 2 {
		return false
	}
	n := int(packet[1])
	lengths, rest := packet[2:], []byte(nil)
	if len(lengths) < 2*n {
		return false
	}
	lengths, rest = lengths[:2*n], lengths[2*n:]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		size := int(binary.BigEndian.Uint16(lengths))
		if size > len(rest) || !simple(rest[:size]) {
			return false
		}
		rest = rest[size:]
	}
	return len(rest) == 0
}

// simple reports whether a message is of a type that holds no others.
func simple(msg []byte) bool {
	return len(msg) > 0 && (msg[0] <= msgDead || msg[0] == msgNack)
}

// call is the body of a ping and of its answer: the asker's number, and where
// the sender can be reached. The sender's own word on that is how a node that
// moved is followed.
type call struct {
	nonce uint64
	addr  netip.AddrPort
}

func (c call) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.nonce)
	b = binary.BigEndian.AppendUint16(b, c.addr.Port())
	return append(b, c.addr.Addr().AsSlice()...)
}

func decodeCall(b []byte) (call, bool) {
	if len(b) != 10+4 && len(b) != 10+16 {
		return call{}, false
	}
	ip, _ := netip.AddrFromSlice(b[10:])
	c := call{binary.BigEndian.Uint64(b), netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[8:]))}
	return c, usable(c.addr)
}

// usable reports whether an address could be somebody's.
func usable(a netip.AddrPort) bool {
	return a.Port() != 0 && a.Addr().IsValid() && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}

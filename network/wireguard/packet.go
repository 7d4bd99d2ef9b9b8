package wireguard

import (
	"encoding/binary"
	"math/bits"
)

// What nodes exchange on encrypted networks is IPv4 in VXLAN in UDP over IPv6,
// without options but TCP's. Where each header begins in such a packet:
const (
	atUDP    = 40
	atVXLAN  = atUDP + 8
	atEther  = atVXLAN + 8
	atIP     = atEther + 14
	atTCP    = atIP + 20
	leastTCP = atTCP + 20
)

const (
	protoTCP         = 6
	protoUDP         = 17
	protoDestination = 60 // IPv6's options for the receiver
	etherIPv4        = 0x0800
	dontFragment     = 0x4000
)

// TCP's flags.
const (
	flagFIN = 1
	flagPSH = 8
	flagACK = 16
	flagCWR = 128
)

// tunnelled tells whether a packet is TCP in a tunnel, in the form above and
// whole, and where its data begins.
func tunnelled(p []byte) (data int, ok bool) {
	if len(p) < leastTCP || p[0]>>4 != 6 || p[6] != protoUDP || p[atIP] != 0x45 || p[atIP+9] != protoTCP ||
		binary.BigEndian.Uint16(p[atIP-2:]) != etherIPv4 ||
		binary.BigEndian.Uint16(p[atIP+6:])&^dontFragment != 0 {
		return 0, false
	}
	data = atTCP + tcpHeader(p[atTCP:])
	ok = data >= leastTCP && data <= len(p) &&
		int(binary.BigEndian.Uint16(p[4:])) == len(p)-atUDP &&
		int(binary.BigEndian.Uint16(p[atUDP+4:])) == len(p)-atUDP &&
		int(binary.BigEndian.Uint16(p[atIP+2:])) == len(p)-atIP
	return data, ok
}

func tcpHeader(tcp []byte) int { return int(tcp[12]>>4) * 4 }

// intact tells whether the checksums of a packet that is tunnelled are right:
// all of them, since nobody looks at them once it is part of a larger one.
func intact(p []byte) bool {
	if p[atUDP+6] == 0 && p[atUDP+7] == 0 { // none, which no tunnel of ours sends
		return false
	}
	tcp := sum(0, p[atTCP:])
	return fold(sum(0, p[atIP:atTCP])) == right &&
		fold(add(tcp, pseudo4(p[atIP:], len(p)-atTCP))) == right &&
		fold(add(tcp, sum(pseudo6(p, len(p)-atUDP), p[atUDP:atTCP]))) == right
}

// right is what everything that a checksum covers comes to, with it.
const right = 0xffff

// sum adds 16-bit words. In either order of bytes that comes to the same, but
// for the order of the result's: so they are taken as little-endian, eight bytes
// at a time. Numbers of ours have to be turned round.
func sum(of uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 32; b = b[32:] {
		of, carry = bits.Add64(of, binary.LittleEndian.Uint64(b), carry)
		of, carry = bits.Add64(of, binary.LittleEndian.Uint64(b[8:]), carry)
		of, carry = bits.Add64(of, binary.LittleEndian.Uint64(b[16:]), carry)
		of, carry = bits.Add64(of, binary.LittleEndian.Uint64(b[24:]), carry)
	}
	for ; len(b) >= 8; b = b[8:] {
		of, carry = bits.Add64(of, binary.LittleEndian.Uint64(b), carry)
	}
	var rest [8]byte
	copy(rest[:], b)
	of, carry = bits.Add64(of, binary.LittleEndian.Uint64(rest[:]), carry)
	of, carry = bits.Add64(of, 0, carry)
	return of + carry
}

// add adds two sums.
func add(a, b uint64) uint64 {
	of, carry := bits.Add64(a, b, 0)
	return of + carry
}

func fold(of uint64) uint16 {
	for of > 0xffff {
		of = of>>16 + of&0xffff
	}
	return uint16(of)
}

func turned(n int) uint64 { return uint64(bits.ReverseBytes16(uint16(n))) }

// pseudo4 is the sum of what TCP's checksum covers of the header ahead, and
// pseudo6 of what UDP's does: addresses, protocol, and the length.
func pseudo4(ip []byte, length int) uint64 {
	return sum(turned(protoTCP)+turned(length), ip[12:20])
}

func pseudo6(ip []byte, length int) uint64 {
	return sum(turned(protoUDP)+turned(length), ip[8:40])
}

// setSum writes a checksum over a sum, in which the field itself was zero.
func setSum(field []byte, of uint64) { binary.LittleEndian.PutUint16(field, ^fold(of)) }

// setUDPSum is setSum where zero would say that there is none.
func setUDPSum(field []byte, of uint64) {
	if setSum(field, of); field[0] == 0 && field[1] == 0 {
		field[0], field[1] = 0xff, 0xff
	}
}

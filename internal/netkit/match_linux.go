package netkit

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Reg0 is the first of the sixteen 32-bit registers. Fields of a concatenated
// key lie in consecutive ones.
const Reg0 = unix.NFT_REG32_00

// Join makes one expression list of several.
func Join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// FromContainer matches packets that come in from a container.
func FromContainer() []expr.Any { return iface(expr.MetaKeyIIFNAME, expr.CmpOpEq) }

// NotFromContainer matches all others.
func NotFromContainer() []expr.Any { return iface(expr.MetaKeyIIFNAME, expr.CmpOpNeq) }

// ToContainer matches packets that leave for a container.
func ToContainer() []expr.Any { return iface(expr.MetaKeyOIFNAME, expr.CmpOpEq) }

// NotToContainer matches all others.
func NotToContainer() []expr.Any { return iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq) }

// FromTunnel matches packets that come in from another node, encrypted or not.
func FromTunnel() []expr.Any { return tunnel(expr.MetaKeyIIFNAME, expr.CmpOpEq) }

// NotFromTunnel matches all others.
func NotFromTunnel() []expr.Any { return tunnel(expr.MetaKeyIIFNAME, expr.CmpOpNeq) }

// ToTunnel matches packets that leave for another node.
func ToTunnel() []expr.Any { return tunnel(expr.MetaKeyOIFNAME, expr.CmpOpEq) }

// NotToTunnel matches all others.
func NotToTunnel() []expr.Any { return tunnel(expr.MetaKeyOIFNAME, expr.CmpOpNeq) }

// FromPlainTunnel matches what came in unencrypted.
func FromPlainTunnel() []expr.Any {
	return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, IfaceKey(Tunnel))
}

// FromEncryptedTunnel matches what came in encrypted.
func FromEncryptedTunnel() []expr.Any {
	return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, IfaceKey(EncryptedTunnel))
}

// ToNoEncryptedTunnel matches what leaves by anything else.
func ToNoEncryptedTunnel() []expr.Any {
	return ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, IfaceKey(EncryptedTunnel))
}

// ToPlainTunnel matches what leaves unencrypted.
func ToPlainTunnel() []expr.Any {
	return ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, IfaceKey(Tunnel))
}

// NotToLoopback matches what leaves the host, or goes to a container.
func NotToLoopback() []expr.Any {
	return ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, IfaceKey("lo"))
}

func tunnel(key expr.MetaKey, op expr.CmpOp) []expr.Any { return ifname(key, op, Tunnel) }

func iface(key expr.MetaKey, op expr.CmpOp) []expr.Any { return ifname(key, op, IfacePrefix) }

// ifname compares only as many bytes as the name has: a wildcard, unless it is
// filled up.
func ifname(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: Reg0},
		&expr.Cmp{Op: op, Register: Reg0, Data: []byte(name)},
	}
}

// Source loads the source address.
func Source(reg uint32) expr.Any { return header(reg, 12) }

// Dest loads the destination address.
func Dest(reg uint32) expr.Any { return header(reg, 16) }

func header(reg, offset uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

// Proto loads the transport protocol.
func Proto(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }

// DestPort loads the destination port, which TCP, UDP and SCTP have in the
// same place.
func DestPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// ToPort matches packets to one port of a protocol.
func ToPort(proto byte, port uint16) []expr.Any {
	return Join(IsProto(proto), []expr.Any{
		DestPort(Reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: []byte(PortKey(port)[:2])},
	})
}

// SourceIn matches the source address against a set.
func SourceIn(set string) []expr.Any { return []expr.Any{Source(Reg0), in(set, false)} }

// SourceNotIn is its opposite.
func SourceNotIn(set string) []expr.Any { return []expr.Any{Source(Reg0), in(set, true)} }

// DestIn matches the destination address against a set.
func DestIn(set string) []expr.Any { return []expr.Any{Dest(Reg0), in(set, false)} }

// DestNotIn is its opposite.
func DestNotIn(set string) []expr.Any { return []expr.Any{Dest(Reg0), in(set, true)} }

// PairIn matches source and destination together against a set.
func PairIn(set string) []expr.Any {
	return []expr.Any{Source(Reg0), Dest(Reg0 + 1), in(set, false)}
}

// PairNotIn is its opposite.
func PairNotIn(set string) []expr.Any {
	return []expr.Any{Source(Reg0), Dest(Reg0 + 1), in(set, true)}
}

func in(set string, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: Reg0, SetName: set, Invert: invert}
}

// within matches an address field against a prefix.
func within(field expr.Any, p netip.Prefix) []expr.Any {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		field,
		&expr.Bitwise{SourceRegister: Reg0, DestRegister: Reg0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// SourceLoopback matches what a process of the host sends from 127.0.0.1.
func SourceLoopback() []expr.Any { return within(Source(Reg0), loopback) }

// DestLoopback matches what is addressed to 127.0.0.1.
func DestLoopback() []expr.Any { return within(Dest(Reg0), loopback) }

// DestOtherLoopback matches the loopback network's addresses but for 127.0.0.1,
// which is what localhost means. Programs take the others to be undisturbed on:
// 127.0.0.53 is where many hosts ask for names.
func DestOtherLoopback() []expr.Any {
	return append(DestLoopback(), Dest(Reg0), &expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: Localhost.AsSlice()})
}

// DestGateway matches packets to the containers' gateway itself.
func DestGateway() []expr.Any { return within(Dest(Reg0), netip.PrefixFrom(Gateway, 32)) }

// NotToGateway matches all others.
func NotToGateway() []expr.Any {
	return []expr.Any{Dest(Reg0), &expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: Gateway.AsSlice()}}
}

// New matches the first packet of a connection.
func New() []expr.Any { return ctBits(expr.CtKeySTATE, expr.CtStateBitNEW, expr.CmpOpNeq) }

// NotNew matches all others, also those that are not tracked.
func NotNew() []expr.Any { return ctBits(expr.CtKeySTATE, expr.CtStateBitNEW, expr.CmpOpEq) }

// Established matches those that follow it, and the answers.
func Established() []expr.Any {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED, expr.CmpOpNeq)
}

// Invalid matches packets that conntrack can make nothing of.
func Invalid() []expr.Any { return ctBits(expr.CtKeySTATE, expr.CtStateBitINVALID, expr.CmpOpNeq) }

// dnatBit is IPS_DST_NAT of a connection's status.
const dnatBit = 1 << 5

// Redirected matches connections whose destination was rewritten.
func Redirected() []expr.Any { return ctBits(expr.CtKeySTATUS, dnatBit, expr.CmpOpNeq) }

// NotRedirected is its opposite.
func NotRedirected() []expr.Any { return ctBits(expr.CtKeySTATUS, dnatBit, expr.CmpOpEq) }

func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: Reg0},
		keep(bits),
		&expr.Cmp{Op: op, Register: Reg0, Data: make([]byte, 4)},
	}
}

// Entered matches connections that came in by another node.
func Entered() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: Reg0},
		keep(MarkMask),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: make([]byte, 4)},
	}
}

// Marked matches packets that carry the mark of a node, or with eq packets
// that carry none.
func Marked(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Reg0},
		keep(MarkMask),
		&expr.Cmp{Op: op, Register: Reg0, Data: make([]byte, 4)},
	}
}

// Unmark takes a node's mark off a packet.
func Unmark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Reg0},
		keep(^MarkMask),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Reg0, SourceRegister: true},
	}
}

// MarkAnswer gives a packet the mark of its connection.
func MarkAnswer() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: Reg0},
		keep(MarkMask),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Reg0, SourceRegister: true},
	}
}

func keep(bits uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: Reg0, DestRegister: Reg0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)}
}

// Asking matches packets from the side that began the connection.
func Asking() []expr.Any { return direction(0) }

// Answering matches packets from the other side.
func Answering() []expr.Any { return direction(1) }

func direction(d byte) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: Reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: []byte{d}},
	}
}

// SourceLocal matches what has an address of the host itself as its source.
func SourceLocal() []expr.Any {
	return addrType(&expr.Fib{Register: Reg0, FlagSADDR: true, ResultADDRTYPE: true})
}

// DestLocal matches what is addressed to the host itself.
func DestLocal() []expr.Any {
	return addrType(&expr.Fib{Register: Reg0, FlagDADDR: true, ResultADDRTYPE: true})
}

func addrType(fib *expr.Fib) []expr.Any {
	return []expr.Any{
		fib,
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// IsProto matches one transport protocol.
func IsProto(p byte) []expr.Any {
	return []expr.Any{Proto(Reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: []byte{p}}}
}

// Drop discards the packet.
func Drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Return leaves the chain.
func Return() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

// Jump continues in another chain, and goes on here unless that says otherwise.
func Jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// Goto continues in another chain for good.
func Goto(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

// Reject refuses as a closed port does. A rule for tcp comes first, since only
// TCP knows resets.
func Reject(why string, match []expr.Any) []Rule {
	return []Rule{
		{Why: why, Exprs: Join(match, IsProto(unix.IPPROTO_TCP), []expr.Any{
			&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
		})},
		{Why: why, Exprs: Join(match, []expr.Any{
			&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreach},
		})},
	}
}

const icmpPortUnreach = 3

// IfaceKey is an interface's name as the kernel compares it.
func IfaceKey(name string) string {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:len(b)-1], name)
	return string(b)
}

// AddrKey is an address as a key or as part of one.
func AddrKey(a netip.Addr) string { return string(a.AsSlice()) }

// PortKey is a port as a field of a key, padded to a register.
func PortKey(port uint16) string { return string([]byte{byte(port >> 8), byte(port), 0, 0}) }

// ProtoKey is a protocol as a field of a key.
func ProtoKey(proto byte) string { return string([]byte{proto, 0, 0, 0}) }

// IndexKey is a number made by the kernel, which is in the machine's order.
func IndexKey(i uint32) string { return string(binaryutil.NativeEndian.PutUint32(i)) }

// LastAddr is the highest address of a prefix.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>p.Bits()
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// Subnets fills an interval set with prefixes that do not overlap.
func Subnets(prefixes []netip.Prefix) Elements {
	out := Elements{}
	for _, p := range prefixes {
		out.Add(Element{Key: AddrKey(p.Masked().Addr())})
		if end := LastAddr(p).Next(); end.IsValid() {
			out.Add(Element{Key: AddrKey(end), End: true})
		}
	}
	return out
}

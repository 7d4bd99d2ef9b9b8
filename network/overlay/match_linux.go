package overlay

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// tunnelPort matches packets of the tunnel by their port.
func tunnelPort() []expr.Any {
	return netkit.Join(netkit.IsProto(unix.IPPROTO_UDP), []expr.Any{
		netkit.DestPort(netkit.Reg0), &expr.Lookup{SourceRegister: netkit.Reg0, SetName: setPort},
	})
}

// entry loads the mark of the node that sent a packet through the tunnel.
func entry() []expr.Any { return sentBy(mapEntries) }

// sentBy loads what a map has for that node.
func sentBy(name string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: netkit.Reg0, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: name, IsDestRegSet: true, DestRegister: netkit.Reg0},
	}
}

// clampMSS tells both ends of a TCP connection what fits the way between them,
// or they would find out by losing packets.
func clampMSS() []expr.Any {
	const flags, syn, mss = 13, 2, 2 // offset of the flags, the bit, the option's kind
	return netkit.Join(netkit.IsProto(unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: netkit.Reg0, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: netkit.Reg0, DestRegister: netkit.Reg0, Len: 1, Mask: []byte{syn}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: netkit.Reg0, Data: []byte{0}},
		&expr.Rt{Register: netkit.Reg0, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: netkit.Reg0, DestRegister: netkit.Reg0, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: netkit.Reg0, Type: mss, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	})
}

// sourceElsewhere matches when the way back to the sender is not the interface
// that the packet came in by. The /32 route of each container is thus also its
// permit, and the two can not disagree.
func sourceElsewhere() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: netkit.Reg0, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: netkit.Reg0, Data: make([]byte, 4)},
	}
}

package overlay

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// Whoever takes over a container should not even find the daemons: certificates
// and sealed packets keep it out, and what it can not reach it can not try.

const (
	setOwnPort = "daemon"  // protocol . port of this node's daemon
	setDaemons = "daemons" // address . protocol . port of the others'
)

var (
	typePort   = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	typeTarget = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
)

func daemonSets(d Daemons) []netkit.Set {
	own, peers := netkit.Elements{}, netkit.Elements{}
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		if d.Own != 0 {
			own.Add(netkit.Element{Key: netkit.ProtoKey(proto) + netkit.PortKey(d.Own)})
		}
		for _, p := range d.Peers {
			peers.Add(netkit.Element{Key: netkit.AddrKey(p.Addr()) + netkit.ProtoKey(proto) + netkit.PortKey(p.Port())})
		}
	}
	return []netkit.Set{
		{Name: setOwnPort, Key: typePort, Elements: own},
		{Name: setDaemons, Key: typeTarget, Elements: peers},
	}
}

// ownDaemon refuses containers at this node's daemon, by whichever of its
// addresses. It is asked of first packets.
func ownDaemon() []netkit.Rule {
	return netkit.Reject("the daemon's port is for nodes", netkit.Join([]expr.Any{
		netkit.Proto(netkit.Reg0), netkit.DestPort(netkit.Reg0 + 1),
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setOwnPort},
	}, netkit.FromContainer()))
}

// otherDaemons refuses them at the others'. It is asked of containers' first
// packets.
func otherDaemons() []netkit.Rule {
	return netkit.Reject("the daemons' ports are for nodes", []expr.Any{
		netkit.Dest(netkit.Reg0), netkit.Proto(netkit.Reg0 + 1), netkit.DestPort(netkit.Reg0 + 2),
		&expr.Lookup{SourceRegister: netkit.Reg0, SetName: setDaemons},
	})
}

package overlay

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// zonesName is the nftables table of the zones. It is apart from the other one
// since connections live by it: a packet that meets no zone is none of theirs.
const zonesName = "shoal_zones"

const mapZones = "zones" // MAC of a node's tunnel -> its zone

// zones tells connections apart by the node that they came in by. A client may
// use one port of its own towards two nodes, as a balancer in front of them does
// all the time: after they have redirected both to one task, nothing else tells
// them apart. Since answers are of no zone, connection tracking gives the second
// one another port before the task sees it.
func zones(peers []Peer) *netkit.Ruleset {
	elements := netkit.Elements{}
	for _, p := range peers {
		// By either tunnel: published ports lead by one of them alone.
		elements.Add(netkit.Element{Key: string(netkit.TunnelMAC(p.Addr)), Data: netkit.ZoneData(p.Zone)})
		elements.Add(netkit.Element{Key: string(netkit.EncryptedMAC(p.Addr)), Data: netkit.ZoneData(p.Zone)})
	}
	return &netkit.Ruleset{
		Table: zonesName,
		Sets:  []netkit.Set{{Name: mapZones, Key: nftables.TypeEtherAddr, Data: nftables.TypeMark, Elements: elements}},
		Chains: []netkit.Chain{{
			Name: "entry", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting, Priority: prioRaw,
			Rules: []netkit.Rule{{
				Why:   "each node's connections are a zone",
				Exprs: netkit.Join(netkit.FromTunnel(), sentBy(mapZones)),
				Raw:   netkit.AskerZone(),
			}},
		}},
	}
}

// setZones does without where the kernel has none: then two of a client's
// connections may meet, as they would in any such mesh.
func (o *Overlay) setZones() error {
	err := o.zones.Set(zones(o.want.Tunnel.Peers))
	if errors.Is(err, unix.EOPNOTSUPP) {
		if !o.zoneless {
			o.zoneless = true
			o.log.Warn("this kernel has no zones of connection tracking (NF_CONNTRACK_ZONES): a client that uses one port towards two nodes may lose a connection", zap.Error(err))
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("set zones: %w", err)
	}
	return nil
}

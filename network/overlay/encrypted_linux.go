package overlay

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
	"shoal/network/wireguard"
)

// encryptedID is the encrypted tunnel's VXLAN network.
const encryptedID = tunnelID + 1

// WirePort is WireGuard's UDP port: the one after the tunnel's.
func WirePort(tunnel uint16) uint16 { return tunnel + 1 }

// leastWire is what IPv6 asks of an interface: without it, WireGuard's device
// has no addresses.
const leastWire = 1280

// reachEncrypted makes the way to tasks of encrypted networks, or takes it away
// where there are none. While something is missing there is no way at all: the
// kernel takes the tunnel away with WireGuard's device, and the routes with it.
func (o *Overlay) reachEncrypted(s State) error {
	if o.wire == nil {
		return nil
	}
	if !s.encrypts() {
		if _, err := setEnd(netkit.EncryptedTunnel, nil); err != nil {
			return err
		}
		return o.wire.Remove()
	}
	mtu, err := s.Tunnel.wireMTU()
	if err != nil {
		return err
	}
	lower, err := o.wire.Set(s.wireConfig(mtu))
	if err != nil {
		return err
	}
	device, err := setEnd(netkit.EncryptedTunnel, s.encryptedEnd(lower, mtu))
	if err != nil {
		return err
	}
	return setWays(s.traffic(true), device)
}

func (t Tunnel) wireMTU() (int, error) {
	path, err := underlayMTU(t)
	if err != nil {
		return 0, err
	}
	if path-netkit.WireGuardOverhead < leastWire {
		return 0, fmt.Errorf("the way to other nodes takes packets of %d bytes, and encrypted networks need %d", path, leastWire+netkit.WireGuardOverhead)
	}
	return path - netkit.WireGuardOverhead, nil
}

// wireConfig has a peer for each key of each other node: one that it changes to
// is known before it is used.
func (s State) wireConfig(mtu int) wireguard.Config {
	c := wireguard.Config{Private: s.Keys.Private, Own: s.Keys.Own, Port: WirePort(s.Tunnel.Port), MTU: mtu}
	for _, p := range s.Tunnel.Peers {
		for _, k := range []wireguard.Key{p.Key, p.Next, p.Last} {
			if k != (wireguard.Key{}) {
				c.Peers = append(c.Peers, wireguard.Peer{Key: k, Endpoint: netip.AddrPortFrom(p.Addr, WirePort(s.Tunnel.Port))})
			}
		}
	}
	return c
}

// encryptedEnd is this node's end of the encrypted tunnel, whose packets leave
// by WireGuard's device alone: they go to link-local addresses there.
func (s State) encryptedEnd(lower, mtu int) *end {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = netkit.EncryptedTunnel, mtu-netkit.InnerOverhead, netkit.EncryptedMAC(s.Tunnel.Local)
	e := &end{device: &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: encryptedID, Port: int(s.Tunnel.Port), Learning: false,
		VtepDevIndex: lower, SrcAddr: wireguard.Address(s.Keys.Own[0]).AsSlice(),
	}}
	for _, p := range s.Tunnel.Peers {
		if p.Key != (wireguard.Key{}) {
			e.others = append(e.others, other{string(netkit.EncryptedMAC(p.Addr)), p.Addr, wireguard.Address(p.Key)})
		}
	}
	return e
}

// changeable tells whether a tunnel can be given another address to send from as
// it is: the encrypted one changes it with the node's key, and must not lose its
// routes over that.
func changeable(have, want *netlink.Vxlan) bool {
	return want.VtepDevIndex != 0 && len(have.SrcAddr) == net.IPv6len && len(want.SrcAddr) == net.IPv6len
}

// setSource changes where a tunnel sends from, and nothing else: the kernel
// refuses a request that names what can not be changed, even if it is the same.
func setSource(link *netlink.Vxlan, source net.IP) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VXLAN_LOCAL6, source)
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set the address that %s sends from to %s: %w", link.Attrs().Name, source, err)
	}
	// The kernel keeps the way of each entry, and the sender with it, for as long
	// as the route stands that it found.
	inside := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 64)
	route := &netlink.Route{
		LinkIndex: link.VtepDevIndex, Dst: netkit.IPNet(inside), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_KERNEL, Priority: kernelMetric,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("have %s look for its ways again: %w", link.Attrs().Name, err)
	}
	return nil
}

// kernelMetric is that of the routes that IPv6 addresses bring.
const kernelMetric = 256

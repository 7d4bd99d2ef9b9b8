package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// tunnelID is the VXLAN network of all nodes: the number of a cluster's first
// network, the ingress network. It never changes, even when the user replaces
// that network, for then the nodes would part for a moment.
const tunnelID = 4096

// end is this node's end of a tunnel, as it should be.
type end struct {
	device *netlink.Vxlan
	others []other
}

// other is the end at another node.
type other struct {
	mac  string
	hop  netip.Addr // how routes call it
	addr netip.Addr // where the tunnel's packets go
}

// plainEnd is that of the tunnel that everybody can read; nil without peers. It
// learns nothing from what it receives: who is where is for the managers to say.
func (s State) plainEnd() (*end, error) {
	t := s.Tunnel
	if len(t.Peers) == 0 {
		return nil, nil
	}
	mtu, err := underlayMTU(t)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = netkit.Tunnel, mtu-netkit.TunnelOverhead, netkit.TunnelMAC(t.Local)
	e := &end{device: &netlink.Vxlan{LinkAttrs: attrs, VxlanId: tunnelID, Port: int(t.Port), Learning: false}}
	here, err := ownAddrs()
	if err != nil {
		return nil, err
	}
	if here[t.Local] { // otherwise a router translates it, and we send as what we are
		e.device.SrcAddr = t.Local.AsSlice()
	}
	for _, p := range t.Peers {
		e.others = append(e.others, other{string(netkit.TunnelMAC(p.Addr)), p.Addr, p.Addr})
	}
	return e, nil
}

// setEnd makes the device of a tunnel, with an entry for each other end, or
// removes it when there is to be none. It gives the device's index.
func setEnd(name string, e *end) (index int, err error) {
	link, err := findTunnel(name)
	if err != nil {
		return 0, err
	}
	if e == nil {
		if link == nil {
			return 0, nil
		}
		return 0, removeTunnel(link)
	}
	want := e.device
	if link != nil && !sameDevice(link, want) {
		if err := removeTunnel(link); err != nil {
			return 0, err
		}
		link = nil
	}
	if link == nil {
		if err := netlink.LinkAdd(want); err != nil {
			return 0, fmt.Errorf("add tunnel %s on UDP port %d: %w", want.Name, want.Port, err)
		}
		if link, err = findTunnel(name); err != nil || link == nil {
			return 0, errors.Join(errors.New("tunnel is gone as soon as it was made"), err)
		}
	}
	if err := tuneTunnel(link, want); err != nil {
		return 0, err
	}
	if err := setForwarding(link, e); err != nil {
		return 0, err
	}
	return link.Attrs().Index, setNeighbours(link, e)
}

func findTunnel(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find tunnel %s: %w", name, err)
	}
	return link, nil
}

func removeTunnel(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove tunnel: %w", err)
	}
	return nil
}

// sameDevice compares what can not be changed in place.
func sameDevice(link netlink.Link, want *netlink.Vxlan) bool {
	have, ok := link.(*netlink.Vxlan)
	return ok && have.VxlanId == want.VxlanId && have.Port == want.Port &&
		(have.SrcAddr.Equal(want.SrcAddr) || changeable(have, want)) &&
		!have.Learning && !have.FlowBased && !have.Proxy && have.Group == nil && have.VtepDevIndex == want.VtepDevIndex
}

func tuneTunnel(link netlink.Link, want *netlink.Vxlan) error {
	name, have := want.Name, link.Attrs()
	// At once: what is sent from the old address meanwhile is lost.
	if v, ok := link.(*netlink.Vxlan); ok && !v.SrcAddr.Equal(want.SrcAddr) {
		if err := setSource(v, want.SrcAddr); err != nil {
			return err
		}
	}
	// First: below IPv6's least, the kernel forgets that IPv6 is off.
	if have.MTU != want.MTU {
		if err := netlink.LinkSetMTU(link, want.MTU); err != nil {
			return fmt.Errorf("set tunnel's MTU to %d: %w", want.MTU, err)
		}
	}
	v4 := []string{"net", "ipv4", "conf", name}
	err := errors.Join(
		netkit.Sysctl("1", append(v4, "forwarding")...),
		// Answers to what the host sent from 127.0.0.1 come in here.
		netkit.Sysctl("1", append(v4, "route_localnet")...),
		// Clients come in here although the way back to them, were it not for
		// their packets' mark, is another.
		netkit.Sysctl("1", append(v4, "src_valid_mark")...),
		netkit.Sysctl("0", append(v4, "send_redirects")...),
		netkit.Sysctl("0", append(v4, "accept_redirects")...),
	)
	// What nobody sends over it need not be guarded.
	if err6 := netkit.Sysctl("1", "net", "ipv6", "conf", name, "disable_ipv6"); !errors.Is(err6, os.ErrNotExist) {
		err = errors.Join(err, err6)
	}
	if err == nil && !bytes.Equal(have.HardwareAddr, want.HardwareAddr) {
		err = netlink.LinkSetHardwareAddr(link, want.HardwareAddr)
	}
	if err == nil && have.Flags&net.FlagUp == 0 {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set up tunnel: %w", err)
	}
	return nil
}

// underlayMTU is the largest packet that reaches every peer.
func underlayMTU(t Tunnel) (int, error) {
	least := 0
	links := map[int]int{}
	for _, p := range t.Peers {
		routes, err := netlink.RouteGet(p.Addr.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // not reachable now, so it limits nothing
		}
		mtu := routes[0].MTU
		if mtu == 0 {
			i := routes[0].LinkIndex
			if _, known := links[i]; !known {
				link, err := netlink.LinkByIndex(i)
				if err != nil {
					return 0, fmt.Errorf("find the interface towards %s: %w", p.Addr, err)
				}
				links[i] = link.Attrs().MTU
			}
			mtu = links[i]
		}
		if least == 0 || mtu < least {
			least = mtu
		}
	}
	if least == 0 {
		return netkit.DefaultMTU, nil
	}
	return max(least, minMTU), nil
}

// minMTU leaves room for the least that every IPv4 host must take.
const minMTU = 576 + netkit.TunnelOverhead

// reachable leaves out peers at an address that this host has itself, as when
// it took over that of a node which managers still have on record.
func (t Tunnel) reachable() (Tunnel, error) {
	if len(t.Peers) == 0 {
		return t, nil
	}
	own, err := ownAddrs()
	if err != nil {
		return t, err
	}
	t.Peers = slices.DeleteFunc(slices.Clone(t.Peers), func(p Peer) bool { return own[p.Addr] })
	t.Remotes = slices.DeleteFunc(slices.Clone(t.Remotes), func(r Remote) bool { return own[r.Via] })
	return t, nil
}

func ownAddrs() (map[netip.Addr]bool, error) {
	addrs, err := netkit.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, ok := netkit.Prefix(a.IPNet); ok {
			own[p.Addr()] = true
		}
	}
	return own, nil
}

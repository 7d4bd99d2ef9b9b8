package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// place is where something is: an address, by the hardware address that stands
// for it.
type place struct {
	mac string
	ip  netip.Addr
}

// setForwarding tells the tunnel where each other end is.
func setForwarding(link netlink.Link, e *end) error {
	return setNeighs(link, e.forwarding(), neighbour{
		Neigh: netlink.Neigh{Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT | unix.NUD_NOARP},
		via:   e.device.VtepDevIndex,
	})
}

// setNeighbours tells the routing where each next hop is.
func setNeighbours(link netlink.Link, e *end) error {
	return setNeighs(link, e.neighbours(), neighbour{Neigh: netlink.Neigh{Family: unix.AF_INET, State: unix.NUD_PERMANENT}})
}

func (e *end) forwarding() map[place]bool {
	out := map[place]bool{}
	for _, o := range e.others {
		out[place{o.mac, o.addr}] = true
	}
	return out
}

func (e *end) neighbours() map[place]bool {
	out := map[place]bool{}
	for _, o := range e.others {
		out[place{o.mac, o.hop}] = true
	}
	return out
}

func listNeighs(link netlink.Link, family int) (map[place]netlink.Neigh, error) {
	have, err := netkit.Dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(link.Attrs().Index, family) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours of %s: %w", link.Attrs().Name, err)
	}
	out := map[place]netlink.Neigh{}
	for _, n := range have {
		a, _ := netip.AddrFromSlice(n.IP)
		out[place{string(n.HardwareAddr), a.Unmap()}] = n
	}
	return out, nil
}

// setNeighs makes a table of the tunnel's equal to want. What is missing is set
// before what is wrong is removed: it takes the place of what it replaces, and
// no packet meets neither.
func setNeighs(link netlink.Link, want map[place]bool, like neighbour) error {
	have, err := listNeighs(link, like.Family)
	if err != nil {
		return err
	}
	known := map[netip.Addr]bool{}
	for at := range want {
		known[at.ip] = true
		if n, ok := have[at]; ok && n.State&unix.NUD_PERMANENT != 0 {
			continue
		}
		n := like
		n.LinkIndex, n.IP, n.HardwareAddr = link.Attrs().Index, at.ip.AsSlice(), net.HardwareAddr(at.mac)
		if err := n.set(); err != nil {
			return fmt.Errorf("neighbour %s of %s: %w", at.ip, link.Attrs().Name, err)
		}
	}
	for at, n := range have {
		switch {
		case want[at]:
			continue
		case like.Family == unix.AF_INET && (known[at.ip] || n.State&unix.NUD_NOARP != 0):
			continue // was replaced; or a multicast address, which the kernel knows
		}
		if err := (neighbour{n, like.via}).remove(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove neighbour %s of %s: %w", n.IP, link.Attrs().Name, err)
		}
	}
	return nil
}

// neighbour is an entry that may name the interface that the tunnel's packets
// to it leave by, which the library does not know of.
type neighbour struct {
	netlink.Neigh
	via int
}

func (n neighbour) set() error {
	return n.send(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

func (n neighbour) remove() error { return n.send(unix.RTM_DELNEIGH, 0) }

func (n neighbour) send(command, flags int) error {
	req := nl.NewNetlinkRequest(command, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{
		Family: uint8(n.Family), Index: uint32(n.LinkIndex), State: uint16(n.State), Type: uint8(n.Type), Flags: uint8(n.Flags),
	})
	ip := n.IP
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, ip))
	if n.HardwareAddr != nil {
		req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, n.HardwareAddr))
	}
	if n.via != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(n.via))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

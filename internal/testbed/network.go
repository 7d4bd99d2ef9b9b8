package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	groundName = "switch"
	clientName = "client"
	bridgeName = "br0"
	portName   = "eth0" // a host's one network interface
)

// makeGround makes the network: a bridge in a namespace of its own, which is
// also the hosts' gateway, and one cable from there to this machine. With the
// bridge out of this machine's namespace, no firewall or bridge setting here
// has a say in what hosts send each other, and ending one process removes it
// all.
//
// The gateway forwards and has nowhere to forward to, so that everything
// outside the bed is refused at once: an engine that is asked to pull from a
// registry fails within milliseconds and not after its time-outs.
func (b *Bed) makeGround() error {
	g := b.ground
	if err := g.hold(); err != nil {
		return err
	}
	if err := enter(g.pid, unix.CLONE_NEWNET, func() error {
		for key, value := range map[string]string{
			"ip_forward": "1",
			// Refusals are rationed otherwise, and the rest of them time out.
			"icmp_ratemask": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0); err != nil {
				return err
			}
		}
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0)
		if errors.Is(err, fs.ErrNotExist) { // no br_netfilter, nothing to switch off
			return nil
		}
		return err
	}); err != nil {
		return fmt.Errorf("set up the gateway: %w", err)
	}
	inside, err := g.netlink()
	if err != nil {
		return err
	}
	defer inside.Close()
	bridge := &netlink.Bridge{LinkAttrs: attrs(bridgeName)}
	if err := inside.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if err := raise(inside, "lo", nil); err != nil {
		return err
	}
	if err := raise(inside, bridgeName, b.network(gatewayNumber)); err != nil {
		return err
	}

	outside, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer outside.Close()
	if err := b.plug(b.state.link(), b.state.link(), netlink.NsPid(os.Getpid())); err != nil {
		return err
	}
	return raise(outside, b.state.link(), b.network(machineNumber))
}

// plug connects an interface in another namespace to the bridge; port is the
// bridge's end.
func (b *Bed) plug(port, name string, peer netlink.NsPid) error {
	ground, err := b.ground.netlink()
	if err != nil {
		return err
	}
	defer ground.Close()
	bridge, err := ground.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	la := attrs(port)
	la.MasterIndex = bridge.Attrs().Index
	la.Flags = net.FlagUp
	if err := ground.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: name, PeerNamespace: peer}); err != nil {
		return fmt.Errorf("plug in %s: %w", port, err)
	}
	return nil
}

func attrs(name string) netlink.LinkAttrs {
	la := netlink.NewLinkAttrs()
	la.Name = name
	return la
}

// network is the n-th address with the subnet's mask.
func (b *Bed) network(n int) *net.IPNet {
	return &net.IPNet{IP: b.state.address(n).AsSlice(), Mask: net.CIDRMask(b.state.Subnet.Bits(), 32)}
}

// raise gives a link its address, if it has one, and switches it on.
func raise(h *netlink.Handle, name string, address *net.IPNet) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if address != nil {
		if err := h.AddrReplace(link, &netlink.Addr{IPNet: address}); err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, address, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch %s on: %w", name, err)
	}
	return nil
}

// connect plugs the host into the bed's network.
func (h *Host) connect() error {
	if err := h.bed.plug(h.Name, portName, netlink.NsPid(h.pid)); err != nil {
		return err
	}
	inside, err := h.netlink()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := raise(inside, "lo", nil); err != nil {
		return err
	}
	address := &net.IPNet{IP: h.IP.AsSlice(), Mask: net.CIDRMask(h.bed.state.Subnet.Bits(), 32)}
	if err := raise(inside, portName, address); err != nil {
		return err
	}
	gateway := h.bed.state.address(gatewayNumber).AsSlice()
	if err := inside.RouteReplace(&netlink.Route{Gw: gateway}); err != nil {
		return fmt.Errorf("route to %s: %w", net.IP(gateway), err)
	}
	return nil
}

// LinkDown pulls the host's cable: a partition. LinkUp puts it back.
func (h *Host) LinkDown() error { return h.port((*netlink.Handle).LinkSetDown) }

// LinkUp puts the host's cable back.
func (h *Host) LinkUp() error { return h.port((*netlink.Handle).LinkSetUp) }

// port acts on the bridge's end of the cable, so that the host keeps its own
// settings and sees what a pulled cable shows.
func (h *Host) port(act func(*netlink.Handle, netlink.Link) error) error {
	ground, err := h.bed.ground.netlink()
	if err != nil {
		return err
	}
	defer ground.Close()
	link, err := ground.LinkByName(h.Name)
	if err != nil {
		return fmt.Errorf("find the cable of %s: %w", h.Name, err)
	}
	if err := act(ground, link); err != nil {
		return fmt.Errorf("switch the cable of %s: %w", h.Name, err)
	}
	return nil
}

// netlink opens a handle in the host's network namespace.
func (h *Host) netlink() (*netlink.Handle, error) {
	ns, err := netns.GetFromPid(h.pid)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of %s: %w", h.Name, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", h.Name, err)
	}
	return handle, nil
}

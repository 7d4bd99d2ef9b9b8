package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker/docker/api/types/swarm"
)

// interfaces names those that a node's addresses are on; "" for an address that
// is not one of this machine's, as where a router translates it.
type interfaces struct {
	Listen, Advertise, DataPath string
}

// located notes which interfaces the node's addresses are on now.
func (id identity) located(system []local) identity {
	id.On = interfaces{
		Listen:    holder(hostOf(id.ListenAddr), system),
		Advertise: holder(hostOf(id.AdvertiseAddr), system),
		DataPath:  holder(id.DataPathAddr, system),
	}
	return id
}

// moved is the node under the addresses that its interfaces have now. An address
// that this machine still has stays, and so does one that it never had. What can
// not be followed stays as it was, and the error says why.
func (id identity) moved(system []local, present func(iface string) bool) (identity, error) {
	var errs []error
	follow := func(what, addr string, on *string) string {
		next, iface, err := follow(addr, *on, system, present)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, addr, err))
			return addr
		}
		*on = iface
		return next
	}
	if host := hostOf(id.ListenAddr); host != "" {
		id.ListenAddr = withHost(id.ListenAddr, follow("listen address", host, &id.On.Listen))
	}
	id.AdvertiseAddr = withHost(id.AdvertiseAddr, follow("advertise address", hostOf(id.AdvertiseAddr), &id.On.Advertise))
	id.DataPathAddr = follow("data path address", id.DataPathAddr, &id.On.DataPath)

	id.Managers = slices.Clone(id.Managers)
	for i, p := range id.Managers {
		if p.NodeID == id.NodeID {
			id.Managers[i] = swarm.Peer{NodeID: p.NodeID, Addr: id.AdvertiseAddr}
		}
	}
	return id, errors.Join(errs...)
}

// follow finds what has become of an address: it is still here, or the interface
// that it was on has another one of its family, or that interface is gone and
// the machine has only one address left to choose. An interface without one is
// waited for: moving to another would be hasty while a machine starts.
func follow(addr, on string, system []local, present func(string) bool) (next, iface string, err error) {
	if now := holder(addr, system); now != "" || on == "" {
		return addr, now, nil
	}
	old, err := netip.ParseAddr(addr)
	if err != nil {
		return "", "", err
	}
	var family []local
	for _, l := range system {
		if l.addr.Is4() == old.Is4() {
			family = append(family, l)
		}
	}
	var found netip.Addr
	if !present(on) {
		found, err = choose(family)
	} else if found, _, err = resolve("interface", on, "", 0, family); err != nil && holds(on, family) == 0 {
		err = fmt.Errorf("interface %s, which had it, has no address now", on)
	}
	if err != nil {
		return "", "", err
	}
	return found.String(), holder(found.String(), system), nil
}

// holder is the interface that has an address, "" if none does.
func holder(addr string, system []local) string {
	for _, l := range system {
		if l.addr.String() == addr {
			return l.iface
		}
	}
	return ""
}

// holds counts the addresses of an interface.
func holds(iface string, system []local) (n int) {
	for _, l := range system {
		if l.iface == iface {
			n++
		}
	}
	return n
}

// hostOf is the address of host:port, "" for one that stands for all.
func hostOf(hostPort string) string {
	p, err := netip.ParseAddrPort(hostPort)
	if err != nil || p.Addr().IsUnspecified() {
		return ""
	}
	return p.Addr().Unmap().String()
}

// withHost is host:port with another host.
func withHost(hostPort, host string) string {
	p, err := netip.ParseAddrPort(hostPort)
	addr, err2 := netip.ParseAddr(host)
	if errors.Join(err, err2) != nil {
		return hostPort
	}
	return netip.AddrPortFrom(addr, p.Port()).String()
}

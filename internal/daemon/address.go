package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// defaultPort is the port of everything but the tunnels.
const defaultPort = 2377

// local is one address of this machine.
type local struct {
	iface string
	addr  netip.Addr
}

// systemAddresses lists the addresses that other machines may know this one by:
// not loopback, not link-local, and not those of container bridges.
func systemAddresses() ([]local, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []local
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || forContainers(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() {
				out = append(out, local{i.Name, p.Addr().Unmap()})
			}
		}
	}
	return out, nil
}

// forContainers tells the interfaces that engines make from those of the host.
func forContainers(name string) bool {
	for _, p := range []string{"docker", "br-", "veth", "shl"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// addresses are the ones a node listens on and is known by, from what the user
// said at init or join and what the machine has.
func addresses(listen, advertise, dataPath string, system []local) (identity, error) {
	var id identity
	listenAddr, port, err := resolve("listen address", listen, "0.0.0.0", defaultPort, system)
	if err != nil {
		return id, err
	}
	if advertise == "" && !listenAddr.IsUnspecified() {
		advertise = listenAddr.String()
	}
	var known netip.Addr
	advPort := port
	if advertise != "" {
		if known, advPort, err = resolve("advertise address", advertise, "", port, system); err != nil {
			return id, err
		}
	} else if known, err = choose(system); err != nil {
		return id, err
	}
	if known.IsUnspecified() || known.IsMulticast() {
		return id, invalid("advertise address must be a non-zero IP address or network interface (with optional port number), not %s", known)
	}
	path := known
	if dataPath != "" {
		if path, _, err = resolve("data path address", dataPath, "", 0, system); err != nil {
			return id, err
		}
	}
	id.ListenAddr = netip.AddrPortFrom(listenAddr, port).String()
	id.AdvertiseAddr = netip.AddrPortFrom(known, advPort).String()
	id.DataPathAddr = path.String()
	return id.located(system), nil
}

// resolve reads an address, or the name of an interface, with or without port.
func resolve(what, s, hostDefault string, portDefault uint16, system []local) (netip.Addr, uint16, error) {
	host, port := s, portDefault
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return netip.Addr{}, 0, invalid("%s %q: invalid port %q", what, s, p)
		}
		host, port = h, uint16(n)
	}
	if host == "" {
		host = hostDefault
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap(), port, nil
	}
	var found []netip.Addr
	for _, l := range system {
		if l.iface == host {
			found = append(found, l.addr)
		}
	}
	if v4 := only4(found); len(v4) > 0 {
		found = v4
	}
	switch len(found) {
	case 1:
		return found[0], port, nil
	case 0:
		return netip.Addr{}, 0, invalid("%s %q is neither an IP address nor an interface with one", what, s)
	}
	return netip.Addr{}, 0, invalid("%s: interface %s has more than one address (%s): name one of them", what, host, list(found))
}

// choose picks the address to advertise when the user named none: the only one
// there is, IPv4 before IPv6. The beginning of the message is Docker's: its
// command line adds how to specify one.
func choose(system []local) (netip.Addr, error) {
	all := make([]netip.Addr, 0, len(system))
	for _, l := range system {
		all = append(all, l.addr)
	}
	if v4 := only4(all); len(v4) > 0 {
		all = v4
	}
	switch len(all) {
	case 0:
		return netip.Addr{}, invalid("could not find the system's IP address")
	case 1:
		return all[0], nil
	}
	return netip.Addr{}, invalid("could not choose an IP address to advertise since this system has multiple addresses (%s)", list(all))
}

// invalid is a mistake of the caller, in the words of the message alone.
func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func only4(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			out = append(out, a)
		}
	}
	return out
}

func list(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}

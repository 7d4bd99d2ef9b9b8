package overlay

import (
	"bytes"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// Differences says what the kernel lacks of what was set last: what keeps
// traffic from its way, not what is too much. It changes nothing: Run does, and a
// difference that stays is one that Run can not mend, or that somebody makes again
// and again.
func (o *Overlay) Differences() ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want == nil {
		return nil, nil
	}
	var out []string
	tables := []*netkit.Table{o.table}
	if !o.zoneless {
		tables = append(tables, o.zones)
	}
	for _, t := range tables {
		text, err := t.Differs()
		if err != nil {
			return nil, err
		}
		if text != "" {
			out = append(out, text)
		}
	}
	routes, err := held(o.want.subnets(all))
	if err != nil {
		return nil, err
	}
	s := *o.want
	if s.Tunnel, err = s.Tunnel.reachable(); err != nil {
		return nil, err
	}
	plain, err := s.plainEnd()
	if err != nil {
		return nil, err
	}
	more, text, err := endDiffers(netkit.Tunnel, plain, s.traffic(false))
	if err != nil || text != "" {
		return nonEmpty(out, text), err // routes and the rest go with it
	}
	out, routes = append(out, more.lost...), append(routes, more.routes...)
	if o.wire != nil && s.encrypts() {
		more, text, err := o.encryptedDiffers(s)
		if err != nil {
			return out, err
		}
		out = append(nonEmpty(out, text), more.lost...)
		routes = append(routes, more.routes...)
	}
	lost, err := lostRoutes(routes)
	if err != nil {
		return nil, err
	}
	out = append(out, lost...)
	n, err := lostRules(returnRules(s))
	if n > 0 {
		out = append(out, fmt.Sprintf("%d routing rules for the way back to other nodes are missing", n))
	}
	return out, err
}

func nonEmpty(list []string, text string) []string {
	if text == "" {
		return list
	}
	return append(list, text)
}

// wanting is what a tunnel that is there lacks, and the routes that it should
// have.
type wanting struct {
	lost   []string
	routes []netlink.Route
}

// encryptedDiffers compares the encrypted tunnel.
func (o *Overlay) encryptedDiffers(s State) (w wanting, text string, err error) {
	mtu, err := s.Tunnel.wireMTU()
	if err != nil {
		return w, err.Error(), nil
	}
	lower, err := findTunnel(netkit.WireGuard)
	if err != nil {
		return w, "", err
	}
	if lower == nil {
		return w, "WireGuard's device " + netkit.WireGuard + " is missing: encrypted networks are cut off from other nodes", nil
	}
	return endDiffers(netkit.EncryptedTunnel, s.encryptedEnd(lower.Attrs().Index, mtu), s.traffic(true))
}

func endDiffers(name string, want *end, through traffic) (w wanting, text string, err error) {
	if want == nil {
		return w, "", nil
	}
	link, err := findTunnel(name)
	if err != nil {
		return w, "", err
	}
	if text := tunnelDiffers(want.device, link); text != "" {
		return w, text, nil
	}
	w.routes = through.routes(link.Attrs().Index)
	w.lost, err = lostNeighbours(want, link)
	return w, "", err
}

func tunnelDiffers(want *netlink.Vxlan, link netlink.Link) string {
	name := "tunnel " + want.Name
	switch {
	case link == nil:
		return name + " is missing: no task of another node can be reached over it"
	case !sameDevice(link, want) || !link.(*netlink.Vxlan).SrcAddr.Equal(want.SrcAddr):
		return name + " is not as it should be"
	case link.Attrs().Flags&net.FlagUp == 0:
		return name + " is down"
	case link.Attrs().MTU != want.MTU:
		return fmt.Sprintf("%s has MTU %d, not %d", name, link.Attrs().MTU, want.MTU)
	case !bytes.Equal(link.Attrs().HardwareAddr, want.HardwareAddr):
		return fmt.Sprintf("%s has the address %s, not %s", name, link.Attrs().HardwareAddr, want.HardwareAddr)
	}
	return ""
}

func lostNeighbours(e *end, link netlink.Link) ([]string, error) {
	var out []string
	for _, of := range []struct {
		family int
		want   map[place]bool
		what   string
	}{{unix.AF_BRIDGE, e.forwarding(), "forwarding entry"}, {unix.AF_INET, e.neighbours(), "neighbour"}} {
		have, err := listNeighs(link, of.family)
		if err != nil {
			return nil, err
		}
		for at := range of.want {
			if _, ok := have[at]; !ok {
				out = append(out, fmt.Sprintf("the %s %s of tunnel %s is missing", of.what, at.ip, e.device.Name))
			}
		}
	}
	return out, nil
}

// maxNamed bounds how many routes are named one by one.
const maxNamed = 3

func lostRoutes(want []netlink.Route) ([]string, error) {
	filter := netlink.Route{Protocol: netkit.RouteProtocol}
	have, err := netkit.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	known := map[routeID]netlink.Route{}
	for _, r := range have {
		known[idOf(r)] = r
	}
	var out []string
	lost := 0
	for _, r := range want {
		id := idOf(r)
		if h, ok := known[id]; ok && h.LinkIndex == r.LinkIndex && h.Gw.Equal(r.Gw) && h.Type == r.Type {
			continue
		}
		if lost++; lost <= maxNamed {
			out = append(out, fmt.Sprintf("the route to %s is missing", id.dst))
		}
	}
	if lost > maxNamed {
		out = append(out, fmt.Sprintf("%d more routes are missing", lost-maxNamed))
	}
	return out, nil
}

func lostRules(want map[rule]bool) (int, error) {
	have, err := netkit.Dump(func() ([]netlink.Rule, error) { return netlink.RuleList(unix.AF_INET) })
	if err != nil {
		return 0, fmt.Errorf("list routing rules: %w", err)
	}
	lost := len(want)
	seen := map[rule]bool{}
	for _, h := range have {
		if h.Protocol != uint8(netkit.RouteProtocol) {
			continue
		}
		if r, ok := observedRule(h); ok && want[r] && !seen[r] {
			seen[r] = true
			lost--
		}
	}
	return lost, nil
}

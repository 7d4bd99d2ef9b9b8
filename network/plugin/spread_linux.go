package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/internal/api"
	"shoal/internal/netkit"
)

// A network may have several subnets, and get another one while containers run on
// it. Each of a container's interfaces has one of them on-link by its address. The
// others of that network are on-link there by routes: by the default route they
// would be reached by another network's interface, from an address that is a
// stranger to them, or, without one, not at all.

// takeTime is how long an engine may take to move an interface to its container
// after it was told of it.
const takeTime = 2 * time.Second

// Set takes in which subnets the networks have. Containers that run here get a way
// to those that are new.
func (p *Plugin) Set(s *api.NodeState) error {
	now := map[string][]netip.Prefix{}
	for id, n := range s.Networks {
		for _, sub := range n.Subnets {
			if sub.Prefix.Addr().Is4() {
				now[id] = append(now[id], sub.Prefix.Masked())
			}
		}
	}
	if maps.EqualFunc(p.records.subnets(), now, slices.Equal) {
		return nil
	}
	if err := p.records.change(func(c *content) { c.Subnets = now }); err != nil {
		return err
	}
	for id := range p.records.endpoints() {
		p.spreadOne(id)
	}
	select {
	case p.grown <- struct{}{}: // and those that are just being started
	default:
	}
	return nil
}

// around gives the subnet that an address lies in, zero if it is not known, and the
// others of its network. No two networks have one address.
func (p *Plugin) around(a netip.Addr) (own netip.Prefix, others []netip.Prefix) {
	for _, subnets := range p.records.subnets() {
		i := slices.IndexFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
		if i >= 0 {
			return subnets[i], slices.Concat(subnets[:i], subnets[i+1:])
		}
	}
	return netip.Prefix{}, nil
}

// spreadOne looks the endpoint up again under the lock: it may have left.
func (p *Plugin) spreadOne(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.records.endpoint(id)
	if !ok || e.Sandbox == "" {
		return
	}
	if err := p.spread(id, e); err != nil {
		p.log.Warn("a container does not reach all subnets of its network", zap.Stringer("address", e.Addr.Addr()), zap.Error(err))
	}
}

// spread gives a container its routes to the other subnets of an endpoint's
// network. One whose engine has not taken the interface yet was told of them, or
// is looked at again.
func (p *Plugin) spread(id string, e Endpoint) error {
	_, others := p.around(e.Addr.Addr())
	if len(others) == 0 || linkExists(netkit.PeerIface(id)) {
		return nil
	}
	host, err := netlink.LinkByName(netkit.HostIface(id))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", netkit.HostIface(id), err)
	}
	ns, err := netns.GetFromPath(e.Sandbox)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has just ended
	}
	if err != nil {
		return fmt.Errorf("open its namespace: %w", err)
	}
	defer func() { _ = ns.Close() }()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter its namespace %s: %w", e.Sandbox, err)
	}
	defer inside.Close()
	link, err := inside.LinkByIndex(host.Attrs().ParentIndex) // of a pair, the other end
	if err != nil {
		return fmt.Errorf("find its end of %s: %w", netkit.HostIface(id), err)
	}
	if mac, err := net.ParseMAC(e.MAC); err != nil || !bytes.Equal(mac, link.Attrs().HardwareAddr) {
		return fmt.Errorf("its end of %s is not there: %s has %s, not %s", netkit.HostIface(id), link.Attrs().Name, link.Attrs().HardwareAddr, e.MAC)
	}
	for _, s := range others {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: netkit.IPNet(s), Scope: netlink.SCOPE_LINK}
		if err := inside.RouteReplace(route); err != nil {
			return fmt.Errorf("route %s: %w", s, err)
		}
	}
	return nil
}

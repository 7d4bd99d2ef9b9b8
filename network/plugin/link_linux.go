package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// keepEvery is how often interfaces are checked although nothing said that
// they changed.
const keepEvery = 30 * time.Second

// hardwareAddr makes an endpoint's MAC from its ID. One made from the address
// would give a reused address the same MAC on another host, and stale
// neighbour entries there would look right.
func hardwareAddr(endpointID string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(endpointID))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac
}

func linkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// attach makes the pair of interfaces of an endpoint, or completes one that is
// half made. The container's end waits for the engine to take it.
func attach(id string, e Endpoint, siblings map[string]Endpoint, mtu int) error {
	host, peer := netkit.HostIface(id), netkit.PeerIface(id)
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", id, err)
	}
	if !linkExists(peer) {
		// The engine has the other end of an old pair, or there is none.
		if err := detach(id); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = host, mtu
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerHardwareAddr: mac, PeerMTU: uint32(mtu)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add interface pair %s: %w", host, err)
		}
	}
	return connect(id, e, siblings)
}

// connect makes the host's end of a pair ready: a router with one container
// behind it.
func connect(id string, e Endpoint, siblings map[string]Endpoint) error {
	name := netkit.HostIface(id)
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := tune(name); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	if err := netkit.EnsureGateway(); err != nil {
		return err
	}
	if err := neighbour(link, e.MAC, e); err != nil {
		return err
	}
	route, err := way(link, e, siblings)
	if err != nil {
		return err
	}
	// Replace: an interface that a dead container left must not keep the address.
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s to %s: %w", e.Addr.Addr(), name, err)
	}
	return nil
}

// tune sets what makes the host answer for the whole network, and for nothing
// else, on a container's interface.
func tune(name string) error {
	v4 := []string{"net", "ipv4", "conf", name}
	err := errors.Join(
		// Everyone else on the subnet is behind us.
		netkit.Sysctl("1", append(v4, "proxy_arp")...),
		netkit.Sysctl("0", "net", "ipv4", "neigh", name, "proxy_delay"),
		netkit.Sysctl("1", append(v4, "forwarding")...),
		// Answers to what the host sent from 127.0.0.1 come in here; the
		// firewall drops what a container itself addresses there.
		netkit.Sysctl("1", append(v4, "route_localnet")...),
		// A container on several networks may answer by another interface than
		// the one that its address is of; the firewall knows which are its.
		netkit.Sysctl("2", append(v4, "rp_filter")...),
		// A container that reaches itself through the mesh leaves by the way
		// it came, which would make the host tell it of a shorter one.
		netkit.Sysctl("0", append(v4, "send_redirects")...),
		netkit.Sysctl("0", append(v4, "accept_redirects")...),
	)
	// IPv6's link-local addresses would be a way round the firewall.
	if err6 := netkit.Sysctl("1", "net", "ipv6", "conf", name, "disable_ipv6"); !errors.Is(err6, os.ErrNotExist) {
		err = errors.Join(err, err6)
	}
	return err
}

// detach removes an endpoint's interfaces, and with them its route.
func detach(id string) error {
	for _, name := range []string{netkit.HostIface(id), netkit.PeerIface(id)} {
		link, err := netlink.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove interface %s: %w", name, err)
		}
	}
	return nil
}

// keep repairs interfaces and routes that somebody changed: at once when a
// route of ours is removed, and now and then in any case.
func (p *Plugin) keep(ctx context.Context) error {
	routes := make(chan netlink.RouteUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{
		ErrorCallback: func(err error) { p.log.Debug("route events", zap.Error(err)) },
	}); err != nil {
		p.log.Warn("can not watch routes", zap.Error(err))
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	p.repair()
	var taken <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.repair()
		case <-p.grown:
			taken = time.After(takeTime)
		case <-taken:
			taken = nil
			p.repair()
		case u, ok := <-routes:
			if !ok {
				routes = nil // the clock goes on
			} else if u.Type == unix.RTM_DELROUTE && u.Protocol == netkit.RouteProtocol {
				for len(routes) > 0 {
					<-routes // one repair is for all that happened by now
				}
				p.repair()
			}
		}
	}
}

func (p *Plugin) repair() {
	for id := range p.records.endpoints() {
		if err := p.repairOne(id); err != nil {
			p.log.Warn("can not repair a container's interface", zap.String("endpoint", id), zap.Error(err))
		}
	}
}

// repairOne looks the endpoint up again under the lock: it may have left.
func (p *Plugin) repairOne(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.records.endpoint(id)
	if !ok || e.Sandbox == "" || !linkExists(netkit.HostIface(id)) {
		return nil
	}
	return errors.Join(connect(id, e, p.siblings(id, e)), p.spread(id, e))
}

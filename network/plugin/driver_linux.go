package plugin

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"go.uber.org/zap"

	"shoal/internal/netkit"
)

// Options as the engine sends them: those of `network create -o` are nested
// under a key of its own.
const (
	genericOptions = "com.docker.network.generic"
	internalOption = "com.docker.network.internal"
)

type ipamData struct {
	Pool    string
	Gateway string
}

type createNetworkRequest struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []ipamData
}

func (p *Plugin) createNetwork(req createNetworkRequest) (any, error) {
	generic, _ := req.Options[genericOptions].(map[string]any)
	id, _ := generic[OptionNetworkID].(string)
	if id == "" {
		return nil, fmt.Errorf("networks of driver %s are made by the cluster, for its own tasks", Driver)
	}
	n := Network{ID: id}
	n.Internal, _ = req.Options[internalOption].(bool)
	n.Internal = n.Internal || generic[OptionInternal] == "true"
	n.Encrypted = generic[OptionEncrypted] == "true"
	if s, ok := generic[OptionMTU].(string); ok {
		mtu, err := strconv.Atoi(s)
		if err != nil || mtu < 576 || mtu > 65535 {
			return nil, fmt.Errorf("option %s: %q is not an MTU", OptionMTU, s)
		}
		n.MTU = mtu
	}
	for _, d := range req.IPv4Data {
		subnet, err := netip.ParsePrefix(d.Pool)
		if err != nil || !subnet.Addr().Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 subnet", d.Pool)
		}
		n.Pools = append(n.Pools, subnet.Masked())
	}
	return struct{}{}, p.records.change(func(c *content) { c.Networks[req.NetworkID] = n })
}

type networkRequest struct{ NetworkID string }

func (p *Plugin) deleteNetwork(req networkRequest) (any, error) {
	if _, ok := p.records.network(req.NetworkID); !ok {
		return struct{}{}, nil
	}
	return struct{}{}, p.records.change(func(c *content) { delete(c.Networks, req.NetworkID) })
}

type createEndpointRequest struct {
	NetworkID, EndpointID string
	Interface             struct{ Address, MacAddress string }
}

func (p *Plugin) createEndpoint(req createEndpointRequest) (any, error) {
	addr, err := netip.ParsePrefix(req.Interface.Address)
	if err != nil || !addr.Addr().Is4() {
		return nil, fmt.Errorf("endpoint %s has no IPv4 address (%q)", req.EndpointID, req.Interface.Address)
	}
	e := Endpoint{NetworkID: req.NetworkID, Addr: addr, MAC: req.Interface.MacAddress}
	// The engine takes a value back only where it sent none.
	answer := map[string]string{}
	if e.MAC == "" {
		e.MAC = hardwareAddr(req.EndpointID).String()
		answer["MacAddress"] = e.MAC
	}
	err = p.records.change(func(c *content) { c.Endpoints[req.EndpointID] = e })
	return map[string]any{"Interface": answer}, err
}

type endpointRequest struct{ NetworkID, EndpointID, SandboxKey string }

type joinResponse struct {
	InterfaceName         struct{ SrcName, DstPrefix string }
	Gateway               string        `json:",omitempty"`
	StaticRoutes          []staticRoute `json:",omitempty"`
	DisableGatewayService bool
}

type staticRoute struct {
	Destination string
	RouteType   int // routeOnLink
	NextHop     string
}

// routeOnLink is libnetwork's CONNECTED.
const routeOnLink = 1

func (p *Plugin) join(req endpointRequest) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.records.endpoint(req.EndpointID)
	if !ok {
		return nil, fmt.Errorf("endpoint %s is not known; create the container anew", req.EndpointID)
	}
	n, _ := p.records.network(req.NetworkID) // without its record, one that names nothing
	if n.MTU == 0 {
		var err error
		if n.MTU, err = netkit.ContainerMTU(n.Encrypted); err != nil {
			return nil, err
		}
	}
	e.Sandbox = req.SandboxKey
	siblings := p.siblings(req.EndpointID, e)
	if err := attach(req.EndpointID, e, siblings, n.MTU); err != nil {
		return nil, errors.Join(err, detach(req.EndpointID))
	}
	if err := relate(req.EndpointID, e, siblings); err != nil {
		return nil, errors.Join(err, detach(req.EndpointID))
	}
	if err := p.records.change(func(c *content) { c.Endpoints[req.EndpointID] = e }); err != nil {
		return nil, errors.Join(err, detach(req.EndpointID))
	}
	var resp joinResponse
	resp.InterfaceName.SrcName, resp.InterfaceName.DstPrefix = netkit.PeerIface(req.EndpointID), "eth"
	// Or the engine would add an interface of its own for the way out.
	resp.DisableGatewayService = true
	host, out := p.leaves(n, e, siblings)
	if host {
		resp.StaticRoutes = []staticRoute{{Destination: netkit.Gateway.String() + "/32", RouteType: routeOnLink}}
	}
	_, others := p.around(e.Addr.Addr())
	for _, s := range others {
		resp.StaticRoutes = append(resp.StaticRoutes, staticRoute{Destination: s.String(), RouteType: routeOnLink})
	}
	if out {
		resp.Gateway = nextHop(e.Addr).String()
	}
	if p.addrs != nil {
		p.addrs.Joined(n.ID, e.Addr.Addr())
	}
	return resp, nil
}

// leaves tells whether an endpoint is to have its container's route to the host,
// and the one to everywhere else. Each is there once: engines fail on a second.
// Engines join networks in any order, and what a container answers a datagram
// with, where it does not say itself, is the address on that endpoint: for a task
// it has to be the one that others reach it at.
func (p *Plugin) leaves(n Network, e Endpoint, siblings map[string]Endpoint) (host, out bool) {
	if p.addrs != nil {
		if yes, known := p.addrs.WayOut(n.ID, e.Addr.Addr()); known {
			return yes, yes && !n.Internal
		}
	}
	return len(siblings) == 0, !n.Internal && !p.hasWayOut(siblings)
}

// hasWayOut tells whether one of a container's endpoints has the default route.
func (p *Plugin) hasWayOut(endpoints map[string]Endpoint) bool {
	for _, e := range endpoints {
		if n, ok := p.records.network(e.NetworkID); ok && !n.Internal {
			return true
		}
	}
	return false
}

// nextHop is an address that a container sends to what is not on its subnet. The
// host answers ARP for all of them, so any but its own will do; one of the subnet
// is reachable by the container's own interface, in whatever order the engine
// sets up those of several networks.
func nextHop(addr netip.Prefix) netip.Addr {
	if addr.Bits() > 30 {
		return netkit.Gateway
	}
	hop := addr.Masked().Addr().Next()
	if hop == addr.Addr() {
		hop = hop.Next()
	}
	return hop
}

func (p *Plugin) leave(req endpointRequest) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.records.endpoint(req.EndpointID)
	if err := p.takeAway(req.EndpointID, e); err != nil {
		return nil, err
	}
	if !ok || e.Sandbox == "" {
		return struct{}{}, nil
	}
	e.Sandbox = ""
	return struct{}{}, p.records.change(func(c *content) { c.Endpoints[req.EndpointID] = e })
}

// takeAway removes an endpoint's interfaces. That others of the container can not
// do without it at once must not keep it: repair comes back to them.
func (p *Plugin) takeAway(id string, e Endpoint) error {
	if err := part(p.siblings(id, e)); err != nil {
		p.log.Warn("can not part a container's interfaces; it is tried again", zap.String("endpoint", id), zap.Error(err))
	}
	return detach(id)
}

func (p *Plugin) deleteEndpoint(req endpointRequest) (any, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.records.endpoint(req.EndpointID)
	if err := p.takeAway(req.EndpointID, e); err != nil {
		return nil, err
	}
	if !ok {
		return struct{}{}, nil
	}
	return struct{}{}, p.records.change(func(c *content) { delete(c.Endpoints, req.EndpointID) })
}

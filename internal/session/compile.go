package session

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// endpoints is how every service is reached, kept between changes so that only
// the services that something happened to are looked at again. An endpoint
// that comes out the same keeps its pointer, and costs the nodes nothing.
type endpoints map[string]*api.Endpoint

// refresh gives the endpoints with those that the changes concern recomputed,
// and the tasks that are in none any more. The old ones stay as they are:
// sessions may be reading them.
func (old endpoints) refresh(v *store.View, dirty []store.Dirty, all bool) (e endpoints, left []string) {
	e = maps.Clone(old)
	services := map[string]bool{}
	if all {
		for id := range e {
			services[id] = true
		}
		for s := range v.Services.All() {
			services[s.ID] = true
		}
	}
	for _, d := range dirty {
		switch d.Kind {
		case api.KindService:
			services[d.ID] = true
		case api.KindTask:
			if old, ok := d.Old.(*api.Task); ok {
				services[old.ServiceID] = true
			}
			if t, ok := v.Tasks.Get(d.ID); ok {
				services[t.ServiceID] = true
			}
		}
	}
	for id := range services {
		s, ok := v.Services.Get(id)
		if !ok {
			left = append(left, without(e[id], nil)...)
			delete(e, id)
			continue
		}
		if n := endpoint(s, v); !reflect.DeepEqual(e[id], n) {
			left = append(left, without(e[id], n)...)
			e[id] = n
		}
	}
	return e, left
}

// without lists the tasks behind an endpoint that are not behind its next form.
func without(old, next *api.Endpoint) (left []string) {
	if old == nil {
		return nil
	}
	for _, b := range old.Backends {
		if !next.Serves(b.TaskID) {
			left = append(left, b.TaskID)
		}
	}
	return left
}

// endpoint says how one service is reached now.
func endpoint(s *api.Service, v *store.View) *api.Endpoint {
	e := &api.Endpoint{ServiceID: s.ID, ServiceName: s.Spec.Name}
	e.ProxyProtocol = s.Settings().ProxyProtocol
	for _, p := range s.Endpoint.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			continue
		}
		e.Ports = append(e.Ports, api.Port{Protocol: string(p.Protocol), Target: uint16(p.TargetPort), Published: uint16(p.PublishedPort)})
	}
	for _, vip := range s.Endpoint.VirtualIPs {
		if p, err := netip.ParsePrefix(vip.Addr); err == nil {
			e.VIPs = append(e.VIPs, api.VIP{NetworkID: vip.NetworkID, Addr: p.Addr()})
		}
	}
	e.Names = names(s, v)
	for t := range v.Tasks.By(store.ByService, s.ID) {
		if serves(t) {
			e.Backends = append(e.Backends, api.Backend{TaskID: t.ID, NodeID: t.NodeID, Slot: t.Slot, Networks: t.Networks, Hosts: hosts(t, v), Ports: ownPorts(t)})
		}
	}
	slices.SortFunc(e.Backends, func(a, b api.Backend) int { return strings.Compare(a.TaskID, b.TaskID) })
	return e
}

// names says on which networks a service goes by its name, and by which others.
func names(s *api.Service, v *store.View) (out []api.ServiceNames) {
	for _, c := range s.Spec.TaskTemplate.Networks {
		n, ok := v.Networks.Get(c.Target)
		if !ok {
			if n, ok = v.Networks.One(store.ByName, c.Target); !ok {
				continue
			}
		}
		if !n.Spec.Ingress && !slices.ContainsFunc(out, func(o api.ServiceNames) bool { return o.NetworkID == n.ID }) {
			out = append(out, api.ServiceNames{NetworkID: n.ID, Aliases: c.Aliases})
		}
	}
	return out
}

// ownPorts are those that a task has on its node alone.
func ownPorts(t *api.Task) (out []api.Port) {
	for _, p := range t.Status.PortStatus.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			out = append(out, api.Port{Protocol: string(p.Protocol), Target: uint16(p.TargetPort), Published: uint16(p.PublishedPort)})
		}
	}
	return out
}

// shortID is how much of a container's ID people use, and the engine as its
// hostname.
const shortID = 12

// hosts are the names of a task's container.
func hosts(t *api.Task, v *store.View) (out []string) {
	if c := t.Status.ContainerStatus; c != nil && len(c.ContainerID) >= shortID {
		out = append(out, c.ContainerID[:shortID])
	}
	rev, ok := v.Revisions.Get(t.Revision)
	if !ok || rev.Spec.TaskTemplate.ContainerSpec == nil {
		return out
	}
	node, _ := v.Nodes.Get(t.NodeID)
	// One that can not be filled in keeps the task from starting.
	name, err := api.PlaceholdersOf(&rev.Spec, t, node).Hostname(rev.Spec.TaskTemplate.ContainerSpec.Hostname)
	if err == nil && name != "" {
		out = append(out, name)
	}
	return out
}

// serves tells whether a task may be given new connections.
func serves(t *api.Task) bool {
	return t.Status.State == swarm.TaskStateRunning && !t.Unhealthy &&
		t.DesiredState == swarm.TaskStateRunning && len(t.Networks) > 0
}

// onTheWire tells whether a task may send or receive. It is so before it is
// reported RUNNING, because its first packet is faster than the report, and for
// as long as it finishes what it has begun.
func onTheWire(t *api.Task) bool {
	return t.NodeID != "" && !api.Terminal(t.Status.State)
}

// nodeState is everything one node has to know. Nil if there is no such node.
func nodeState(v *store.View, nodeID string, now tables) *api.NodeState {
	node, ok := v.Nodes.Get(nodeID)
	if !ok {
		return nil
	}
	s := &api.NodeState{
		Index:     v.Index,
		Node:      node,
		Tasks:     map[string]*api.Assignment{},
		Networks:  map[string]*api.Network{},
		Endpoints: map[string]*api.Endpoint{},
		Remotes:   map[string]*api.Remote{},
		Peers:     map[string]api.Peer{},
		Files:     map[string]*api.File{},
		Pieces:    map[string]*api.Piece{},
	}
	if c := v.Cluster(); c != nil {
		s.ClusterID, s.DataPathPort, s.AddrPools = c.ID, c.DataPathPort, c.Pools()
		s.GossipKeys, s.Trust, s.WireGuardFrom = c.GossipKeys, c.Trust(), c.WireGuardFrom
	}
	for n := range v.Networks.All() {
		// Attachable ones are on every node: nobody says beforehand where
		// somebody will connect a container.
		if n.Spec.Ingress || n.Spec.Attachable {
			s.Networks[n.ID] = n
		}
	}
	for t := range v.Tasks.By(store.ByNode, nodeID) {
		rev, ok := v.Revisions.Get(t.Revision)
		if !ok {
			continue // without its revision nobody can say what to run
		}
		a := &api.Assignment{Task: t, Revision: rev, Draining: now.draining(t)}
		if svc, ok := v.Services.Get(t.ServiceID); ok {
			a.RegistryAuth = svc.RegistryAuth
		}
		if c := rev.Spec.TaskTemplate.ContainerSpec; c != nil && !api.Terminal(t.Status.State) {
			a.ClusterAuth = v.RegistryAuth(c.Image)
		}
		s.Tasks[t.ID] = a
		addFiles(s, v, t, rev)
		for _, at := range t.Networks {
			if n, ok := v.Networks.Get(at.NetworkID); ok {
				s.Networks[n.ID] = n
			}
		}
	}
	for id, e := range now.endpoints {
		if concerns(e, s.Networks) {
			s.Endpoints[id] = e
		}
	}
	for id := range s.Networks {
		for t := range v.Tasks.By(store.ByNetwork, id) {
			if t.NodeID != nodeID && onTheWire(t) {
				s.Remotes[t.ID] = &api.Remote{TaskID: t.ID, NodeID: t.NodeID, Networks: t.Networks}
			}
		}
		for g := range v.Guests.By(store.ByNetwork, id) {
			if g.Addr.IsValid() {
				s.Remotes[g.ID] = &api.Remote{TaskID: g.ID, NodeID: g.NodeID, Names: g.Names, Networks: []api.Attachment{{NetworkID: id, Addr: g.Addr}}}
			}
		}
	}
	for n := range v.Nodes.All() {
		if n.ID == nodeID {
			continue
		}
		p := api.Peer{NodeID: n.ID, Hostname: n.Description.Hostname, Addr: n.Addr, Manager: n.Role == swarm.NodeRoleManager, Down: n.Status.State == swarm.NodeStateDown}
		p.DataPath, _ = netip.ParseAddr(n.DataPath) // a node that has not said it yet has no tunnel
		p.WireGuard, p.Networkless = n.WireGuard, n.Networkless != ""
		s.Peers[n.ID] = p
	}
	return s
}

// concerns tells whether a node on these networks has to know an endpoint:
// published ports answer on every node, the rest only where its networks are.
func concerns(e *api.Endpoint, networks map[string]*api.Network) bool {
	if len(e.Ports) > 0 {
		return true
	}
	for _, vip := range e.VIPs {
		if networks[vip.NetworkID] != nil {
			return true
		}
	}
	for _, n := range e.Names {
		if networks[n.NetworkID] != nil {
			return true
		}
	}
	for _, b := range e.Backends {
		for _, at := range b.Networks {
			if networks[at.NetworkID] != nil {
				return true
			}
		}
	}
	return false
}

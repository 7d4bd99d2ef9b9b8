package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Zone is everything that a node answers, and to whom.
type Zone struct {
	Askers   map[netip.Addr]Asker // by each address of a container
	Networks map[string]*Network  // by ID
}

// Asker is a container of this node.
type Asker struct {
	Networks []string // whose names it may know, in the order of its interfaces
	// OwnServers says that it has name servers of its own for what is not ours:
	// the engine goes on to them when we do not answer.
	OwnServers bool `json:",omitempty"`
}

// Network is what is known on one network. Names are in lower case.
type Network struct {
	Name    string
	Subnets []netip.Prefix
	// Names has an entry also for what exists and has no address now.
	Names map[string][]netip.Addr
	Hosts map[netip.Addr]string // the way back
}

// tasksOf goes before the name of a service to mean its tasks one by one.
const tasksOf = "tasks."

// Compile gives the zone of a node. Tasks on muted nodes, by node ID, are left
// out. Equal states compile to equal zones.
func Compile(state *api.NodeState, muted map[string]bool) *Zone {
	z := &Zone{Askers: map[netip.Addr]Asker{}, Networks: map[string]*Network{}}
	for id, n := range state.Networks {
		if n.Spec.Ingress {
			continue // it carries published ports, between services that do not know each other
		}
		net := &Network{Name: lower(n.Spec.Name), Names: map[string][]netip.Addr{}, Hosts: map[netip.Addr]string{}}
		for _, s := range n.Subnets {
			net.Subnets = append(net.Subnets, s.Prefix.Masked())
		}
		z.Networks[id] = net
	}
	for _, a := range state.Tasks {
		spec := containerOf(a)
		z.asker(a.Task.Networks, spec != nil && spec.DNSConfig != nil && len(spec.DNSConfig.Nameservers) > 0)
	}
	for _, at := range guests(state) {
		z.asker(at, false)
	}
	endpoints := slices.SortedFunc(maps.Values(state.Endpoints), func(x, y *api.Endpoint) int {
		return cmp.Or(cmp.Compare(x.ServiceName, y.ServiceName), cmp.Compare(x.ServiceID, y.ServiceID))
	})
	for _, e := range endpoints {
		for id, n := range z.Networks {
			n.service(e, id, muted)
		}
	}
	// A container's own name gives way to what users named.
	for id, n := range z.Networks {
		shared := maps.Clone(n.Names)
		for _, e := range endpoints {
			n.hosts(e, id, muted, shared)
		}
		for _, r := range state.Remotes {
			if !muted[r.NodeID] {
				n.guest(r, id, shared)
			}
		}
	}
	for _, n := range z.Networks {
		for name, addrs := range n.Names {
			slices.SortFunc(addrs, netip.Addr.Compare)
			n.Names[name] = slices.Compact(addrs)
		}
	}
	return z
}

// guests are where the containers of this node are that are no tasks. Each of
// their networks is known by itself; what joins them is the container's own name,
// the first, which an engine gives to one alone.
func guests(state *api.NodeState) (all [][]api.Attachment) {
	named := map[string][]api.Attachment{}
	for _, r := range state.Remotes {
		switch {
		case state.Node == nil || r.NodeID != state.Node.ID:
		case len(r.Names) > 0:
			named[r.Names[0]] = append(named[r.Names[0]], r.Networks...)
		default: // it was not asked yet
			all = append(all, r.Networks)
		}
	}
	return slices.AppendSeq(all, maps.Values(named))
}

// asker lets a container ask, from each of its addresses.
func (z *Zone) asker(at []api.Attachment, ownServers bool) {
	a := Asker{OwnServers: ownServers}
	for _, n := range at {
		if z.Networks[n.NetworkID] != nil {
			a.Networks = append(a.Networks, n.NetworkID)
		}
	}
	for _, n := range at {
		z.Askers[n.Addr.Addr()] = a
	}
}

// service names a service on a network: by its virtual address, or else by its
// tasks.
func (n *Network) service(e *api.Endpoint, id string, muted map[string]bool) {
	names, here := []string{e.ServiceName}, false
	for _, s := range e.Names {
		if s.NetworkID == id {
			here, names = true, append(names, s.Aliases...)
		}
	}
	var vips, tasks []netip.Addr
	for _, v := range e.VIPs {
		if v.NetworkID == id {
			here, vips = true, append(vips, v.Addr)
			n.Hosts[v.Addr] = e.ServiceName
		}
	}
	for _, b := range e.Backends {
		for _, at := range b.Networks {
			if at.NetworkID != id {
				continue
			}
			here, names = true, append(names, at.Aliases...) // of an older revision, perhaps
			if !muted[b.NodeID] {
				tasks = append(tasks, at.Addr.Addr())
			}
		}
	}
	if !here {
		return
	}
	for i, name := range names {
		names[i] = lower(name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		n.add(tasksOf+name, tasks)
		if len(vips) > 0 {
			n.add(name, vips)
		} else {
			n.add(name, tasks)
		}
	}
}

// hosts names the containers of a service, save by names that something else
// has.
func (n *Network) hosts(e *api.Endpoint, id string, muted map[string]bool, taken map[string][]netip.Addr) {
	for _, b := range e.Backends {
		task := api.TaskName(e.ServiceName, &api.Task{Meta: api.Meta{ID: b.TaskID}, Slot: b.Slot, NodeID: b.NodeID})
		for _, at := range b.Networks {
			if at.NetworkID != id || muted[b.NodeID] {
				continue
			}
			n.Hosts[at.Addr.Addr()] = task
			for _, name := range append([]string{task}, b.Hosts...) {
				if name = lower(name); taken[name] == nil {
					n.add(name, []netip.Addr{at.Addr.Addr()})
				}
			}
		}
	}
}

// guest names a container that is no task.
func (n *Network) guest(r *api.Remote, id string, taken map[string][]netip.Addr) {
	if len(r.Names) == 0 {
		return
	}
	for _, at := range r.Networks {
		if at.NetworkID != id {
			continue
		}
		n.Hosts[at.Addr.Addr()] = r.Names[0]
		for _, name := range r.Names {
			if name = lower(name); taken[name] == nil {
				n.add(name, []netip.Addr{at.Addr.Addr()})
			}
		}
	}
}

func (n *Network) add(name string, addrs []netip.Addr) {
	n.Names[name] = append(append(make([]netip.Addr, 0, len(addrs)), n.Names[name]...), addrs...)
}

func lower(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Lookup gives the addresses of a name for one asker: those on the first of its
// networks that has any. known says that the name is one of ours, whether or
// not it has an address. A name may be followed by that of a network.
func (z *Zone) Lookup(a Asker, name string) (addrs []netip.Addr, known bool) {
	name = lower(name)
	for _, id := range a.Networks {
		n := z.Networks[id]
		if n == nil {
			continue
		}
		for _, short := range []string{name, strings.TrimSuffix(name, "."+n.Name)} {
			found, ok := n.Names[short]
			if known = known || ok; len(found) > 0 {
				return found, true
			}
		}
	}
	return nil, known
}

// Reverse gives the name of an address for one asker, with its network's. ours
// says that the address lies in a network of the cluster: nobody else can know
// its name.
func (z *Zone) Reverse(a Asker, addr netip.Addr) (name string, ours bool) {
	for _, id := range a.Networks {
		n := z.Networks[id]
		if n == nil {
			continue
		}
		if host, ok := n.Hosts[addr]; ok {
			return host + "." + n.Name, true
		}
		for _, s := range n.Subnets {
			ours = ours || s.Contains(addr)
		}
	}
	return "", ours
}

func containerOf(a *api.Assignment) *swarm.ContainerSpec {
	if a.Revision == nil {
		return nil
	}
	return a.Revision.Spec.TaskTemplate.ContainerSpec
}

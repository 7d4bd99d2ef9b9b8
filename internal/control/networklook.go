package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	timetypes "github.com/docker/docker/api/types/time"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Networks lists the cluster's networks that fit the filters.
func (c *Control) Networks(f filters.Args) ([]network.Summary, error) {
	v := c.View()
	return ListNetworks(slices.Collect(v.Networks.All()), f, func(n *api.Network) bool { return networkUser(v, n) != "" })
}

// ListNetworks gives those networks that fit the filters, in the words of the
// engine's API. used tells whether something is on a network.
func ListNetworks(networks []*api.Network, f filters.Args, used func(*api.Network) bool) ([]network.Summary, error) {
	if err := accept(f, "driver", "type", "name", "id", "label", "scope", "dangling"); err != nil {
		return nil, err
	}
	dangling, err := f.GetBoolOrDefault("dangling", false)
	if err != nil {
		return nil, invalid("%v", err)
	}
	list := []network.Summary{}
	for _, n := range networks {
		if f.ExactMatch("driver", overlayDriver) && f.ExactMatch("scope", scopeSwarm) && f.ExactMatch("type", "custom") &&
			f.Match("name", n.Spec.Name) && f.Match("id", n.ID) && f.MatchKVList("label", n.Spec.Labels) &&
			(!f.Contains("dangling") || dangling != used(n)) {
			list = append(list, NetworkResource(n))
		}
	}
	return list, nil
}

// Network returns one network by ID, name or beginning of the ID. verbose tells
// who is on it.
func (c *Control) Network(ref string, verbose bool) (network.Inspect, error) {
	v := c.View()
	n, err := findNetwork(v, ref)
	if err != nil {
		return network.Inspect{}, err
	}
	out := NetworkResource(n)
	out.Peers = networkPeers(v, n)
	if verbose {
		out.Services = networkServices(v, n)
	}
	return out, nil
}

// networkPeers lists the nodes that have something on a network.
func networkPeers(v *store.View, n *api.Network) []network.PeerInfo {
	has := map[string]bool{}
	for t := range v.Tasks.By(store.ByNetwork, n.ID) {
		has[t.NodeID] = has[t.NodeID] || !api.Terminal(t.Status.State)
	}
	for g := range v.Guests.By(store.ByNetwork, n.ID) {
		has[g.NodeID] = true
	}
	var peers []network.PeerInfo
	for id, here := range has {
		if node, ok := v.Nodes.Get(id); ok && here {
			peers = append(peers, network.PeerInfo{Name: node.Description.Hostname, IP: node.DataPath})
		}
	}
	slices.SortFunc(peers, func(a, b network.PeerInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.IP, b.IP)) })
	return peers
}

// networkServices says of each service on a network how it is reached there, and
// by which tasks.
func networkServices(v *store.View, n *api.Network) map[string]network.ServiceInfo {
	out := map[string]network.ServiceInfo{}
	for t := range v.Tasks.By(store.ByNetwork, n.ID) {
		s, ok := v.Services.Get(t.ServiceID)
		if !ok || t.Status.State != swarm.TaskStateRunning {
			continue
		}
		info, ok := out[s.Spec.Name]
		if !ok {
			info = network.ServiceInfo{VIP: vipOn(s, n.ID), Ports: []string{}}
			for _, p := range s.Endpoint.Ports {
				if n.Spec.Ingress && p.PublishMode == swarm.PortConfigPublishModeIngress {
					info.Ports = append(info.Ports, fmt.Sprintf("Target: %d, Publish: %d", p.TargetPort, p.PublishedPort))
				}
			}
		}
		info.Tasks = append(info.Tasks, networkTask(v, t, n.ID))
		out[s.Spec.Name] = info
	}
	for _, info := range out {
		slices.SortFunc(info.Tasks, func(a, b network.Task) int { return cmp.Compare(a.Name, b.Name) })
	}
	return out
}

func vipOn(s *api.Service, networkID string) string {
	for _, vip := range s.Endpoint.VirtualIPs {
		if vip.NetworkID == networkID {
			addr, _, _ := strings.Cut(vip.Addr, "/")
			return addr
		}
	}
	return ""
}

func networkTask(v *store.View, t *api.Task, networkID string) network.Task {
	out := network.Task{Name: taskName(v, t), Info: map[string]string{}}
	if node, ok := v.Nodes.Get(t.NodeID); ok {
		out.Info["Host IP"] = node.DataPath
	}
	for _, at := range t.Networks {
		if at.NetworkID == networkID {
			out.EndpointIP = at.Addr.Addr().String()
		}
	}
	return out
}

// PruneNetworks removes the networks that nothing uses and that fit the filters,
// and returns their names.
func (c *Control) PruneNetworks(ctx context.Context, f filters.Args) ([]string, error) {
	if err := accept(f, "label", "label!", "until"); err != nil {
		return nil, err
	}
	until, err := pruneTime(f, c.now())
	if err != nil {
		return nil, err
	}
	v := c.View()
	removed := []string{}
	for n := range v.Networks.All() {
		if n.Spec.Ingress || !until.IsZero() && n.CreatedAt.After(until) || !f.MatchKVList("label", n.Spec.Labels) ||
			f.Contains("label!") && f.MatchKVList("label!", n.Spec.Labels) || networkUser(v, n) != "" {
			continue
		}
		switch err := c.RemoveNetwork(ctx, n.ID); {
		case err == nil:
			removed = append(removed, n.Spec.Name)
		case errdefs.IsNotFound(err), errdefs.IsFailedPrecondition(err): // somebody was faster
		default:
			return removed, err
		}
	}
	return removed, nil
}

// pruneTime reads the filter until: a time, or how long ago.
func pruneTime(f filters.Args, now time.Time) (time.Time, error) {
	values := f.Get("until")
	switch {
	case len(values) == 0:
		return time.Time{}, nil
	case len(values) > 1:
		return time.Time{}, invalid("more than one until filter specified")
	}
	stamp, err := timetypes.GetTimestamp(values[0], now)
	if err != nil {
		return time.Time{}, invalid("invalid filter 'until=%s': %v", values[0], err)
	}
	seconds, nano, err := timetypes.ParseTimestamps(stamp, 0)
	if err != nil {
		return time.Time{}, invalid("invalid filter 'until=%s': %v", values[0], err)
	}
	return time.Unix(seconds, nano), nil
}

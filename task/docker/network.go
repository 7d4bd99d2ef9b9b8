package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"shoal/internal/api"
)

// suffixLen is how much of a network's ID tells it from another of its name.
const suffixLen = 8

// ensureNetworks sees to it that the engine has the networks that a task is on,
// and gives their names on the engine by network ID.
func (e *Executor) ensureNetworks(ctx context.Context, c *client.Client, s *api.NodeState, want []api.Attachment) (map[string]string, error) {
	names := map[string]string{}
	if len(want) == 0 {
		return names, nil
	}
	e.networks.Lock()
	defer e.networks.Unlock()
	have, err := c.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return nil, say(err)
	}
	for _, at := range want {
		n := s.Networks[at.NetworkID]
		if n == nil {
			return nil, &engineError{text: "network " + at.NetworkID + " is not known to this node", kind: errdefs.ErrNotFound}
		}
		name, err := e.ensureNetwork(ctx, c, s, n, have, at.Addr.Addr())
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Spec.Name, say(err))
		}
		names[n.ID] = name
	}
	return names, nil
}

// ensureNetwork finds a network by its label, whatever it is called here, or
// makes it. A network of the same name that is not ours is left alone, and ours
// gets a name that nobody else has. One that was made before the cluster's network
// got the subnets that these addresses are in is made anew.
func (e *Executor) ensureNetwork(ctx context.Context, c *client.Client, s *api.NodeState, n *api.Network, have []network.Summary, addrs ...netip.Addr) (string, error) {
	name := n.Spec.Name
	for _, h := range have {
		if h.Labels[labelNetwork] == n.ID {
			if takes(h, addrs) {
				return h.Name, nil
			}
			err := say(c.NetworkRemove(ctx, h.ID))
			if errdefs.IsPermissionDenied(err) || errdefs.IsConflict(err) {
				return "", errNarrow
			}
			if err != nil && !errdefs.IsNotFound(err) {
				return "", err
			}
			continue
		}
		if h.Name == n.Spec.Name {
			name = n.Spec.Name + "-" + n.ID[:min(suffixLen, len(n.ID))]
		}
	}
	opts := network.CreateOptions{
		Driver:  e.cfg.NetworkDriver,
		Options: networkOptions(n),
		Labels:  map[string]string{labelNetwork: n.ID, labelCluster: s.ClusterID},
		IPAM:    &network.IPAM{Driver: e.cfg.IPAMDriver, Options: map[string]string{labelNetwork: n.ID}},
	}
	for _, p := range ranges(s, n) {
		opts.IPAM.Config = append(opts.IPAM.Config, network.IPAMConfig{Subnet: p.String()})
		if p.Addr().Is6() {
			yes := true
			opts.EnableIPv6 = &yes
		}
	}
	_, err := c.NetworkCreate(ctx, name, opts)
	if !errdefs.IsConflict(err) {
		return name, err
	}
	// Somebody made a network of that name since the list was taken.
	have, lerr := c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelNetwork+"="+n.ID))})
	if lerr == nil && len(have) > 0 {
		return have[0].Name, nil
	}
	return "", err
}

// errNarrow says that an engine can not have an address of a network that it knows
// by its subnets of before.
var errNarrow = &engineError{
	text: "this node's engine made it before it grew, and takes no address of its new subnets; it is made anew when no container of this node is on it",
	kind: errdefs.ErrConflict,
}

// ranges are what the engine is told that a network's addresses are in. It fixes
// that when it makes the network: so of one that may grow it is told where it may.
// The managers give the addresses, and the driver knows the subnets.
func ranges(s *api.NodeState, n *api.Network) []netip.Prefix {
	if grounds := n.Grounds(s.AddrPools); len(grounds) > 0 {
		return grounds
	}
	var out []netip.Prefix
	for _, sub := range n.Subnets {
		out = append(out, sub.Prefix)
	}
	return out
}

// takes tells whether the engine's network can have addresses.
func takes(h network.Summary, addrs []netip.Addr) bool {
	for _, a := range addrs {
		if !slices.ContainsFunc(h.IPAM.Config, func(c network.IPAMConfig) bool {
			p, err := netip.ParsePrefix(c.Subnet)
			return err == nil && p.Contains(a)
		}) {
			return false
		}
	}
	return true
}

// optionMTU is the one of a network's options that its driver on the engine
// takes.
const optionMTU = "com.docker.network.driver.mtu"

// optionInternal tells the driver that a network has no way out; see there why
// the engine is not told.
const optionInternal = "com.shoal.network.internal"

// optionEncrypted tells the driver that packets have to be smaller.
const optionEncrypted = "com.shoal.network.encrypted"

// networkOptions tells the driver which network it is, and what the user chose.
func networkOptions(n *api.Network) map[string]string {
	opts := map[string]string{labelNetwork: n.ID}
	if n.Spec.Internal {
		opts[optionInternal] = "true"
	}
	if d := n.Spec.DriverConfiguration; d != nil && d.Options[optionMTU] != "" {
		opts[optionMTU] = d.Options[optionMTU]
	}
	if n.Encrypted() {
		opts[optionEncrypted] = "true"
	}
	return opts
}

// NamesAt gives what the container at an address of a network is called there:
// its own name, its aliases and its short ID. None of a task's: that goes by its
// service. Nobody is there: none.
func (e *Executor) NamesAt(ctx context.Context, networkID string, addr netip.Addr) ([]string, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	have, err := c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelNetwork+"="+networkID))})
	if err != nil || len(have) == 0 {
		return nil, say(err)
	}
	name := have[0].Name
	all, err := c.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(filters.Arg("network", have[0].ID))})
	if err != nil {
		return nil, say(err)
	}
	for _, ct := range all {
		if ct.NetworkSettings == nil || ct.Labels[labelTaskID] != "" {
			continue
		}
		if at := ct.NetworkSettings.Networks[name]; at == nil || at.IPAddress != addr.String() {
			continue
		}
		in, err := c.ContainerInspect(ctx, ct.ID)
		if err != nil || in.NetworkSettings == nil || in.NetworkSettings.Networks[name] == nil {
			return nil, say(err)
		}
		return namesOf(strings.TrimPrefix(in.Name, "/"), in.ID, in.NetworkSettings.Networks[name]), nil
	}
	return nil, nil
}

// shortID is how much of a container's ID people use.
const shortID = 12

// namesOf lists names once each, the container's own first.
func namesOf(name, id string, at *network.EndpointSettings) []string {
	out := []string{name}
	for _, n := range slices.Concat(at.Aliases, at.DNSNames, []string{id[:min(shortID, len(id))]}) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// SyncNetworks implements task.Executor. What goes goes first: a network that
// was removed and made again has its name back then.
func (e *Executor) SyncNetworks(ctx context.Context, state func() *api.NodeState) (inUse bool, err error) {
	c, err := e.engine(ctx)
	if err != nil {
		return false, err
	}
	e.networks.Lock()
	defer e.networks.Unlock()
	s := state()
	have, err := c.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return false, say(err)
	}
	stays := make([]network.Summary, 0, len(have))
	var errs []error
	for _, h := range have {
		if h.Labels[labelCluster] != s.ClusterID || s.Networks[h.Labels[labelNetwork]] != nil {
			stays = append(stays, h)
			continue
		}
		switch err := say(c.NetworkRemove(ctx, h.ID)); {
		case err == nil, errdefs.IsNotFound(err):
			continue
		case errdefs.IsPermissionDenied(err), errdefs.IsConflict(err):
			inUse = true // the engine refuses while a container is on it
		default:
			errs = append(errs, fmt.Errorf("remove network %s: %w", h.Name, err))
		}
		stays = append(stays, h)
	}
	for _, n := range s.Networks {
		if !n.Spec.Attachable {
			continue
		}
		var addrs []netip.Addr
		for _, sub := range n.Subnets {
			addrs = append(addrs, sub.Prefix.Addr())
		}
		if _, err := e.ensureNetwork(ctx, c, s, n, stays, addrs...); errors.Is(err, errNarrow) {
			inUse = true
		} else if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Spec.Name, say(err)))
		}
	}
	return inUse, errors.Join(errs...)
}

// clusterFilter selects what belongs to a cluster; "" stands for any.
func clusterFilter(clusterID string) filters.Args {
	if clusterID == "" {
		return filters.NewArgs(filters.Arg("label", labelCluster))
	}
	return filters.NewArgs(filters.Arg("label", labelCluster+"="+clusterID))
}

// bridgeOption is how a network of the engine is given a bridge's name.
const bridgeOption = "com.docker.network.bridge.name"

// Bridges names the bridges of the engine's own networks that have a name of
// their own.
func (e *Executor) Bridges(ctx context.Context) ([]string, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	have, err := c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("driver", "bridge"))})
	if err != nil {
		return nil, say(err)
	}
	var names []string
	for _, n := range have {
		if name := n.Options[bridgeOption]; name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

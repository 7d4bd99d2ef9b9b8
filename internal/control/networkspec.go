package control

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

const (
	overlayDriver = "overlay"
	defaultIPAM   = "default"
	optionMTU     = "com.docker.network.driver.mtu"
)

// ClusterNetwork tells whether a request is for a network of the whole cluster;
// all others are the engine's.
func ClusterNetwork(req network.CreateRequest) bool {
	return req.Driver == overlayDriver || req.Scope == scopeSwarm || req.Ingress
}

// networkSpec is the user's words as they are stored. What can not be honoured is
// refused by name.
func networkSpec(req network.CreateRequest) (swarm.NetworkSpec, error) {
	var none swarm.NetworkSpec
	ipam := req.IPAM
	if ipam == nil {
		ipam = &network.IPAM{}
	}
	switch {
	case predefined(req.Name):
		return none, errdefs.ErrPermissionDenied.WithMessage(req.Name + " is a pre-defined network and cannot be created")
	case req.Name == "":
		return none, invalid("network name cannot be empty")
	case !serviceName.MatchString(req.Name):
		return none, badName(req.Name)
	case len(req.Name) > maxNameLen:
		return none, longName(req.Name)
	case cmp.Or(req.Driver, overlayDriver) != overlayDriver:
		return none, unsupported("networks of the cluster with driver %s are", req.Driver)
	case !oneOf(req.Scope, "", scopeSwarm, "global"):
		return none, invalid("invalid scope %q: overlay networks have scope %s", req.Scope, scopeSwarm)
	case req.ConfigOnly:
		return none, invalid("a configuration only network can not be an overlay network: leave --config-only out")
	case req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return none, unsupported("overlay networks with the configuration of another network are")
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return none, invalid("IPv4 cannot be disabled in a Swarm scoped network: leave --ipv4=false out")
	case req.EnableIPv6 != nil && *req.EnableIPv6:
		return none, unsupported("overlay networks with IPv6 are")
	case req.Ingress && req.Attachable:
		return none, invalid("ingress network cannot be attachable")
	case req.Ingress && req.Internal:
		return none, invalid("ingress network cannot be internal: published ports lead through it")
	case !oneOf(ipam.Driver, "", defaultIPAM):
		return none, unsupported("IPAM driver %s for overlay networks (only "+defaultIPAM+") is", ipam.Driver)
	case len(ipam.Options) > 0:
		return none, unsupported("IPAM option %s is", first(ipam.Options))
	}
	if err := driverOptions(req); err != nil {
		return none, err
	}
	spec := swarm.NetworkSpec{
		Annotations:         swarm.Annotations{Name: req.Name, Labels: maps.Clone(req.Labels)},
		DriverConfiguration: &swarm.Driver{Name: overlayDriver, Options: maps.Clone(req.Options)},
		Internal:            req.Internal,
		Attachable:          req.Attachable,
		Ingress:             req.Ingress,
		IPAMOptions:         &swarm.IPAMOptions{Driver: swarm.Driver{Name: defaultIPAM}},
		Scope:               scopeSwarm,
	}
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	for _, c := range ipam.Config {
		spec.IPAMOptions.Configs = append(spec.IPAMOptions.Configs, swarm.IPAMConfig{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway})
	}
	return spec, nil
}

// driverOptions refuses those that nothing here follows.
func driverOptions(req network.CreateRequest) error {
	for _, name := range slices.Sorted(maps.Keys(req.Options)) {
		switch value := req.Options[name]; name {
		case optionMTU:
			if mtu, err := strconv.Atoi(value); err != nil || mtu < minMTU || mtu > maxMTU {
				return invalid("option %s: %q is not an MTU between %d and %d", name, value, minMTU, maxMTU)
			}
		case api.OptionEncrypted:
		default:
			return unsupported("option %s of overlay networks is", name)
		}
	}
	return nil
}

const (
	minMTU = 576   // what IPv4 hosts must take in one piece
	maxMTU = 65535 // the longest packet of IPv4
)

// wantedSubnets gives the subnets that a request names, each with its gateway.
func wantedSubnets(in *network.IPAM) ([]api.Subnet, error) {
	if in == nil {
		return nil, nil
	}
	configs := slices.DeleteFunc(slices.Clone(in.Config), func(c network.IPAMConfig) bool { // clients send an empty one for none
		return c.Subnet == "" && c.IPRange == "" && c.Gateway == "" && len(c.AuxAddress) == 0
	})
	if err := network.ValidateIPAM(&network.IPAM{Config: configs}, true); err != nil {
		return nil, invalid("%v", err)
	}
	var all []api.Subnet
	for _, c := range configs {
		s := api.Subnet{Prefix: netip.MustParsePrefix(c.Subnet)} // it is valid
		switch {
		case !s.Prefix.Addr().Is4():
			return nil, unsupported("subnet %s: overlay networks with IPv6 are", c.Subnet)
		case special(s.Prefix) != "":
			return nil, invalid("subnet %s: %s", c.Subnet, special(s.Prefix))
		case s.Prefix.Bits() > maxUserSubnet:
			return nil, invalid("subnet %s is too small: at most /%d, which has a gateway and one address", c.Subnet, maxUserSubnet)
		}
		for _, o := range all {
			if o.Prefix.Overlaps(s.Prefix) {
				return nil, invalid("subnets %s and %s overlap", o.Prefix, s.Prefix)
			}
		}
		if c.IPRange != "" {
			s.Range = netip.MustParsePrefix(c.IPRange)
		}
		s.Gateway = s.Prefix.Addr().Next()
		if c.Gateway != "" {
			s.Gateway = netip.MustParseAddr(c.Gateway)
		}
		if s.Gateway == s.Prefix.Masked().Addr() {
			return nil, invalid("gateway %s is the address of subnet %s as a whole: name another, or none", c.Gateway, c.Subnet)
		}
		for name, a := range c.AuxAddress {
			if s.Aux == nil {
				s.Aux = map[string]netip.Addr{}
			}
			s.Aux[name] = netip.MustParseAddr(a)
		}
		all = append(all, s)
	}
	return all, nil
}

// specials are what no container can have an address of.
var specials = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "says \"this host\""},
	{netip.MustParsePrefix("127.0.0.0/8"), "is each host's own loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "is link-local, and containers ask for names there"},
	{netip.MustParsePrefix("224.0.0.0/4"), "is for multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "is reserved"},
}

// special says why no network can have a subnet; "" if one can.
func special(p netip.Prefix) string {
	for _, s := range specials {
		if s.prefix.Overlaps(p) {
			return fmt.Sprintf("%s %s: choose private addresses, such as 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 has", s.prefix, s.why)
		}
	}
	return ""
}

// maxUserSubnet leaves a network its gateway and one address to give.
const maxUserSubnet = 30

// predefined tells whether engines have a network of this name by themselves.
func predefined(name string) bool { return oneOf(name, "bridge", "host", "none", "default") }

// first gives one key of a map, always the same.
func first[V any](m map[string]V) string { return slices.Min(slices.Collect(maps.Keys(m))) }

// scopeSwarm is how Docker calls what is the whole cluster's.
const scopeSwarm = "swarm"

// NetworkResource says a network in the words of the engine's API.
func NetworkResource(n *api.Network) network.Inspect {
	out := network.Inspect{
		Name: n.Spec.Name, ID: n.ID, Created: n.CreatedAt, Scope: scopeSwarm, Driver: overlayDriver, EnableIPv4: true,
		IPAM:     network.IPAM{Driver: defaultIPAM, Config: []network.IPAMConfig{}},
		Internal: n.Spec.Internal, Attachable: n.Spec.Attachable, Ingress: n.Spec.Ingress,
		Options: map[string]string{vniOption: fmt.Sprint(n.VNI)}, Labels: n.Spec.Labels,
	}
	if d := n.Spec.DriverConfiguration; d != nil {
		maps.Copy(out.Options, d.Options)
	}
	for _, s := range n.Subnets {
		c := network.IPAMConfig{Subnet: s.Prefix.String()}
		if s.Range.IsValid() {
			c.IPRange = s.Range.String()
		}
		if s.Gateway.IsValid() {
			c.Gateway = s.Gateway.String()
		}
		for name, a := range s.Aux {
			if c.AuxAddress == nil {
				c.AuxAddress = map[string]string{}
			}
			c.AuxAddress[name] = a.String()
		}
		out.IPAM.Config = append(out.IPAM.Config, c)
	}
	return out
}

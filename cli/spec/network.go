package spec

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/docker/api/types/network"

	"shoal/cli/flags"
)

// NetworkFlags are the flags of network create.
func NetworkFlags() flags.Set {
	return flags.Set{
		flags.Bool("attachable", "", "Enable manual container attachment"),
		flags.List("aux-address", "", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
		flags.Text("config-from", "", "The network from which to copy the configuration"),
		flags.Bool("config-only", "", "Create a configuration only network"),
		flags.Text("driver", "d", "Driver to manage the Network").WithDefault(`"bridge"`),
		flags.List("gateway", "", "IPv4 or IPv6 Gateway for the master subnet"),
		flags.Bool("ingress", "", "Create swarm routing-mesh network"),
		flags.Bool("internal", "", "Restrict external access to the network"),
		flags.List("ip-range", "", "Allocate container ip from a sub-range"),
		flags.Text("ipam-driver", "", "IP Address Management Driver").WithDefault(`"default"`),
		flags.List("ipam-opt", "", "Set IPAM driver specific options"),
		flags.Bool("ipv4", "", "Enable or disable IPv4 address assignment").WithDefault("true"),
		flags.Bool("ipv6", "", "Enable or disable IPv6 address assignment"),
		flags.Many("label", "", "list", "Set metadata on a network", ParseLabel),
		flags.List("opt", "o", "Set driver specific options"),
		flags.Text("scope", "", "Control the network's scope"),
		flags.List("subnet", "", "Subnet in CIDR format that represents a network segment"),
	}
}

// Network is what the flags of network create ask for.
func Network(f flags.Set) (network.CreateOptions, error) {
	o := network.CreateOptions{
		Driver: "bridge", Scope: f.Text("scope"), Internal: f.Bool("internal"), Attachable: f.Bool("attachable"),
		Ingress: f.Bool("ingress"), ConfigOnly: f.Bool("config-only"),
		Options: pairs(f.List("opt")), Labels: pairs(flags.Get[[]string](f, "label")),
	}
	if f.Changed("driver") {
		o.Driver = f.Text("driver")
	}
	if f.Changed("ipv4") {
		o.EnableIPv4 = new(f.Bool("ipv4"))
	}
	if f.Changed("ipv6") {
		o.EnableIPv6 = new(f.Bool("ipv6"))
	}
	if from := f.Text("config-from"); from != "" {
		o.ConfigFrom = &network.ConfigReference{Network: from}
	}
	configs, err := ipamConfigs(split(f.List("subnet")), split(f.List("ip-range")), split(f.List("gateway")), pairs(f.List("aux-address")))
	o.IPAM = &network.IPAM{Driver: "default", Config: configs, Options: pairs(f.List("ipam-opt"))}
	if f.Changed("ipam-driver") {
		o.IPAM.Driver = f.Text("ipam-driver")
	}
	return o, err
}

// split takes commas between values, as these flags have them.
func split(values []string) (out []string) {
	for _, v := range values {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

// ipamConfigs gives each subnet the range, the gateway and the other addresses
// that lie in it.
func ipamConfigs(subnets, ranges, gateways []string, aux map[string]string) ([]network.IPAMConfig, error) {
	if len(subnets) < len(ranges) || len(subnets) < len(gateways) {
		return nil, fmt.Errorf("every ip-range or gateway must have a corresponding subnet: add a --subnet that holds %s", strings.Join(append(ranges, gateways...), ", "))
	}
	var prefixes []netip.Prefix
	var configs []network.IPAMConfig
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s: --subnet takes one such as 10.20.0.0/24", s)
		}
		for _, o := range prefixes {
			if o.Overlaps(p) {
				return nil, fmt.Errorf("multiple overlapping subnet configuration is not supported: %s and %s", o, p)
			}
		}
		prefixes, configs = append(prefixes, p), append(configs, network.IPAMConfig{Subnet: s})
	}
	in := func(what, flag, example, value string, addr netip.Addr, err error) (*network.IPAMConfig, error) {
		if err != nil {
			return nil, fmt.Errorf("invalid %s: %s: --%s takes one such as %s", what, value, flag, example)
		}
		for i, p := range prefixes {
			if p.Contains(addr) {
				return &configs[i], nil
			}
		}
		return nil, fmt.Errorf("no matching subnet for %s %s: no --subnet holds it", what, value)
	}
	for _, r := range ranges {
		p, err := netip.ParsePrefix(r)
		c, err := in("range", "ip-range", "10.20.0.128/25", r, p.Addr(), err)
		switch {
		case err != nil:
			return nil, err
		case c.IPRange != "":
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = r
	}
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		c, err := in("gateway", "gateway", "10.20.0.1", g, a, err)
		switch {
		case err != nil:
			return nil, err
		case c.Gateway != "":
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = g
	}
	for name, value := range aux {
		a, err := netip.ParseAddr(value)
		c, err := in("aux-address", "aux-address", "router=10.20.0.2", name+"="+value, a, err)
		if err != nil {
			return nil, err
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]string{}
		}
		c.AuxAddress[name] = value
	}
	return configs, nil
}

// Endpoint is what the flags of network connect ask for.
func Endpoint(f flags.Set) (*network.EndpointSettings, error) {
	s := &network.EndpointSettings{
		Links: f.List("link"), Aliases: f.List("alias"), GwPriority: int(flags.Get[int64](f, "gw-priority")),
	}
	if f.AnyChanged("ip", "ip6", "link-local-ip") {
		s.IPAMConfig = &network.EndpointIPAMConfig{
			IPv4Address: f.Text("ip"), IPv6Address: f.Text("ip6"), LinkLocalIPs: split(f.List("link-local-ip")),
		}
	}
	for _, o := range f.List("driver-opt") {
		key, value, ok := strings.Cut(o, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("invalid key/value pair format in driver options: %s", o)
		}
		setPair(&s.DriverOpts, key+"="+value)
	}
	return s, nil
}

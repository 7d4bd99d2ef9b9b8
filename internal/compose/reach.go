package compose

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
)

// How a service is reached, and what it reaches.

func (c converter) endpoint(path string, ports []types.ServicePortConfig, d *types.DeployConfig) (*swarm.EndpointSpec, error) {
	e := &swarm.EndpointSpec{Mode: swarm.ResolutionMode(strings.ToLower(d.EndpointMode))}
	var wrong error
	for i, p := range ports {
		_, long := c.checker.places[fmt.Sprintf("%s.ports[%d].host_ip", path, i)]
		if p.HostIP != "" && !(c.refused && long) {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".ports", "%s:%s:%d is not supported: %s", p.HostIP, p.Published, p.Target, c.checker.table.field["services.*.ports[].host_ip"].Note))
		}
		port := swarm.PortConfig{Protocol: swarm.PortConfigProtocol(p.Protocol), TargetPort: p.Target, PublishMode: swarm.PortConfigPublishMode(p.Mode)}
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil {
				wrong = errors.Join(wrong, c.checker.errorAt(path+".ports", "published %q is not a port: a range is written in the short form, as in \"8000-8010:8000-8010\"", p.Published))
			}
			port.PublishedPort = uint32(n)
		}
		e.Ports = append(e.Ports, port)
	}
	sort.SliceStable(e.Ports, func(i, j int) bool { return e.Ports[i].PublishedPort < e.Ports[j].PublishedPort })
	return e, wrong
}

// attachments are the networks of a service. On each, its name in the file finds it.
func (c converter) attachments(path, key string, s types.ServiceConfig) ([]swarm.NetworkAttachmentConfig, error) {
	var list []swarm.NetworkAttachmentConfig
	var wrong error
	networks := networksOf(s)
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		config := networks[name]
		if _, described := c.model.Networks[name]; !described && name != "default" {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".networks."+name, "undefined network %q", name))
			continue
		}
		a := swarm.NetworkAttachmentConfig{Target: c.networkName(name)}
		if config != nil {
			a.Aliases, a.DriverOpts = slices.Clone(config.Aliases), config.DriverOpts
		}
		if container.NetworkMode(a.Target).IsUserDefined() && config.ServiceNameAliasEnabled() {
			a.Aliases = append(a.Aliases, key)
		}
		list = append(list, a)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Target < list[j].Target })
	return list, wrong
}

// hosts are lines as in /etc/hosts, in the order of the file, or of their names where that has none.
func (c converter) hosts(path string, list types.HostsList) []string {
	place := func(host string) int {
		return slices.IndexFunc(c.checker.hosts[path+".extra_hosts"], func(line string) bool {
			return strings.HasPrefix(line, host+":") || strings.HasPrefix(line, host+"=")
		})
	}
	names := slices.Sorted(maps.Keys(list))
	sort.SliceStable(names, func(i, j int) bool { return place(names[i]) < place(names[j]) })
	var lines []string
	for _, host := range names {
		for _, ip := range list[host] {
			lines = append(lines, ip+" "+host)
		}
	}
	return lines
}

func dns(s types.ServiceConfig) *swarm.DNSConfig {
	if len(s.DNS) == 0 && len(s.DNSSearch) == 0 && len(s.DNSOpts) == 0 {
		return nil
	}
	return &swarm.DNSConfig{Nameservers: s.DNS, Search: s.DNSSearch, Options: s.DNSOpts}
}

package spec

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-connections/nat"
)

// fields splits the long syntax of a flag ("a=b,c=d") as CSV, so that quoted values may hold commas.
func fields(value string) ([]string, error) {
	return csv.NewReader(strings.NewReader(value)).Read()
}

// ParsePorts reads --publish: 8080:80/tcp, ranges, or published=8080,target=80,protocol=tcp,mode=host.
func ParsePorts(value string) ([]swarm.PortConfig, error) {
	parts, err := fields(value)
	if err != nil {
		return nil, err
	}
	if strings.Contains(value, "=") {
		port, err := parseLongPort(parts)
		return []swarm.PortConfig{port}, err
	}
	return parseShortPorts(value)
}

func parseLongPort(parts []string) (swarm.PortConfig, error) {
	port := swarm.PortConfig{Protocol: swarm.PortConfigProtocolTCP, PublishMode: swarm.PortConfigPublishModeIngress}
	for _, field := range parts {
		key, val, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return port, fmt.Errorf("invalid field: %s", field)
		}
		switch strings.ToLower(key) {
		case "protocol":
			switch p := swarm.PortConfigProtocol(strings.ToLower(val)); p {
			case swarm.PortConfigProtocolTCP, swarm.PortConfigProtocolUDP, swarm.PortConfigProtocolSCTP:
				port.Protocol = p
			default:
				return port, fmt.Errorf("invalid protocol value '%s': must be tcp, udp or sctp", val)
			}
		case "mode":
			switch m := swarm.PortConfigPublishMode(strings.ToLower(val)); m {
			case swarm.PortConfigPublishModeIngress, swarm.PortConfigPublishModeHost:
				port.PublishMode = m
			default:
				return port, fmt.Errorf("invalid publish mode value (%s): must be either 'ingress' or 'host'", val)
			}
		case "target":
			n, err := strconv.ParseUint(val, 10, 16)
			if err != nil {
				return port, fmt.Errorf("invalid target port (%s): value must be an integer from 1 to 65535", val)
			}
			port.TargetPort = uint32(n)
		case "published":
			n, err := strconv.ParseUint(val, 10, 16)
			if err != nil {
				return port, fmt.Errorf("invalid published port (%s): value must be an integer up to 65535, 0 for one that is chosen", val)
			}
			port.PublishedPort = uint32(n)
		default:
			return port, fmt.Errorf("invalid field key: %s: it is target, published, protocol or mode", key)
		}
	}
	if port.TargetPort == 0 {
		return port, fmt.Errorf("missing mandatory field '%s'", "target")
	}
	return port, nil
}

func parseShortPorts(value string) ([]swarm.PortConfig, error) {
	mappings, err := nat.ParsePortSpec(value)
	if err != nil {
		return nil, err
	}
	ports := make([]swarm.PortConfig, 0, len(mappings))
	for _, m := range mappings {
		// A service listens on every node; an address of one of them means nothing to the others.
		if ip := m.Binding.HostIP; ip != "" && ip != "0.0.0.0" {
			return nil, fmt.Errorf("hostip is not supported: a service listens on every node, and %s is an address of one of them; leave it out", ip)
		}
		start, end, err := publishedRange(m.Binding.HostPort)
		if err != nil {
			return nil, fmt.Errorf("invalid hostport binding (%s) for port (%s)", m.Binding.HostPort, m.Port.Port())
		}
		for published := start; published <= end; published++ {
			ports = append(ports, swarm.PortConfig{
				Protocol:      swarm.PortConfigProtocol(strings.ToLower(m.Port.Proto())),
				TargetPort:    uint32(m.Port.Int()),
				PublishedPort: uint32(published),
				PublishMode:   swarm.PortConfigPublishModeIngress,
			})
		}
	}
	return ports, nil
}

func publishedRange(hostPort string) (start, end int, err error) {
	if hostPort == "" {
		return 0, 0, nil
	}
	return nat.ParsePortRangeToInt(hostPort)
}

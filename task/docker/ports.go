package docker

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-connections/nat"

	"shoal/internal/api"
)

// Ports that a task publishes on its own node are the engine's where the task is
// on its bridge, and the mesh's where it is on networks of the cluster. The
// engine finds out by itself that one is taken. The mesh takes it away from
// whoever listens there, so it is asked about before.

// portsFree refuses ports that somebody outside of the cluster has on this host.
func (e *Executor) portsFree(ctx context.Context, ports nat.PortMap) error {
	for _, p := range portConfigs(ports) {
		protocol, port := string(p.Protocol), uint16(p.PublishedPort)
		if name, err := e.PublishedBy(ctx, protocol, port); err != nil {
			return err
		} else if name != "" {
			return e.portTaken(ctx, protocol, port, "container "+name)
		}
		if e.cfg.PortOwner == nil {
			continue
		}
		if owner, err := e.cfg.PortOwner(protocol, port); err != nil {
			return fmt.Errorf("who has port %d/%s: %w", port, protocol, err)
		} else if owner != "" {
			return e.portTaken(ctx, protocol, port, owner)
		}
	}
	return nil
}

// choices bounds how often a number is chosen again because somebody has it.
const choices = 32

// choosePorts gives a number to each port that a task on networks of the cluster
// publishes without one, as the engine does for those on its bridge. The
// container keeps them: a label has them where lists of containers show nothing.
// Nobody else chooses before made is called, when the container is there.
func (e *Executor) choosePorts(ctx context.Context, s *api.NodeState, cc *compiled) (made func(), err error) {
	if !open(cc.host.PortBindings) {
		return func() {}, nil
	}
	e.choosing.Lock()
	defer func() {
		if err != nil {
			e.choosing.Unlock()
		}
	}()
	chosen := nat.PortMap{}
	for port, bindings := range cc.host.PortBindings {
		for i, b := range bindings {
			if b.HostPort != "" {
				continue
			}
			number, err := e.choosePort(ctx, s, port.Proto(), cc.host.PortBindings)
			if err != nil {
				return nil, fmt.Errorf("choose a port of this node for %s: %w", port, err)
			}
			bindings[i].HostPort = strconv.Itoa(int(number))
			chosen[port] = append(chosen[port], bindings[i])
		}
	}
	cc.config.Labels[labelPorts] = portList(chosen)
	return e.choosing.Unlock, nil
}

// open tells whether there is a port without a number.
func open(ports nat.PortMap) bool {
	for _, bindings := range ports {
		if slices.ContainsFunc(bindings, func(b nat.PortBinding) bool { return b.HostPort == "" }) {
			return true
		}
	}
	return false
}

// choosePort finds a number that no process, container or published port has.
func (e *Executor) choosePort(ctx context.Context, s *api.NodeState, protocol string, own nat.PortMap) (number uint16, err error) {
	for range choices {
		if number, err = unusedPort(protocol); err != nil {
			return 0, err
		}
		one := nat.PortMap{nat.Port("1/" + protocol): {{HostPort: strconv.Itoa(int(number))}}}
		if published(own, protocol, number) || meshed(s, protocol, number) {
			err = fmt.Errorf("port %d/%s is published already", number, protocol)
		} else if err = e.portsFree(ctx, one); err == nil {
			return number, nil
		} else if !errdefs.IsConflict(err) {
			return 0, err
		}
	}
	return 0, err
}

// unusedPort has the kernel choose, from the range that engines take theirs from.
func unusedPort(protocol string) (uint16, error) {
	if protocol == "udp" {
		c, err := net.ListenPacket("udp4", ":0")
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
	}
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// published tells whether bindings have a port of the host.
func published(ports nat.PortMap, protocol string, number uint16) bool {
	return slices.ContainsFunc(portConfigs(ports), func(p swarm.PortConfig) bool {
		return string(p.Protocol) == protocol && p.PublishedPort == uint32(number)
	})
}

// meshed tells whether the routing mesh has a port on every node.
func meshed(s *api.NodeState, protocol string, number uint16) bool {
	for _, e := range s.Endpoints {
		if slices.ContainsFunc(e.Ports, func(p api.Port) bool { return p.Protocol == protocol && p.Published == number }) {
			return true
		}
	}
	return false
}

// portList writes ports of the host as labelPorts has them.
func portList(ports nat.PortMap) string {
	var all []string
	for _, p := range portConfigs(ports) {
		all = append(all, fmt.Sprintf("%d/%s", p.PublishedPort, p.Protocol))
	}
	return strings.Join(all, ",")
}

// portTaken says who has a port, in the words of the managers, who look before.
func (e *Executor) portTaken(ctx context.Context, protocol string, port uint16, owner string) error {
	where := "this node"
	if info, err := e.Info(ctx); err == nil && info.Name != "" {
		where = "node " + info.Name
	}
	return &engineError{text: fmt.Sprintf("port %d/%s is already in use on %s by %s", port, protocol, where, owner), kind: errdefs.ErrConflict}
}

// portRefused matches what engines say of a port of the host that somebody has:
// a process, or another container. Which port it is they say in many ways.
var (
	portRefused = regexp.MustCompile(`driver failed programming external connectivity .*(?:address already in use|port is already allocated)`)
	portNumber  = regexp.MustCompile(`:([0-9]+)\b`)
)

// nameHolder gives the reason why a container could not start with the name of
// who has its port. Engines know the port alone, and it is too early to look
// before they do: the task that this one replaces may just be letting it go.
func (e *Executor) nameHolder(ctx context.Context, id string, refusal error) error {
	text := refusal.Error()
	if !portRefused.MatchString(text) {
		return refusal
	}
	c, err := e.engine(ctx)
	if err != nil {
		return refusal
	}
	in, err := c.ContainerInspect(ctx, id)
	if err != nil || in.HostConfig == nil {
		return refusal
	}
	named := map[string]bool{}
	for _, m := range portNumber.FindAllStringSubmatch(text, -1) {
		named[m[1]] = true
	}
	refused := nat.PortMap{}
	for p, bindings := range in.HostConfig.PortBindings {
		for _, b := range bindings {
			if named[b.HostPort] {
				refused[p] = append(refused[p], b)
			}
		}
	}
	// Not being able to say who it is, or that nobody has the port any more,
	// leaves the engine's word.
	if err := e.portsFree(ctx, refused); errdefs.IsConflict(err) {
		return err
	}
	return refusal
}

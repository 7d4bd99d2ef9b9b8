package docker

import (
	"context"
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
	"github.com/docker/go-connections/nat"
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

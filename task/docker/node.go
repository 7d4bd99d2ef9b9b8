package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// nanoCPUs is one core in the unit that resources are counted in.
const nanoCPUs = 1_000_000_000

// Ping tells whether the engine answers.
func (e *Executor) Ping(ctx context.Context) error {
	return e.do(ctx, func(c *client.Client) error {
		_, err := c.Ping(ctx)
		return err
	})
}

// Describe says what the engine's machine is and has. An engine that is itself
// in swarm mode is refused: two orchestrators would fight over it.
func (e *Executor) Describe(ctx context.Context) (swarm.NodeDescription, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return swarm.NodeDescription{}, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return swarm.NodeDescription{}, say(err)
	}
	return describe(&info)
}

func describe(info *system.Info) (swarm.NodeDescription, error) {
	if st := info.Swarm.LocalNodeState; st != "" && st != swarm.LocalNodeStateInactive {
		return swarm.NodeDescription{}, &engineError{
			text: `this engine is in swarm mode; run "docker swarm leave" on it first, shoal replaces it`,
			kind: errdefs.ErrFailedPrecondition,
		}
	}
	d := swarm.NodeDescription{
		Hostname: info.Name,
		Platform: swarm.Platform{Architecture: architecture(info.Architecture), OS: info.OSType},
		Resources: swarm.Resources{
			NanoCPUs: int64(info.NCPU) * nanoCPUs, MemoryBytes: info.MemTotal, GenericResources: info.GenericResources,
		},
		Engine: swarm.EngineDescription{EngineVersion: info.ServerVersion, Labels: map[string]string{}},
	}
	for _, l := range info.Labels {
		if k, v, ok := strings.Cut(l, "="); ok {
			d.Engine.Labels[k] = v
		}
	}
	for typ, names := range map[string][]string{
		"Volume": info.Plugins.Volume, "Network": info.Plugins.Network,
		"Authorization": info.Plugins.Authorization, "Log": info.Plugins.Log,
	} {
		for _, name := range names {
			d.Engine.Plugins = append(d.Engine.Plugins, swarm.PluginDescription{Type: typ, Name: name})
		}
	}
	slices.SortFunc(d.Engine.Plugins, func(a, b swarm.PluginDescription) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return d, nil
}

// architecture gives the kernel's name for a processor, which Docker Swarm uses
// in constraints, whichever name the engine gave.
func architecture(name string) string {
	switch name {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return name
}

// PublishedBy names the container that publishes a port of the host, or will when
// it is started; "" when there is none.
func (e *Executor) PublishedBy(ctx context.Context, proto string, port uint16) (string, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return "", err
	}
	live := filters.NewArgs()
	for _, state := range []container.ContainerState{container.StateCreated, container.StateRunning, container.StatePaused, container.StateRestarting} {
		live.Add("status", string(state))
	}
	cs, err := c.ContainerList(ctx, container.ListOptions{Filters: live})
	if err != nil {
		return "", say(err)
	}
	for _, ct := range cs {
		here := slices.ContainsFunc(ct.Ports, func(p container.Port) bool { return p.PublicPort == port && p.Type == proto }) ||
			slices.Contains(strings.Split(ct.Labels[labelPorts], ","), fmt.Sprintf("%d/%s", port, proto))
		if here && len(ct.Names) > 0 {
			return strings.TrimPrefix(ct.Names[0], "/"), nil
		}
	}
	return "", nil
}

// RemoveAll removes every container and network of a cluster, for a node that
// leaves it; "" stands for every cluster that this engine was in.
func (e *Executor) RemoveAll(ctx context.Context, clusterID string) error {
	c, err := e.engine(ctx)
	if err != nil {
		return err
	}
	cs, err := c.ContainerList(ctx, container.ListOptions{All: true, Filters: clusterFilter(clusterID)})
	if err != nil {
		return say(err)
	}
	var errs []error
	for _, ct := range cs {
		if err := e.Remove(ctx, ct.ID); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove container %s: %w", ct.ID, err))
		}
	}
	e.networks.Lock()
	defer e.networks.Unlock()
	ns, err := c.NetworkList(ctx, network.ListOptions{Filters: clusterFilter(clusterID)})
	if err != nil {
		errs = append(errs, say(err))
	}
	for _, n := range ns {
		// Containers that are no tasks stay, without the network.
		if in, err := c.NetworkInspect(ctx, n.ID, network.InspectOptions{}); err == nil {
			for id := range in.Containers {
				_ = c.NetworkDisconnect(ctx, n.ID, id, true) // what fails shows as a network in use
			}
		}
		if err := say(c.NetworkRemove(ctx, n.ID)); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove network %s: %w", n.Name, err))
		}
	}
	errs = append(errs, e.files.clear())
	return errors.Join(errs...)
}

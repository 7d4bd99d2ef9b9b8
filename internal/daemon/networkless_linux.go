package daemon

import (
	"context"
	"fmt"
	"strings"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb"
)

// A daemon that may not change the host's network runs tasks that need none of
// the cluster's networks, which the managers know. Ports are published on its node
// as on any other: it passes clients on to nodes with tasks.

// networkless says why this node can have none of the cluster's networks, or "".
func networkless() string {
	if capabilities()&capNetAdmin == 0 {
		return "its daemon runs without CAP_NET_ADMIN"
	}
	return ""
}

// unencumbered refuses a host where a daemon with CAP_NET_ADMIN has served. Its
// rules would go on leading clients to tasks that have left, past whatever this
// one serves, and nobody would take a route to a task away again.
func unencumbered() error {
	names, err := netkit.Remains()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("the cluster's networks are on this host (%s), and without CAP_NET_ADMIN the daemon can neither change nor remove them: "+
			"start it with CAP_NET_ADMIN; to have it without, \"shoal swarm leave\" then, or restart the host", strings.Join(names, ", "))
	}
	return nil
}

// tableOf makes what is served in userspace of a state.
func tableOf(networkless string) func(*api.NodeState, map[string]bool) lb.Table {
	if networkless != "" {
		return lb.Relayed
	}
	return lb.Compile
}

// network is the ways to tasks.
type network interface {
	Bar() error
	Set(ctx context.Context, s *api.NodeState) error
	Run(ctx context.Context) error
	Clear(ctx context.Context) error
	Differences() ([]string, error)
	Broken() error
	Rekey(ctx context.Context) error
}

// names answers containers that ask for names.
type names interface {
	Set(s *api.NodeState)
	Mute(nodeID string, mute bool)
	Run(ctx context.Context) error
	Clear() error
	Trouble() string
}

// plane is the part of the mesh that the kernel serves.
type plane interface {
	Set(ctx context.Context, s *api.NodeState) error
	Mute(ctx context.Context, nodeID string, mute bool) error
	Run(ctx context.Context) error
	Clear(ctx context.Context) error
	Differs() (string, error)
}

// What a node without networks has in their place.
type (
	noNetwork struct{}
	noNames   struct{}
	noPlane   struct{}
)

func (noNetwork) Bar() error                                { return nil }
func (noNetwork) Set(context.Context, *api.NodeState) error { return nil }
func (noNetwork) Run(ctx context.Context) error             { return rest(ctx) }
func (noNetwork) Clear(context.Context) error               { return nil }
func (noNetwork) Differences() ([]string, error)            { return nil, nil }
func (noNetwork) Broken() error                             { return nil }
func (noNetwork) Rekey(context.Context) error               { return nil }

func (noNames) Set(*api.NodeState)            {}
func (noNames) Mute(string, bool)             {}
func (noNames) Run(ctx context.Context) error { return rest(ctx) }
func (noNames) Clear() error                  { return nil }
func (noNames) Trouble() string               { return "" }

func (noPlane) Set(context.Context, *api.NodeState) error { return nil }
func (noPlane) Mute(context.Context, string, bool) error  { return nil }
func (noPlane) Run(ctx context.Context) error             { return rest(ctx) }
func (noPlane) Clear(context.Context) error               { return nil }
func (noPlane) Differs() (string, error)                  { return "", nil }

// rest is the life of what has nothing to do.
func rest(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

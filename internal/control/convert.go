package control

import (
	"cmp"
	"strconv"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// The functions here say in Docker's types what the store holds.

func (c *Control) dockerNode(n *api.Node) swarm.Node {
	out := swarm.Node{
		ID:          n.ID,
		Meta:        n.Docker(),
		Spec:        n.Spec,
		Description: n.Description,
		Status:      n.Status,
	}
	if out.Spec.Labels == nil {
		out.Spec.Labels = map[string]string{}
	}
	if n.Role == swarm.NodeRoleManager {
		out.ManagerStatus = &swarm.ManagerStatus{Addr: n.Addr, Reachability: swarm.ReachabilityUnknown}
		if c.members != nil {
			out.ManagerStatus.Leader = c.members.Leader() == n.ID
			out.ManagerStatus.Reachability = swarm.ReachabilityUnreachable
			if c.members.Reachable(n.ID) {
				out.ManagerStatus.Reachability = swarm.ReachabilityReachable
			}
		}
	}
	return out
}

func dockerService(s *api.Service) swarm.Service {
	return swarm.Service{
		ID:           s.ID,
		Meta:         s.Docker(),
		Spec:         s.Spec,
		PreviousSpec: s.Previous,
		Endpoint:     s.Endpoint,
		UpdateStatus: s.UpdateStatus,
		JobStatus:    s.JobStatus,
	}
}

// dockerTask joins a task with the revision it points to.
func dockerTask(v *store.View, t *api.Task) swarm.Task {
	out := swarm.Task{
		ID:           t.ID,
		Meta:         t.Docker(),
		Annotations:  swarm.Annotations{Labels: map[string]string{}},
		ServiceID:    t.ServiceID,
		Slot:         t.Slot,
		NodeID:       nodeOf(t),
		Status:       t.Status,
		DesiredState: desiredState(t),
	}
	out.GenericResources = t.Generic
	if t.Iteration != nil {
		out.JobIteration = &swarm.Version{Index: *t.Iteration}
	}
	if r, ok := v.Revisions.Get(t.Revision); ok {
		out.Spec = r.Spec.TaskTemplate
		out.NetworksAttachments = predefinedAttachments(&out.Spec)
		out.Spec.Runtime = "" // Swarm tells it of services alone
	}
	for _, a := range t.Networks {
		n, ok := v.Networks.Get(a.NetworkID)
		if !ok {
			n = &api.Network{Meta: api.Meta{ID: a.NetworkID}}
		}
		out.NetworksAttachments = append(out.NetworksAttachments,
			swarm.NetworkAttachment{Network: dockerNetwork(n), Addresses: []string{a.Addr.String()}})
	}
	return out
}

// nodeOf is the node of a task, also while it waits for room there.
func nodeOf(t *api.Task) string { return cmp.Or(t.NodeID, t.Home) }

// desiredState is what clients are told. A job's task is there to complete. Of
// others that have ended nothing more is wanted, though the record here stays as
// it is: it is that of its slot until another task takes it.
func desiredState(t *api.Task) swarm.TaskState {
	switch {
	case t.DesiredState != swarm.TaskStateRunning:
		return t.DesiredState
	case t.Iteration != nil:
		return swarm.TaskStateComplete
	case api.Terminal(t.Status.State):
		return swarm.TaskStateShutdown
	}
	return t.DesiredState
}

// vniOption is where Docker's overlay driver shows the number of its tunnel.
const vniOption = "com.docker.network.driver.overlay.vxlanid_list"

func dockerNetwork(n *api.Network) swarm.Network {
	out := swarm.Network{ID: n.ID, Meta: n.Docker(), Spec: n.Spec}
	if d := n.Spec.DriverConfiguration; d != nil {
		out.DriverState = swarm.Driver{Name: d.Name, Options: map[string]string{vniOption: strconv.FormatUint(uint64(n.VNI), 10)}}
		for k, v := range d.Options {
			out.DriverState.Options[k] = v
		}
	}
	ipam := &swarm.IPAMOptions{Driver: swarm.Driver{Name: "default"}}
	for _, s := range n.Subnets {
		config := swarm.IPAMConfig{Subnet: s.Prefix.String()}
		if s.Gateway.IsValid() {
			config.Gateway = s.Gateway.String()
		}
		if s.Range.IsValid() {
			config.Range = s.Range.String()
		}
		ipam.Configs = append(ipam.Configs, config)
	}
	out.IPAMOptions = ipam
	return out
}

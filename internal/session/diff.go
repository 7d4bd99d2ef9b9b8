package session

import (
	"bytes"
	"reflect"
	"slices"

	"shoal/internal/api"
)

// diff gives the frames that turn old into next. A nil old is a node that knows
// nothing. What is new comes before what refers to it, and what is gone goes
// after.
func diff(old, next *api.NodeState) []down {
	if old == nil {
		old = &api.NodeState{}
	}
	var out []down
	if old.Node == nil || old.Node.Version != next.Node.Version {
		out = append(out, down{Node: next.Node})
	}
	if !slices.EqualFunc(old.GossipKeys, next.GossipKeys, bytes.Equal) {
		out = append(out, down{GossipKeys: next.GossipKeys})
	}
	if !next.WireGuardFrom.Equal(old.WireGuardFrom) { // it only ever grows
		out = append(out, down{WireGuard: next.WireGuardFrom})
	}
	if next.Trust != nil && !reflect.DeepEqual(old.Trust, next.Trust) {
		out = append(out, down{Trust: next.Trust})
	}
	for id, n := range next.Networks {
		if o := old.Networks[id]; o == nil || o.Version != n.Version {
			out = append(out, down{Network: n})
		}
	}
	for id, r := range next.Remotes {
		if o := old.Remotes[id]; o == nil || !reflect.DeepEqual(o, r) {
			out = append(out, down{Remote: r})
		}
	}
	for id, p := range next.Peers {
		if o, ok := old.Peers[id]; !ok || o != p {
			out = append(out, down{Peer: &p})
		}
	}
	out = diffFiles(out, old, next)
	out = diffTasks(out, old, next)
	for id, e := range next.Endpoints {
		if o := old.Endpoints[id]; o != e {
			out = diffEndpoint(out, o, e)
		}
	}
	for id := range old.Endpoints {
		if next.Endpoints[id] == nil {
			out = append(out, down{EndpointGone: id})
		}
	}
	for id := range old.Remotes {
		if next.Remotes[id] == nil {
			out = append(out, down{RemoteGone: id})
		}
	}
	for id := range old.Peers {
		if _, ok := next.Peers[id]; !ok {
			out = append(out, down{PeerGone: id})
		}
	}
	for id := range old.Networks {
		if next.Networks[id] == nil {
			out = append(out, down{NetworkGone: id})
		}
	}
	return filesGone(out, old, next)
}

func diffTasks(out []down, old, next *api.NodeState) []down {
	had, have := revisions(old), revisions(next)
	for id, r := range have {
		if had[id] == nil {
			out = append(out, down{Revision: r})
		}
	}
	for id, a := range next.Tasks {
		if o := old.Tasks[id]; o == nil || !sameForNode(o, a) {
			out = append(out, down{Task: &task{Task: a.Task, RegistryAuth: a.RegistryAuth, ClusterAuth: a.ClusterAuth, Draining: a.Draining}})
		}
	}
	for id := range old.Tasks {
		if next.Tasks[id] == nil {
			out = append(out, down{TaskGone: id})
		}
	}
	for id := range had {
		if have[id] == nil {
			out = append(out, down{RevisionGone: id})
		}
	}
	return out
}

func revisions(s *api.NodeState) map[string]*api.Revision {
	m := map[string]*api.Revision{}
	for _, a := range s.Tasks {
		m[a.Revision.ID] = a.Revision
	}
	return m
}

// sameForNode leaves out a task's status: the node itself reported it.
func sameForNode(a, b *api.Assignment) bool {
	return a.RegistryAuth == b.RegistryAuth && a.ClusterAuth == b.ClusterAuth && a.Draining == b.Draining && (a.Task == b.Task ||
		a.Task.DesiredState == b.Task.DesiredState &&
			a.Task.Revision == b.Task.Revision &&
			reflect.DeepEqual(a.Task.Networks, b.Task.Networks))
}

func diffEndpoint(out []down, old, next *api.Endpoint) []down {
	if old == nil {
		old = &api.Endpoint{}
	}
	head := *next
	head.Backends = nil
	oldHead := *old
	oldHead.Backends = nil
	if !reflect.DeepEqual(oldHead, head) {
		out = append(out, down{Endpoint: &head})
	}
	had := map[string]api.Backend{}
	for _, b := range old.Backends {
		had[b.TaskID] = b
	}
	for _, b := range next.Backends {
		if o, ok := had[b.TaskID]; !ok || !reflect.DeepEqual(o, b) {
			out = append(out, down{Backend: &backend{ServiceID: next.ServiceID, Backend: b}})
		}
		delete(had, b.TaskID)
	}
	for id := range had {
		out = append(out, down{BackendGone: &backendKey{ServiceID: next.ServiceID, TaskID: id}})
	}
	return out
}

package session

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"shoal/internal/api"
)

// assembly puts frames together again to the state they were taken from.
type assembly struct {
	cluster    welcome
	node       *api.Node
	trust      *api.Trust
	revisions  map[string]*api.Revision
	gossipKeys [][]byte
	wireGuard  time.Time
	tasks      map[string]*task
	networks   map[string]*api.Network
	heads      map[string]*api.Endpoint
	backends   map[string]map[string]api.Backend // by service, by task
	remotes    map[string]*api.Remote
	peers      map[string]api.Peer
	files      map[string]*api.File
	pieces     map[string]*api.Piece
}

func newAssembly(cluster welcome) *assembly {
	return &assembly{
		cluster:   cluster,
		revisions: map[string]*api.Revision{},
		tasks:     map[string]*task{},
		networks:  map[string]*api.Network{},
		heads:     map[string]*api.Endpoint{},
		backends:  map[string]map[string]api.Backend{},
		remotes:   map[string]*api.Remote{},
		peers:     map[string]api.Peer{},
		files:     map[string]*api.File{},
		pieces:    map[string]*api.Piece{},
	}
}

// add takes in one frame.
func (a *assembly) add(f *down) {
	switch {
	case f.Node != nil:
		a.node = f.Node
	case f.GossipKeys != nil:
		a.gossipKeys = f.GossipKeys
	case !f.WireGuard.IsZero():
		a.wireGuard = f.WireGuard
	case f.Trust != nil:
		a.trust = f.Trust
	case f.Revision != nil:
		a.revisions[f.Revision.ID] = f.Revision
	case f.RevisionGone != "":
		delete(a.revisions, f.RevisionGone)
	case f.Task != nil:
		a.tasks[f.Task.Task.ID] = f.Task
	case f.TaskGone != "":
		delete(a.tasks, f.TaskGone)
	case f.Network != nil:
		a.networks[f.Network.ID] = f.Network
	case f.NetworkGone != "":
		delete(a.networks, f.NetworkGone)
	case f.Endpoint != nil:
		a.heads[f.Endpoint.ServiceID] = f.Endpoint
	case f.EndpointGone != "":
		delete(a.heads, f.EndpointGone)
		delete(a.backends, f.EndpointGone)
	case f.Backend != nil:
		m := a.backends[f.Backend.ServiceID]
		if m == nil {
			m = map[string]api.Backend{}
			a.backends[f.Backend.ServiceID] = m
		}
		m[f.Backend.Backend.TaskID] = f.Backend.Backend
	case f.BackendGone != nil:
		delete(a.backends[f.BackendGone.ServiceID], f.BackendGone.TaskID)
	case f.Remote != nil:
		a.remotes[f.Remote.TaskID] = f.Remote
	case f.RemoteGone != "":
		delete(a.remotes, f.RemoteGone)
	case f.Peer != nil:
		a.peers[f.Peer.NodeID] = *f.Peer
	case f.PeerGone != "":
		delete(a.peers, f.PeerGone)
	case f.File != nil:
		a.files[f.File.ID] = f.File
	case f.FileGone != "":
		delete(a.files, f.FileGone)
	case f.Piece != nil:
		a.pieces[f.Piece.ID] = f.Piece
	case f.PieceGone != "":
		delete(a.pieces, f.PieceGone)
	}
}

// state gives the complete state that a commit closes. It shares nothing that
// later frames change.
func (a *assembly) state(index uint64) (*api.NodeState, error) {
	if a.node == nil {
		return nil, fmt.Errorf("state %d says nothing of the node itself", index)
	}
	s := &api.NodeState{
		Index: index, ClusterID: a.cluster.ClusterID, DataPathPort: a.cluster.DataPathPort, AddrPools: a.cluster.AddrPools,
		Node:       a.node,
		Trust:      a.trust,
		GossipKeys: a.gossipKeys,

		WireGuardFrom: a.wireGuard,

		Tasks:     make(map[string]*api.Assignment, len(a.tasks)),
		Networks:  maps.Clone(a.networks),
		Endpoints: make(map[string]*api.Endpoint, len(a.heads)),
		Remotes:   maps.Clone(a.remotes),
		Peers:     maps.Clone(a.peers),
		Files:     maps.Clone(a.files),
		Pieces:    maps.Clone(a.pieces),
	}
	for id, t := range a.tasks {
		rev := a.revisions[t.Task.Revision]
		if rev == nil {
			return nil, fmt.Errorf("state %d: task %s has unknown revision %s", index, id, t.Task.Revision)
		}
		s.Tasks[id] = &api.Assignment{Task: t.Task, Revision: rev, RegistryAuth: t.RegistryAuth, ClusterAuth: t.ClusterAuth, Draining: t.Draining}
	}
	for id, h := range a.heads {
		e := *h
		e.Backends = slices.SortedFunc(maps.Values(a.backends[id]), func(x, y api.Backend) int {
			return strings.Compare(x.TaskID, y.TaskID)
		})
		s.Endpoints[id] = &e
	}
	return s, nil
}

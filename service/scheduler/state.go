// Package scheduler chooses nodes for tasks. It is a plain data structure that
// its owner keeps in step with the store; it does no I/O and knows no time.
//
// Nodes are kept in the order of how busy they are. A pass walks that order as
// far as it needs to: placing one more task costs about log(nodes), plus one
// look at each node that refuses, once in a pass.
package scheduler

import (
	"cmp"

	"github.com/docker/docker/api/types/swarm"
	"github.com/tidwall/btree"

	"shoal/internal/api"
)

// State is what the scheduler knows of nodes and of the tasks on them.
type State struct {
	nodes map[string]*node
	order *btree.BTreeG[rank] // all nodes, the least busy first
	loads map[string]load     // by task ID
	// services has the nodes with tasks wanted, by service and node ID.
	services map[string]map[string]*node
}

// node is one node with the sum of its tasks.
type node struct {
	*api.Node
	cpus, memory int64          // reserved by tasks
	tasks        int            // that run, or are about to
	generic      generic        // held by tasks
	ports        map[Port]int   // taken by tasks
	services     map[string]int // tasks wanted there, by service
}

// load is what one task contributes to its node.
type load struct {
	nodeID, serviceID string
	cpus, memory      int64
	ports             []Port
	generic           []swarm.GenericResource
	wanted            bool // and not on its way out
}

// rank orders nodes: fewer tasks, then less reserved memory, then the ID, so
// that the order never depends on chance.
type rank struct {
	tasks  int
	memory int64
	cpus   int64
	id     string
}

func (a rank) compare(b rank) int {
	return cmp.Or(cmp.Compare(a.tasks, b.tasks), cmp.Compare(a.memory, b.memory),
		cmp.Compare(a.cpus, b.cpus), cmp.Compare(a.id, b.id))
}

func (n *node) rank() rank { return rank{n.tasks, n.memory, n.cpus, n.ID} }

// New returns a State without nodes.
func New() *State {
	return &State{
		nodes: map[string]*node{},
		order: btree.NewBTreeGOptions(func(a, b rank) bool { return a.compare(b) < 0 }, btree.Options{NoLocks: true}),
		loads: map[string]load{},

		services: map[string]map[string]*node{},
	}
}

// SetNode adds a node, or replaces what is known of it. A node comes before its
// tasks: SetTask ignores those of a node that is not there.
func (s *State) SetNode(n *api.Node) {
	if known, ok := s.nodes[n.ID]; ok {
		known.Node = n
		return
	}
	added := &node{Node: n, ports: map[Port]int{}, services: map[string]int{}}
	s.nodes[n.ID] = added
	s.order.Set(added.rank())
}

// RemoveNode forgets a node and the tasks on it.
func (s *State) RemoveNode(id string) {
	n, ok := s.nodes[id]
	if !ok {
		return
	}
	for task, l := range s.loads {
		if l.nodeID == id {
			s.RemoveTask(task)
		}
	}
	s.order.Delete(n.rank())
	delete(s.nodes, id)
}

// SetTask records a task as it is now; r is its revision, or nil if that is
// unknown. It tells whether this gave anything back to a node.
func (s *State) SetTask(t *api.Task, r *api.Revision) (freed bool) {
	if _, known := s.nodes[t.NodeID]; !known || api.Terminal(t.Status.State) {
		return s.RemoveTask(t.ID)
	}
	l := load{nodeID: t.NodeID, serviceID: t.ServiceID, generic: t.Generic, wanted: Wanted(t)}
	if r != nil {
		l.cpus, l.memory = reserved(r)
		l.ports = hostPorts(r)
	}
	old, existed := s.loads[t.ID]
	if existed && old.nodeID == l.nodeID && old.wanted == l.wanted {
		return false // reservations are the same in every revision that a task ever has
	}
	s.set(t.ID, l)
	return existed && old.wanted && !l.wanted
}

// RemoveTask forgets a task. It tells whether this gave anything back.
func (s *State) RemoveTask(id string) (freed bool) {
	l, ok := s.loads[id]
	if !ok {
		return false
	}
	s.shift(l, -1)
	delete(s.loads, id)
	return true
}

// Wanted tells whether a task is meant to run, now or soon.
func Wanted(t *api.Task) bool {
	return t.DesiredState == swarm.TaskStateReady || t.DesiredState == swarm.TaskStateRunning
}

func (s *State) set(taskID string, l load) {
	if old, ok := s.loads[taskID]; ok {
		s.shift(old, -1)
	}
	s.shift(l, 1)
	s.loads[taskID] = l
}

// shift adds a load to its node, or takes it away, and keeps the order right.
func (s *State) shift(l load, sign int) {
	n := s.nodes[l.nodeID]
	s.order.Delete(n.rank())
	n.add(l, sign)
	s.order.Set(n.rank())
	if n.services[l.serviceID] > 0 {
		if s.services[l.serviceID] == nil {
			s.services[l.serviceID] = map[string]*node{}
		}
		s.services[l.serviceID][n.ID] = n
		return
	}
	delete(s.services[l.serviceID], n.ID)
	if len(s.services[l.serviceID]) == 0 {
		delete(s.services, l.serviceID)
	}
}

func (n *node) add(l load, sign int) {
	n.tasks += sign
	n.cpus += int64(sign) * l.cpus
	n.memory += int64(sign) * l.memory
	n.generic.add(l.generic, sign)
	for _, p := range l.ports {
		n.ports[p] += sign
		if n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
	if l.wanted {
		n.services[l.serviceID] += sign
		if n.services[l.serviceID] == 0 {
			delete(n.services, l.serviceID)
		}
	}
}

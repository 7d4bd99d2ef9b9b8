package scheduler

import (
	"cmp"
	"container/heap"
	"errors"
	"iter"
	"maps"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Pass places the tasks of one revision, one after the other. It belongs to
// the State it was made from, which must not change otherwise during the pass.
type Pass struct {
	state *State
	req   Request
	root  branch
	why   refusals
	// avoided are nodes that would have a task and are kept for the last.
	avoided []*node
}

// branch is a group of nodes: a leaf with the nodes, or groups within it.
type branch interface {
	// take gives the best node of the branch, or nil if all refuse.
	take(p *Pass) *node
	// size is how many tasks of the service the branch has.
	size() int
}

// Pass begins placing tasks for a request.
func (s *State) Pass(q Request) *Pass {
	p := &Pass{state: s, req: q}
	if len(q.Spread) > 0 {
		p.root = p.tree()
	} else {
		p.root = p.lazy()
	}
	return p
}

// Place chooses the node of one task, and counts the task there with what it
// gets of the node's generic resources. The error says why no node will have it.
func (p *Pass) Place(t *api.Task) (nodeID string, got []swarm.GenericResource, err error) {
	n := p.root.take(p)
	if n == nil {
		n = p.lastResort()
	}
	if n == nil {
		return "", nil, errors.New(p.why.explain(&p.req))
	}
	return n.ID, p.give(t, n), nil
}

// PlaceOn puts a task on the one node that it is for, if that can take it.
func (p *Pass) PlaceOn(t *api.Task) (got []swarm.GenericResource, err error) {
	var why refusals
	n, ok := p.state.nodes[t.Home]
	if !ok {
		return nil, errors.New(why.explain(&p.req))
	}
	if r := p.req.refuses(n); r != accepted {
		why.add(r, n, &p.req)
		return nil, errors.New(why.explain(&p.req))
	}
	return p.give(t, n), nil
}

func (p *Pass) give(t *api.Task, n *node) []swarm.GenericResource {
	got := p.req.claim(n)
	p.state.set(t.ID, load{
		nodeID: n.ID, serviceID: p.req.ServiceID, wanted: true,
		cpus: p.req.NanoCPUs, memory: p.req.Memory, ports: p.req.HostPorts, generic: got,
	})
	return got
}

// accepts asks a node, and remembers a refusal. A node that refuses once
// refuses for the rest of the pass: a pass only ever adds tasks.
func (p *Pass) accepts(n *node) bool {
	why := p.req.refuses(n)
	if why != accepted {
		p.why.add(why, n, &p.req)
		return false
	}
	if p.req.Avoid[n.ID] > 0 {
		p.avoided = append(p.avoided, n)
		return false
	}
	return true
}

// lastResort gives the best of the nodes that were to be avoided, or nil.
func (p *Pass) lastResort() *node {
	slices.SortStableFunc(p.avoided, func(a, b *node) int {
		return cmp.Or(
			cmp.Compare(p.req.Avoid[a.ID], p.req.Avoid[b.ID]),
			cmp.Compare(a.services[p.req.ServiceID], b.services[p.req.ServiceID]),
			a.rank().compare(b.rank()))
	})
	for i, n := range p.avoided {
		why := p.req.refuses(n) // a task that was placed there meanwhile counts
		if why == accepted {
			p.avoided = p.avoided[i:]
			return n
		}
		p.why.add(why, n, &p.req)
	}
	p.avoided = nil
	return nil
}

// leaf is a set of nodes between which only their load decides. Nodes without
// a task of the service come first, from fresh, in the order of their load.
type leaf struct {
	fresh func() *node // nil at the end
	used  shared
	given *node // what take gave last: its load has changed since
	tasks int
}

// lazy makes the leaf of all nodes. It walks the order of the State, which
// moves under it only by what the pass itself places: such a node turns up
// again farther on, and is skipped because it has a task of the service.
func (p *Pass) lazy() branch {
	at := rank{tasks: -1}
	fresh := func() *node {
		var found *node
		p.state.order.Ascend(at, func(r rank) bool {
			n := p.state.nodes[r.id]
			if r == at || n.services[p.req.ServiceID] > 0 {
				return true
			}
			at, found = r, n
			return false
		})
		return found
	}
	return newLeaf(p.req.ServiceID, fresh, maps.Values(p.state.services[p.req.ServiceID]))
}

func newLeaf(serviceID string, fresh func() *node, used iter.Seq[*node]) *leaf {
	l := &leaf{fresh: fresh, used: shared{service: serviceID}}
	for n := range used {
		l.used.nodes = append(l.used.nodes, n)
		l.tasks += n.services[serviceID]
	}
	heap.Init(&l.used)
	return l
}

func (l *leaf) size() int { return l.tasks }

func (l *leaf) take(p *Pass) *node {
	if l.given != nil {
		heap.Push(&l.used, l.given)
		l.given = nil
	}
	for l.fresh != nil {
		n := l.fresh()
		if n == nil {
			l.fresh = nil
		} else if p.accepts(n) {
			return l.give(n)
		}
	}
	for l.used.Len() > 0 {
		if n := heap.Pop(&l.used).(*node); p.accepts(n) {
			return l.give(n)
		}
	}
	return nil
}

func (l *leaf) give(n *node) *node {
	l.given = n
	l.tasks++
	return n
}

// shared is a heap of nodes that have tasks of the service: fewest of these
// first, then the least busy.
type shared struct {
	service string
	nodes   []*node
}

func (h *shared) Len() int      { return len(h.nodes) }
func (h *shared) Swap(i, j int) { h.nodes[i], h.nodes[j] = h.nodes[j], h.nodes[i] }
func (h *shared) Push(x any)    { h.nodes = append(h.nodes, x.(*node)) }

func (h *shared) Pop() any {
	last := len(h.nodes) - 1
	n := h.nodes[last]
	h.nodes = h.nodes[:last]
	return n
}

func (h *shared) Less(i, j int) bool {
	a, b := h.nodes[i], h.nodes[j]
	return cmp.Or(cmp.Compare(a.services[h.service], b.services[h.service]), a.rank().compare(b.rank())) < 0
}

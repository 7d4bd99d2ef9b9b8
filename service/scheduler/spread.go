package scheduler

import (
	"cmp"
	"maps"
	"slices"
)

// group spreads tasks evenly over its branches, one for each value of a label.
// Nodes without the label share a branch, as in Swarm.
type group struct {
	branches []branch
	tasks    int
}

// tree groups the nodes by the labels of the request. Unlike the lazy leaf it
// looks at every node: which groups there are can not be known otherwise.
func (p *Pass) tree() branch {
	all := make([]*node, 0, len(p.state.nodes))
	p.state.order.Scan(func(r rank) bool {
		all = append(all, p.state.nodes[r.id])
		return true
	})
	return p.grow(all, p.req.Spread)
}

// grow builds the branch of nodes that come in the order of their load.
func (p *Pass) grow(nodes []*node, labels []string) branch {
	if len(labels) == 0 {
		return p.leafOf(nodes)
	}
	byValue := map[string][]*node{}
	for _, n := range nodes {
		v := property(n.Node, labels[0])
		byValue[v] = append(byValue[v], n)
	}
	g := &group{}
	for _, v := range slices.Sorted(maps.Keys(byValue)) {
		b := p.grow(byValue[v], labels[1:])
		g.branches = append(g.branches, b)
		g.tasks += b.size()
	}
	return g
}

func (p *Pass) leafOf(nodes []*node) branch {
	var free, used []*node
	for _, n := range nodes {
		if n.services[p.req.ServiceID] > 0 {
			used = append(used, n)
		} else {
			free = append(free, n)
		}
	}
	fresh := func() *node {
		if len(free) == 0 {
			return nil
		}
		n := free[0]
		free = free[1:]
		return n
	}
	return newLeaf(p.req.ServiceID, fresh, slices.Values(used))
}

func (g *group) size() int { return g.tasks }

func (g *group) take(p *Pass) *node {
	for len(g.branches) > 0 {
		least := slices.MinFunc(g.branches, func(a, b branch) int { return cmp.Compare(a.size(), b.size()) })
		if n := least.take(p); n != nil {
			g.tasks++
			return n
		}
		// Nodes that refused once refuse for the rest of the pass.
		g.branches = slices.DeleteFunc(g.branches, func(b branch) bool { return b == least })
	}
	return nil
}

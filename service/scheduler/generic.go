package scheduler

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"
)

// Generic resources are what a node says it has and the scheduler knows no more
// of: GPUs with names of their own, or so many of something.

// Amount is how much of a kind of generic resource is wanted.
type Amount struct {
	Kind  string
	Value int64
}

// String gives the amount as Docker's flags have it.
func (a Amount) String() string { return fmt.Sprintf("%s=%d", a.Kind, a.Value) }

// amounts reads the generic resources that a spec reserves, each kind once.
func amounts(list []swarm.GenericResource) (out []Amount) {
	for _, r := range list {
		d := r.DiscreteResourceSpec
		if d == nil {
			continue
		}
		if i := slices.IndexFunc(out, func(a Amount) bool { return a.Kind == d.Kind }); i >= 0 {
			out[i].Value += d.Value
		} else {
			out = append(out, Amount{d.Kind, d.Value})
		}
	}
	slices.SortFunc(out, func(a, b Amount) int { return cmp.Compare(a.Kind, b.Kind) })
	return out
}

// generic is what the tasks on a node hold of its generic resources.
type generic struct {
	amount map[string]int64
	named  map[swarm.NamedGenericResource]int
}

func (g *generic) add(list []swarm.GenericResource, sign int) {
	if len(list) > 0 && g.amount == nil {
		g.amount, g.named = map[string]int64{}, map[swarm.NamedGenericResource]int{}
	}
	for _, r := range list {
		if d := r.DiscreteResourceSpec; d != nil {
			if g.amount[d.Kind] += int64(sign) * d.Value; g.amount[d.Kind] == 0 {
				delete(g.amount, d.Kind)
			}
		}
		if n := r.NamedResourceSpec; n != nil {
			if g.named[*n] += sign; g.named[*n] == 0 {
				delete(g.named, *n)
			}
		}
	}
}

// free gives what a node has left of a kind: the names, or an amount.
func (n *node) free(kind string) (names []string, amount int64) {
	for _, r := range n.Description.Resources.GenericResources {
		if s := r.NamedResourceSpec; s != nil && s.Kind == kind && n.generic.named[*s] == 0 {
			names = append(names, s.Value)
		}
		if d := r.DiscreteResourceSpec; d != nil && d.Kind == kind {
			amount += d.Value
		}
	}
	return names, max(0, amount-n.generic.amount[kind])
}

// lacks gives the first amount that a node has not got, and what it has of it.
func (q *Request) lacks(n *node) (want Amount, has int64, lacking bool) {
	for _, a := range q.Generic {
		names, amount := n.free(a.Kind)
		if has := max(int64(len(names)), amount); has < a.Value {
			return a, has, true
		}
	}
	return Amount{}, 0, false
}

// claim chooses what a task gets on a node: names where they suffice.
func (q *Request) claim(n *node) (out []swarm.GenericResource) {
	for _, a := range q.Generic {
		names, _ := n.free(a.Kind)
		if int64(len(names)) < a.Value {
			out = append(out, swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: a.Kind, Value: a.Value}})
			continue
		}
		slices.Sort(names)
		for _, name := range names[:a.Value] {
			out = append(out, swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: a.Kind, Value: name}})
		}
	}
	return out
}

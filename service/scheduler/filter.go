package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"
)

// reason is a kind of refusal, in the order that a message lists them: what
// the user can do something about in the spec comes first.
type reason int

const (
	accepted reason = iota
	constraint
	platform
	plugin
	networkless
	encryption
	memory
	cpus
	resource
	port
	maxPerNode
	paused
	drained
	noEngine
	notReady
	reasons // how many there are
)

// refuses tells why a node can not take one more task.
func (q *Request) refuses(n *node) reason {
	switch {
	case n.Status.State != swarm.NodeStateReady:
		return notReady
	case n.NoEngine:
		return noEngine
	case n.Spec.Availability == swarm.NodeAvailabilityDrain:
		return drained
	case n.Spec.Availability == swarm.NodeAvailabilityPause:
		return paused
	case !Allow(q.Constraints, n.Node):
		return constraint
	case !q.runsOn(n):
		return platform
	case len(q.Plugins) > 0 && second(q.lacksPlugin(n)):
		return plugin
	case q.Networks && n.Networkless != "":
		return networkless
	case q.Encrypted && !n.WireGuard.Works():
		return encryption
	case q.MaxPerNode > 0 && n.services[q.ServiceID] >= q.MaxPerNode:
		return maxPerNode
	case q.Memory > 0 && n.freeMemory() < q.Memory:
		return memory
	case q.NanoCPUs > 0 && n.freeCPUs() < q.NanoCPUs:
		return cpus
	case len(q.Generic) > 0 && third(q.lacks(n)):
		return resource
	case slices.ContainsFunc(q.HostPorts, func(p Port) bool { return n.ports[p] > 0 }):
		return port
	}
	return accepted
}

func second[A, B any](_ A, b B) B { return b }

func third[A, B, C any](_ A, _ B, c C) C { return c }

// runsOn compares the image's platforms with the node's. A side that says
// nothing about the system or the architecture fits all.
func (q *Request) runsOn(n *node) bool {
	if len(q.Platforms) == 0 {
		return true
	}
	fits := func(a, b string) bool { return a == "" || b == "" || strings.EqualFold(a, b) }
	have := n.Description.Platform
	return slices.ContainsFunc(q.Platforms, func(p swarm.Platform) bool {
		return fits(p.OS, have.OS) && fits(arch(p.Architecture), arch(have.Architecture))
	})
}

func (n *node) freeMemory() int64 { return n.Description.Resources.MemoryBytes - n.memory }
func (n *node) freeCPUs() int64   { return n.Description.Resources.NanoCPUs - n.cpus }

// refusals counts why nodes refused in one pass.
type refusals struct {
	count      [reasons]int
	freeMemory int64 // the most that any node had which had too little
	freeCPUs   int64
	generic    Amount // the first kind that a node had too little of, and
	has        int64  // the most that any had of it
	plugin     Plugin // the first that a node lacked
	encryption string // why the first could not encrypt
	hostPort   Port   // the first that a node did not have free
	unmet      []bool // which of the constraints some node did not meet
	noNetworks string // why the first has no networks
}

func (r *refusals) add(why reason, n *node, q *Request) {
	switch why {
	case constraint:
		if r.unmet == nil {
			r.unmet = make([]bool, len(q.Constraints))
		}
		for i, c := range q.Constraints {
			r.unmet[i] = r.unmet[i] || !c.Allows(n.Node)
		}
	case port:
		if r.count[why] == 0 {
			r.hostPort = q.HostPorts[slices.IndexFunc(q.HostPorts, func(p Port) bool { return n.ports[p] > 0 })]
		}
	case plugin:
		if r.count[why] == 0 {
			r.plugin, _ = q.lacksPlugin(n)
		}
	case networkless:
		if r.count[why] == 0 {
			r.noNetworks = n.Networkless
		}
	case encryption:
		if r.count[why] == 0 {
			r.encryption = n.WireGuard.WhyNot()
		}
	case resource:
		want, has, _ := q.lacks(n)
		if r.count[why] == 0 {
			r.generic = want
		}
		if want == r.generic {
			r.has = max(r.has, has)
		}
	case memory:
		if r.count[why] == 0 || n.freeMemory() > r.freeMemory {
			r.freeMemory = n.freeMemory()
		}
	case cpus:
		if r.count[why] == 0 || n.freeCPUs() > r.freeCPUs {
			r.freeCPUs = n.freeCPUs()
		}
	}
	r.count[why]++
}

// explain says in one line why a task has no node.
func (r *refusals) explain(q *Request) string {
	var parts []string
	for why := accepted + 1; why < reasons; why++ {
		if c := r.count[why]; c > 0 {
			parts = append(parts, r.phrase(why, q, nodes(c)))
		}
	}
	if len(parts) == 0 {
		return "no suitable node (the cluster has no nodes)"
	}
	return "no suitable node (" + strings.Join(parts, "; ") + ")"
}

// phrase says one reason. The nodes that have it may be left out, for one node
// that is spoken of already.
func (r *refusals) phrase(why reason, q *Request, nodes string) string {
	upTo, on := "", "" // of several nodes, the number is the best one's
	if r.count[why] > 1 {
		upTo = "at most "
	}
	if nodes != "" {
		on = " on " + nodes
		nodes += " "
	}
	switch why {
	case constraint:
		return fmt.Sprintf("constraint %s not satisfied%s", r.constraints(q), on)
	case platform:
		if on == "" {
			return "image does not run on its platform"
		}
		return "image does not run on the platform of " + strings.TrimSpace(nodes)
	case plugin:
		return fmt.Sprintf("%s driver %s missing%s", strings.ToLower(r.plugin.Type), r.plugin.Name, on)
	case networkless:
		return fmt.Sprintf("networks and published ports not possible%s: %s", on, r.noNetworks)
	case encryption:
		return fmt.Sprintf("encrypted network not possible%s: %s", on, r.encryption)
	case memory:
		return fmt.Sprintf("insufficient memory%s: %s%s free, %s reserved by the service",
			on, upTo, units.BytesSize(float64(max(0, r.freeMemory))), units.BytesSize(float64(q.Memory)))
	case cpus:
		return fmt.Sprintf("insufficient CPU%s: %s%s free, %s reserved by the service",
			on, upTo, cores(max(0, r.freeCPUs)), cores(q.NanoCPUs))
	case resource:
		return fmt.Sprintf("insufficient %s%s: %s%d free, %d reserved by the service", r.generic.Kind, on, upTo, r.has, r.generic.Value)
	case port:
		return fmt.Sprintf("host-mode port %d/%s already in use%s", r.hostPort.Published, r.hostPort.Protocol, on)
	case maxPerNode:
		return fmt.Sprintf("max replicas per node (%d) reached%s", q.MaxPerNode, on)
	case paused:
		return nodes + "paused"
	case drained:
		return nodes + "drained"
	case noEngine:
		return "engine not answering" + on
	default:
		return nodes + "not ready"
	}
}

// constraints names those that kept nodes away; what all nodes meet is no reason.
func (r *refusals) constraints(q *Request) string {
	var parts []string
	for i, c := range q.Constraints {
		if r.unmet[i] {
			parts = append(parts, c.String())
		}
	}
	return strings.Join(parts, ", ")
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func cores(nano int64) string { return fmt.Sprintf("%.4g CPUs", float64(nano)/1e9) }

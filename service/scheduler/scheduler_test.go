package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/internal/api"
)

const gib = 1 << 30

func testNode(id string, memory int64, labels map[string]string) *api.Node {
	n := &api.Node{Meta: api.Meta{ID: id}, Role: swarm.NodeRoleWorker}
	n.Spec.Availability = swarm.NodeAvailabilityActive
	n.Spec.Labels = labels
	n.Status.State = swarm.NodeStateReady
	n.Status.Addr = "10.1.2.3"
	n.Description.Hostname = "host-" + id
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	n.Description.Resources = swarm.Resources{MemoryBytes: memory, NanoCPUs: 4e9}
	return n
}

func testTask(i int) *api.Task {
	return &api.Task{Meta: api.Meta{ID: fmt.Sprintf("t%05d", i)}, DesiredState: swarm.TaskStateRunning}
}

// TestUnmet: of several constraints those are named that keep nodes away.
func TestUnmet(t *testing.T) {
	a := &api.Node{Meta: api.Meta{ID: "a"}}
	a.Description.Hostname, a.Role, a.Spec.Labels = "h1", swarm.NodeRoleManager, map[string]string{"zone": "eu"}
	b := &api.Node{Meta: api.Meta{ID: "b"}}
	b.Description.Hostname, b.Role = "h2", swarm.NodeRoleWorker
	s := New()
	for _, n := range []*api.Node{a, b} {
		n.Status.State, n.Spec.Availability = swarm.NodeStateReady, swarm.NodeAvailabilityActive
		s.SetNode(n)
	}
	for _, c := range []struct {
		constraints []string
		unmet, why  string // "" if some node will do
		ofA         string
	}{
		{nil, "[]", "", ""},
		{[]string{"node.role==manager", "node.hostname!=h9"}, "[]", "", ""},
		{[]string{"node.hostname!=h9", "node.hostname==h9"}, "[node.hostname==h9]", "no suitable node (constraint node.hostname==h9 not satisfied on 2 nodes)", "no suitable node (constraint node.hostname==h9 not satisfied on 1 node)"},
		{[]string{"node.role==worker", "node.labels.zone==eu"}, "[node.role==worker node.labels.zone==eu]", "no suitable node (constraint node.role==worker, node.labels.zone==eu not satisfied on 2 nodes)", "no suitable node (constraint node.role==worker not satisfied on 1 node)"},
		{[]string{"node.role==worker", "node.hostname==h9", "node.labels.zone==us"}, "[node.hostname==h9 node.labels.zone==us]", "no suitable node (constraint node.role==worker, node.hostname==h9, node.labels.zone==us not satisfied on 2 nodes)", "no suitable node (constraint node.role==worker, node.hostname==h9, node.labels.zone==us not satisfied on 1 node)"},
	} {
		all, err := ParseConstraints(c.constraints)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(Unmet(all, slices.Values([]*api.Node{a, b}))); got != c.unmet {
			t.Errorf("%v: unmet %s, want %s", all, got, c.unmet)
		}
		q := Request{Constraints: all}
		if got := s.Refusal(q); got != c.why {
			t.Errorf("%v: %q, want %q", all, got, c.why)
		}
		if got := s.RefusalInstead(q, &api.Task{NodeID: "a"}); got != c.ofA {
			t.Errorf("%v on a: %q, want %q", all, got, c.ofA)
		}
	}
}

func TestConstraints(t *testing.T) {
	n := testNode("n1", gib, map[string]string{"Zone": "eu-1"})
	n.Description.Engine.Labels = map[string]string{"disk": "ssd"}
	tests := map[string]bool{
		"node.id==n1":                true,
		"node.id == N1":              false,
		"node.id!=n2":                true,
		"node.hostname==HOST-n1":     true,
		"node.hostname!=host-n1":     false,
		"node.role==worker":          true,
		"node.role==manager":         false,
		"node.platform.os==linux":    true,
		"node.platform.arch==amd64":  true,
		"node.platform.arch==x86_64": true,
		"node.platform.arch!=arm64":  true,
		"node.labels.Zone==EU-1":     true,
		"node.labels.zone==eu-1":     false,
		"node.labels.rack!=7":        true,
		"engine.labels.disk==ssd":    true,
		"engine.labels.disk != ssd":  false,
		"node.ip==10.1.2.3":          true,
		"node.ip==10.1.0.0/16":       true,
		"node.ip!=10.1.0.0/16":       false,
	}
	for s, want := range tests {
		c, err := ParseConstraint(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		} else if got := c.Allows(n); got != want {
			t.Errorf("%s: got %v", s, got)
		}
	}
	for _, s := range []string{"", "node.id", "node.id=n1", "==x", "node.colour==red", "node.labels.==x", "node.role==", "node.id>3"} {
		if c, err := ParseConstraint(s); err == nil {
			t.Errorf("%q was read as %v", s, c)
		}
	}
}

func TestRefusalSaysWhy(t *testing.T) {
	down := testNode("c", gib, nil)
	down.Status.State = swarm.NodeStateDown
	drain := testNode("d", gib, nil)
	drain.Spec.Availability = swarm.NodeAvailabilityDrain
	pause := testNode("e", gib, nil)
	pause.Spec.Availability = swarm.NodeAvailabilityPause
	silent := testNode("f", gib, nil)
	silent.NoEngine, silent.Status.Message = true, "Docker engine does not answer"

	tests := []struct {
		name  string
		nodes []*api.Node
		req   Request
		want  string
	}{
		{"no nodes", nil, Request{}, "no suitable node (the cluster has no nodes)"},
		{
			"memory",
			[]*api.Node{testNode("a", 64<<20, nil)},
			Request{Memory: 512 << 20},
			"no suitable node (insufficient memory on 1 node: 64MiB free, 512MiB reserved by the service)",
		},
		{
			"states",
			[]*api.Node{down, drain, pause, testNode("a", 64<<20, nil), testNode("b", 128<<20, nil)},
			Request{Memory: 512 << 20},
			"no suitable node (insufficient memory on 2 nodes: at most 128MiB free, 512MiB reserved by the service; 1 node paused; 1 node drained; 1 node not ready)",
		},
		{
			"engine",
			[]*api.Node{silent, drain},
			Request{},
			"no suitable node (1 node drained; engine not answering on 1 node)",
		},
		{
			"constraint",
			[]*api.Node{testNode("a", gib, nil)},
			Request{Constraints: []Constraint{{Field: "node.labels.zone", Value: "eu"}}},
			"no suitable node (constraint node.labels.zone==eu not satisfied on 1 node)",
		},
		{
			"platform",
			[]*api.Node{testNode("a", gib, nil)},
			Request{Platforms: []swarm.Platform{{OS: "linux", Architecture: "arm64"}}},
			"no suitable node (image does not run on the platform of 1 node)",
		},
		{
			"cpus",
			[]*api.Node{testNode("a", gib, nil)},
			Request{NanoCPUs: 4500e6},
			"no suitable node (insufficient CPU on 1 node: 4 CPUs free, 4.5 CPUs reserved by the service)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New()
			for _, n := range tt.nodes {
				s.SetNode(n)
			}
			id, _, err := s.Pass(tt.req).Place(testTask(1))
			if err == nil {
				t.Fatalf("placed on %s", id)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	s := New()
	for i, zone := range []string{"a", "a", "a", "b"} {
		s.SetNode(testNode(fmt.Sprint("n", i), gib, map[string]string{"zone": zone}))
	}
	place := func(q Request, from, n int) map[string]int {
		t.Helper()
		got := map[string]int{}
		p := s.Pass(q)
		for i := range n {
			id, _, err := p.Place(testTask(from + i))
			if err != nil {
				t.Fatal(err)
			}
			got[id]++
		}
		return got
	}
	if got := place(Request{ServiceID: "even"}, 0, 8); fmt.Sprint(got) != "map[n0:2 n1:2 n2:2 n3:2]" {
		t.Errorf("without preferences: %v", got)
	}
	got := place(Request{ServiceID: "zones", Spread: []string{"node.labels.zone"}}, 100, 6)
	if fmt.Sprint(got) != "map[n0:1 n1:1 n2:1 n3:3]" {
		t.Errorf("over zones: %v", got)
	}
	if got := place(Request{ServiceID: "nodes", Spread: []string{"Node.ID"}}, 300, 8); fmt.Sprint(got) != "map[n0:2 n1:2 n2:2 n3:2]" {
		t.Errorf("over nodes: %v", got)
	}
	// n3 is the busiest, so a service that is new there goes elsewhere first.
	if got := place(Request{ServiceID: "small"}, 200, 3); got["n3"] != 0 {
		t.Errorf("the busiest node was taken first: %v", got)
	}
}

func TestHostPortsAndMaxPerNode(t *testing.T) {
	rev := &api.Revision{ServiceID: "web"}
	rev.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
		{Protocol: "tcp", PublishedPort: 80, TargetPort: 80, PublishMode: swarm.PortConfigPublishModeHost},
	}}
	s := New()
	s.SetNode(testNode("a", gib, nil))
	s.SetNode(testNode("b", gib, nil))
	q, err := NewRequest(rev)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Pass(q)
	var tasks []*api.Task
	for i := range 2 {
		task := testTask(i)
		task.ServiceID = "web"
		if task.NodeID, task.Generic, err = p.Place(task); err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task)
	}
	if _, _, err := p.Place(testTask(2)); err == nil || !strings.Contains(err.Error(), "/tcp already in use on 2 nodes") {
		t.Fatalf("third task on two nodes: %v", err)
	}

	// A task on its way out still holds its port, until it has ended.
	tasks[0].DesiredState = swarm.TaskStateShutdown
	s.SetTask(tasks[0], rev)
	if _, _, err := s.Pass(q).Place(testTask(2)); err == nil {
		t.Fatal("the port of a stopping task was given away")
	}
	tasks[0].Status.State = swarm.TaskStateShutdown
	if !s.SetTask(tasks[0], rev) {
		t.Error("an ended task freed nothing")
	}
	if id, _, err := s.Pass(q).Place(testTask(2)); err != nil || id != tasks[0].NodeID {
		t.Fatalf("after the port was freed: %q, %v", id, err)
	}

	limited := Request{ServiceID: "two", MaxPerNode: 1}
	p = s.Pass(limited)
	for i := range 2 {
		if _, _, err := p.Place(testTask(10 + i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := p.Place(testTask(12)); err == nil || !strings.Contains(err.Error(), "max replicas per node (1) reached on 2 nodes") {
		t.Fatalf("got %v", err)
	}
}

// TestPlacement checks, for any cluster and any request: no node is used that
// must not be, none is overcommitted, and a refusal means that no node was left.
func TestPlacement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		nodes := map[string]*api.Node{}
		for i := range rapid.IntRange(0, 8).Draw(t, "nodes") {
			n := testNode(fmt.Sprint("n", i), rapid.Int64Range(0, 8).Draw(t, "memory"),
				map[string]string{"zone": rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone")})
			n.Status.State = rapid.SampledFrom([]swarm.NodeState{"ready", "ready", "down"}).Draw(t, "state")
			n.Spec.Availability = rapid.SampledFrom([]swarm.NodeAvailability{"active", "active", "pause", "drain"}).Draw(t, "availability")
			nodes[n.ID] = n
			s.SetNode(n)
		}
		used, perNode := map[string]int64{}, map[string]map[string]int{}
		revs := map[string]*api.Revision{}
		placed := map[string]*api.Task{}
		for pass := range rapid.IntRange(1, 5).Draw(t, "passes") {
			q := Request{
				ServiceID:  rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "service"),
				Memory:     rapid.Int64Range(0, 3).Draw(t, "reserved"),
				MaxPerNode: rapid.IntRange(0, 2).Draw(t, "max"),
			}
			if rapid.Bool().Draw(t, "constrained") {
				q.Constraints = []Constraint{{Field: "node.labels.zone", Value: "a", Not: rapid.Bool().Draw(t, "not")}}
			}
			if rapid.Bool().Draw(t, "spread") {
				q.Spread = []string{"node.labels.zone"}
			}
			fits := func(n *api.Node) bool {
				return n.Status.State == "ready" && n.Spec.Availability == "active" && Allow(q.Constraints, n) &&
					used[n.ID]+q.Memory <= n.Description.Resources.MemoryBytes &&
					(q.MaxPerNode == 0 || perNode[n.ID][q.ServiceID] < q.MaxPerNode)
			}
			p := s.Pass(q)
			for i := range rapid.IntRange(0, 12).Draw(t, "tasks") {
				task := testTask(pass*100 + i)
				task.ServiceID = q.ServiceID
				id, _, err := p.Place(task)
				if err != nil {
					for _, n := range nodes {
						if fits(n) {
							t.Fatalf("refused, but %s fits: %v", n.ID, err)
						}
					}
					break
				}
				if !fits(nodes[id]) {
					t.Fatalf("placed on %s, which does not fit %+v", id, q)
				}
				for _, n := range nodes {
					if len(q.Spread) == 0 && fits(n) && perNode[n.ID][q.ServiceID] < perNode[id][q.ServiceID] {
						t.Fatalf("placed on %s, though %s has fewer tasks of the service", id, n.ID)
					}
				}
				used[id] += q.Memory
				if perNode[id] == nil {
					perNode[id] = map[string]int{}
				}
				perNode[id][q.ServiceID]++
				task.NodeID = id
				placed[task.ID] = task
				r := &api.Revision{}
				r.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: q.Memory}}
				revs[task.ID] = r
			}
			for _, id := range slices.Sorted(maps.Keys(placed)) { // some end
				task := placed[id]
				if rapid.IntRange(0, 3).Draw(t, "ends") != 0 {
					continue
				}
				used[task.NodeID] -= revs[id].Spec.TaskTemplate.Resources.Reservations.MemoryBytes
				perNode[task.NodeID][task.ServiceID]--
				task.Status.State = swarm.TaskStateComplete
				s.SetTask(task, revs[id])
				delete(placed, id)
			}
		}
		if len(s.loads) != len(placed) || s.order.Len() != len(nodes) {
			t.Fatalf("%d loads for %d tasks, %d ranks for %d nodes", len(s.loads), len(placed), s.order.Len(), len(nodes))
		}
	})
}

func cluster(n int) *State {
	s := New()
	for i := range n {
		s.SetNode(testNode(fmt.Sprintf("n%06d", i), 64*gib, map[string]string{"zone": string(rune('a' + i%3))}))
	}
	return s
}

func BenchmarkOneService10kTasks1kNodes(b *testing.B) {
	q := Request{ServiceID: "s", Memory: 1 << 20, Constraints: []Constraint{{Field: "node.labels.zone", Value: "c", Not: true}}}
	for b.Loop() {
		b.StopTimer()
		s := cluster(1000)
		b.StartTimer()
		p := s.Pass(q)
		for i := range 10_000 {
			if _, _, err := p.Place(testTask(i)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func Benchmark1kServicesOf1Task100kNodes(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := cluster(100_000)
		b.StartTimer()
		start := time.Now()
		for i := range 1000 {
			if _, _, err := s.Pass(Request{ServiceID: fmt.Sprint("s", i), Memory: 1 << 20}).Place(testTask(i)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "µs/task")
	}
}

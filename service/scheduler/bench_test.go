package scheduler

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// A mixed cluster: 10,000 tasks of 100 services on 1,000 nodes, each service with
// a constraint and with reservations of memory and CPU, every fourth spread over
// racks within zones.

func mixedCluster() *State {
	s := New()
	for i := range 1000 {
		n := testNode(fmt.Sprintf("n%06d", i), 64*gib, map[string]string{
			"zone": fmt.Sprint("z", i%3), "rack": fmt.Sprint("r", i%30), "disk": []string{"ssd", "hdd"}[i%2],
		})
		n.Description.Resources.NanoCPUs = 32e9
		s.SetNode(n)
	}
	return s
}

func mixedRequest(service int) Request {
	r := &api.Revision{ServiceID: fmt.Sprint("s", service)}
	r.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{
		NanoCPUs: int64(100e6 * (1 + service%3)), MemoryBytes: int64(128<<20) << (service % 3),
	}}
	p := &swarm.Placement{Constraints: []string{[]string{"node.labels.disk==ssd", "node.labels.zone!=z1", "node.role==worker"}[service%3]}}
	if service%4 == 0 {
		for _, label := range []string{"node.labels.zone", "node.labels.rack"} {
			p.Preferences = append(p.Preferences, swarm.PlacementPreference{Spread: &swarm.SpreadOver{SpreadDescriptor: label}})
		}
	}
	r.Spec.TaskTemplate.Placement = p
	q, err := NewRequest(r)
	if err != nil {
		panic(err)
	}
	return q
}

func BenchmarkMixed10kTasks1kNodes(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := mixedCluster()
		b.StartTimer()
		for service := range 100 {
			p := s.Pass(mixedRequest(service))
			for i := range 100 {
				if _, _, err := p.Place(testTask(service*100 + i)); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkMixedScanPerTask places the same tasks, without the spreading, the way
// that a scan of all nodes for each of them does.
func BenchmarkMixedScanPerTask10kTasks1kNodes(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := mixedCluster()
		b.StartTimer()
		for service := range 100 {
			q := mixedRequest(service)
			p := &Pass{state: s, req: q}
			for i := range 100 {
				var best *node
				for _, n := range s.nodes {
					if q.refuses(n) == accepted && (best == nil || cmp.Or(
						cmp.Compare(n.services[q.ServiceID], best.services[q.ServiceID]), n.rank().compare(best.rank())) < 0) {
						best = n
					}
				}
				if best == nil {
					b.Fatal("no node")
				}
				p.give(testTask(service*100+i), best)
			}
		}
	}
}

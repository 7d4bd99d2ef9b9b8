package api

import (
	"math"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

// TestTasksAreBounded: what was stored before there was a bound is held to it.
func TestTasksAreBounded(t *testing.T) {
	most := uint64(math.MaxUint64)
	for _, n := range []*uint64{nil, new(uint64(0)), new(uint64(7)), new(uint64(math.MaxInt64)), &most} {
		want := uint64(1)
		if n != nil {
			want = min(*n, MaxTasks)
		}
		if got := Replicas(swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: n}}); got < 0 || uint64(got) != want {
			t.Errorf("%d replicas, want %d", got, want)
		}
		total, concurrent := JobSize(swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: n, MaxConcurrent: n}})
		if total != want || concurrent != want {
			t.Errorf("a job of %d, %d at once, want %d", total, concurrent, want)
		}
	}
}

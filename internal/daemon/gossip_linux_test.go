//go:build linux

package daemon

import (
	"sync"
	"sync/atomic"
	"testing"

	"shoal/cluster/gossip"
)

// TestGossipIsThereForAllAtOnce: the leader asks for each node it judges, and so
// does whoever looks for an address. None of them may find that there is none.
func TestGossipIsThereForAllAtOnce(t *testing.T) {
	g, err := gossip.New(gossip.Config{NodeID: "n", ClusterID: "c", Keys: []gossip.Key{gossip.NewKey()}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRumours(nil)
	if r.current() != nil {
		t.Fatal("there is gossip before it runs")
	}
	r.live.Store(g)
	var missing atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 10_000 {
				if r.current() != g {
					missing.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := missing.Load(); n > 0 {
		t.Errorf("it was missing %d times", n)
	}
}

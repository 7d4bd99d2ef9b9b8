package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"shoal/internal/api"
	"shoal/internal/store"
)

// join adds a node that applies what it is sent as it is told to.
func (r *rig) join(t *testing.T, id string, apply func(*api.NodeState) error) (leave func()) {
	t.Helper()
	r.update(t, &api.Node{Meta: api.Meta{ID: id}, Status: swarm.NodeStatus{State: swarm.NodeStateUnknown}})
	c := NewClient(ClientConfig{
		Leader: func(context.Context) (http.RoundTripper, string, error) {
			return asNode{id, r.web.Client().Transport.(*http.Transport).Clone()}, r.web.URL, nil
		},
		Moved: func(string, string) {}, Log: zaptest.NewLogger(t),
		Apply: func(_ context.Context, s *api.NodeState) error { return apply(s) },
	})
	c.Hello(Hello{Addr: "192.0.2.9:1"})
	return background(t, c.Run)
}

func serving(id, node string) *api.Task {
	t := &api.Task{Meta: api.Meta{ID: id}, ServiceID: "s1", Revision: "r1", NodeID: node, Slot: 1, DesiredState: swarm.TaskStateRunning}
	t.Status.State = swarm.TaskStateRunning
	t.Networks = []api.Attachment{{NetworkID: "net", Addr: netip.MustParsePrefix("10.0.0.5/24")}}
	return t
}

// stop has a task wanted no more.
func (r *rig) stop(t *testing.T, id string) {
	t.Helper()
	old, _ := r.store.View().Tasks.Get(id)
	task := api.Clone(old)
	task.DesiredState = swarm.TaskStateShutdown
	r.update(t, task)
}

func stoppingAs(id string, draining bool) func(*api.NodeState) bool {
	return func(s *api.NodeState) bool {
		a := s.Tasks[id]
		return a != nil && a.Task.DesiredState == swarm.TaskStateShutdown && a.Draining == draining
	}
}

// TestDrain: a task's node is told to wait until every other has acknowledged
// that it gives the task no more connections.
func TestDrain(t *testing.T) {
	lists := func(s *api.NodeState, task string) bool { return s.Endpoints["s1"].Serves(task) }
	begin := func(t *testing.T, period time.Duration) (r *rig, stopLeader, stopOther func(), applies chan error, hangs chan struct{}) {
		r = newRig(t, nil)
		cl := api.Clone(r.store.View().Cluster())
		cl.Spec.Dispatcher.HeartbeatPeriod = period
		r.update(t, cl)
		stopLeader = background(t, r.server.Run)
		r.client.Hello(Hello{Addr: "192.0.2.1:1"})
		background(t, r.client.Run)
		applies, hangs = make(chan error), make(chan struct{}, 100)
		ended, serves := make(chan struct{}), make(chan struct{})
		var slow atomic.Bool
		leave := r.join(t, "n2", func(s *api.NodeState) error {
			if lists(s, "t1") {
				if slow.CompareAndSwap(false, true) {
					close(serves)
				}
				return nil
			}
			if !slow.Load() {
				return nil
			}
			select {
			case hangs <- struct{}{}:
			default:
			}
			select {
			case err := <-applies:
				return err
			case <-ended:
				return errors.New("ended")
			}
		})
		stopOther = func() {
			select {
			case <-ended:
			default:
				close(ended)
			}
			leave()
		}
		t.Cleanup(stopOther)
		web := &api.Service{Meta: api.Meta{ID: "s1"}} // its port is every node's business
		web.Endpoint.Ports = []swarm.PortConfig{{Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80, PublishedPort: 8080}}
		r.update(t, web, serving("t1", "n1"))
		r.state(t, "it serves", func(s *api.NodeState) bool { return lists(s, "t1") })
		r.eventually(t, "both ready", func(v *store.View) bool {
			a, _ := v.Nodes.Get("n1")
			b, _ := v.Nodes.Get("n2")
			return a.Status.State == swarm.NodeStateReady && b.Status.State == swarm.NodeStateReady
		})
		select {
		case <-serves: // it passes over states that are not the newest
		case <-time.After(30 * time.Second):
			t.Fatal("the other node has not heard of the task")
		}
		return r, stopLeader, stopOther, applies, hangs
	}

	t.Run("waits for the last", func(t *testing.T) {
		r, _, _, applies, hangs := begin(t, time.Minute)
		r.stop(t, "t1")
		s := r.state(t, "draining", stoppingAs("t1", true))
		if lists(s, "t1") {
			s = r.state(t, "out of the endpoints", func(s *api.NodeState) bool { return !lists(s, "t1") })
		}
		if !s.Tasks["t1"].Draining {
			t.Fatal("released before the other node has answered")
		}
		<-hangs
		applies <- nil
		r.state(t, "released", stoppingAs("t1", false))
	})
	t.Run("a failure is no acknowledgement", func(t *testing.T) {
		r, _, _, applies, hangs := begin(t, time.Minute)
		r.stop(t, "t1")
		<-hangs
		applies <- errors.New("the kernel refuses")
		r.update(t, serving("t9", "n2")) // the next state that it is sent
		<-hangs
		r.state(t, "still draining with the next state", func(s *api.NodeState) bool {
			if stoppingAs("t1", false)(s) {
				t.Fatal("released")
			}
			return lists(s, "t9")
		})
		applies <- nil
		r.state(t, "released", stoppingAs("t1", false))
	})
	t.Run("not for one that is down", func(t *testing.T) {
		r, _, stopOther, _, hangs := begin(t, time.Second)
		r.stop(t, "t1")
		<-hangs
		stopOther()
		r.state(t, "released", stoppingAs("t1", false))
		if n, _ := r.store.View().Nodes.Get("n2"); n.Status.State != swarm.NodeStateDown {
			t.Errorf("released although the other node is %s", n.Status.State)
		}
	})
	t.Run("a new leader asks anew", func(t *testing.T) {
		r, stopLeader, _, applies, hangs := begin(t, time.Minute)
		r.stop(t, "t1")
		<-hangs
		stopLeader()
		applies <- nil // nobody hears it
		background(t, r.server.Run)
		r.state(t, "draining", stoppingAs("t1", true))
		go func() {
			for {
				select {
				case applies <- nil:
				case <-t.Context().Done():
					return
				}
			}
		}()
		r.state(t, "released", stoppingAs("t1", false))
	})
	t.Run("one that never served", func(t *testing.T) {
		r, _, _, _, _ := begin(t, time.Minute)
		plain := serving("t2", "n1")
		plain.Networks = nil
		r.update(t, plain)
		r.stop(t, "t2")
		r.state(t, "stops at once", func(s *api.NodeState) bool {
			if stoppingAs("t2", true)(s) {
				t.Fatal("waits for others")
			}
			return stoppingAs("t2", false)(s)
		})
	})
}

// TestProgress plays a node that acknowledges whenever it likes, and a leader
// that has nothing for it now and then: what counts as applied is what the node
// had when it acknowledged, and what it was spared since then. While the node is
// far behind, it may count for less.
func TestProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			p      progress
			now    uint64
			has    = []uint64{0} // the generation that a node is at with each commit
			acked  int
			behind int // the last commit before which some were not remembered
		)
		burst := rapid.SampledFrom([]int{1, maxMarks / 3}).Draw(t, "at a time")
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				now++
			case 1:
				for range burst {
					p.sends(uint64(len(has)), now)
					has = append(has, now)
					if len(has)-1-acked > maxMarks {
						behind = len(has) - 1
					}
				}
			case 2:
				p.skips(now)
				has[len(has)-1] = now
			case 3:
				acked = rapid.IntRange(acked, len(has)-1).Draw(t, "acknowledges")
				p.acknowledges(uint64(acked))
			}
			if got := p.applied(); got > has[acked] || acked >= behind && got != has[acked] {
				t.Fatalf("%d counts as applied, and %d is", got, has[acked])
			}
			if len(p.marks) > maxMarks {
				t.Fatalf("%d commits are remembered", len(p.marks))
			}
		}
	})
}

// TestHeld goes through random lives of tasks: one that is to stop, and that any
// node may still have in its tables, is held.
func TestHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := store.New()
		put := func(o api.Object) {
			if err := s.Update(context.Background(), func(tx *store.Tx) error { return tx.Put(o) }); err != nil {
				t.Fatal(err)
			}
		}
		put(&api.Service{Meta: api.Meta{ID: "s1"}})
		feed := s.Watch(api.KindService, api.KindTask)
		now := tables{endpoints: endpoints{}}
		has := map[string]bool{} // tasks that a node which is never told anything has seen served
		var sent tables          // what that node has
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := fmt.Sprint("t", rapid.IntRange(1, 3).Draw(t, "task"))
			old, ok := s.View().Tasks.Get(id)
			switch step := rapid.IntRange(0, 4).Draw(t, "step"); {
			case !ok:
				put(serving(id, "n1"))
			case step == 0:
				n := api.Clone(old)
				n.DesiredState = swarm.TaskStateShutdown
				put(n)
			case step == 1:
				n := api.Clone(old)
				n.Unhealthy = true
				put(n)
			case step == 2 && stopping(old):
				n := api.Clone(old)
				n.Status.State = swarm.TaskStateShutdown
				put(n)
			case step == 3:
				sent = now // the node applies everything
				has = map[string]bool{}
				now, _ = now.release(now.generation)
			}
			if rapid.Bool().Draw(t, "refresh") {
				dirty, all := feed.Take()
				now = now.refresh(s.View(), dirty, all)
			}
			for _, e := range sent.endpoints {
				for _, b := range e.Backends {
					has[b.TaskID] = true
				}
			}
			for task := range s.View().Tasks.All() {
				mayBeReached := has[task.ID] && stopping(task) && !api.Terminal(task.Status.State)
				if mayBeReached && !now.draining(task) {
					t.Fatalf("task %s may be reached and is not held", task.ID)
				}
			}
		}
	})
}

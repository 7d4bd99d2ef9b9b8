package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"shoal/internal/api"
	"shoal/internal/store"
)

func TestJudge(t *testing.T) {
	const period = 5 * time.Second
	now := time.Unix(1000, 0)
	ago := func(d time.Duration, gone bool) sign { return sign{last: now.Add(-d), gone: gone} }
	many := func(n int, silence time.Duration, more map[string]sign) map[string]sign {
		out := map[string]sign{}
		for id, s := range more {
			out[id] = s
		}
		for i := range n {
			out[fmt.Sprintf("n%02d", i)] = ago(silence, false)
		}
		return out
	}
	dead := map[string]sign{"a": ago(1500*time.Millisecond, true)}
	for name, tt := range map[string]struct {
		signs   map[string]sign
		fallen  int
		overdue []string
		hold    bool
		next    time.Duration
	}{
		"nobody":                    {nil, 0, nil, false, 15 * time.Second},
		"just heard":                {map[string]sign{"a": ago(0, false)}, 0, nil, false, 15 * time.Second},
		"silent, gossip hears it":   {map[string]sign{"a": ago(14*time.Second, false)}, 0, nil, false, time.Second},
		"silent too long":           {map[string]sign{"a": ago(15*time.Second, false)}, 0, []string{"a"}, false, 500 * time.Millisecond},
		"gossip alone is no reason": {map[string]sign{"a": ago(time.Second, true)}, 0, nil, false, 500 * time.Millisecond},
		"both agree":                {map[string]sign{"a": ago(1500*time.Millisecond, true), "b": ago(0, false)}, 0, []string{"a"}, false, 500 * time.Millisecond},
		"beats between two looks":   {many(9, 700*time.Millisecond, dead), 0, []string{"a"}, false, 500 * time.Millisecond},
		"others went with it":       {many(9, time.Second, dead), 0, []string{"a"}, true, 500 * time.Millisecond},
		"two others, of few":        {many(2, time.Second, dead), 0, []string{"a"}, true, 500 * time.Millisecond},
		"one other, of few":         {many(1, time.Second, dead), 0, []string{"a"}, false, 500 * time.Millisecond},
		"others went before it":     {many(3, 0, dead), 2, []string{"a"}, true, 500 * time.Millisecond},
		"few others before it":      {many(8, 0, dead), 2, []string{"a"}, false, 500 * time.Millisecond},
		"silent, and none overdue":  {many(9, time.Second, nil), 0, nil, false, 14 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			j := judge(tt.signs, tt.fallen, period, now)
			if !slices.Equal(j.overdue, tt.overdue) || j.hold != tt.hold || j.next != tt.next {
				t.Fatalf("got %+v; want %v, %v, %s", j, tt.overdue, tt.hold, tt.next)
			}
		})
	}
}

func TestTooMany(t *testing.T) {
	for _, tt := range []struct {
		silent, nodes int
		want          bool
	}{
		{0, 3, false},
		{1, 1, false},
		{1, 2, false},
		{2, 3, false},
		{2, 5, false},
		{3, 5, true},
		{3, 9, false},
		{4, 9, true},
		{33, 99, false},
		{34, 99, true},
	} {
		if got := tooMany(tt.silent, tt.nodes); got != tt.want {
			t.Errorf("%d of %d: %v", tt.silent, tt.nodes, got)
		}
	}
}

// ward is a pulse over a store of nodes that beat as the test wants.
type ward struct {
	*pulse
	t      *testing.T
	logs   *observer.ObservedLogs
	quorum *slow

	mu   sync.Mutex
	gone map[string]bool
	down []string // whose sessions were ended
}

// watch runs a pulse over nodes m0, w1, w2, ..., all READY, until the test ends.
func watch(t *testing.T, workers int) *ward {
	core, logs := observer.New(zap.InfoLevel)
	s := store.New()
	w := &ward{t: t, logs: logs, quorum: &slow{store: s}, gone: map[string]bool{}}
	s.Connect(w.quorum)
	w.pulse = newPulse(s, zap.New(core), func() time.Duration { return defaultHeartbeat },
		func(id string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.gone[id] },
		func(id string) { w.mu.Lock(); defer w.mu.Unlock(); w.down = append(w.down, id) })
	w.put("m0", swarm.NodeStateReady)
	for i := range workers {
		w.put(fmt.Sprint("w", i+1), swarm.NodeStateReady)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *ward) put(id string, state swarm.NodeState) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx *store.Tx) error {
		n, ok := tx.Nodes.Get(id)
		if !ok {
			n = &api.Node{Meta: api.Meta{ID: id}}
		}
		n = api.Clone(n)
		n.SetStatus(swarm.NodeStatus{State: state}, time.Now())
		return tx.Put(n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) remove(id string) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx *store.Tx) error { return tx.Delete(api.KindNode, id) })
	if err != nil {
		w.t.Fatal(err)
	}
}

// beating has a node beat until what it returns is called: a first time after
// the offset, and then ten times a period.
func (w *ward) beating(id string, offset time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait := offset; ; wait = beat(defaultHeartbeat) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
				w.alive(id, defaultHeartbeat)
			}
		}
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// lost has gossip find hosts gone.
func (w *ward) lost(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.gone[id] = true
	}
}

func (w *ward) isDown() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.down)
}

// after lets time pass and wants these nodes to have been declared DOWN.
func (w *ward) after(d time.Duration, want ...string) {
	w.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	got := w.isDown()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Fatalf("after %s %v are down, want %v", d, got, want)
	}
}

// TestASwitchDies: ten workers fall silent at one moment, and their last beats
// are spread over half a second before it.
func TestASwitchDies(t *testing.T) {
	for name, tt := range map[string]struct {
		gossip   bool
		patience time.Duration
	}{
		"gossip finds them gone": {true, 1500 * time.Millisecond},
		"gossip knows nothing":   {false, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const workers = 10
				w := watch(t, workers)
				w.beating("m0", 0)
				var stops []func()
				var ids []string
				for i := range workers {
					id := fmt.Sprint("w", i+1)
					ids = append(ids, id)
					stops = append(stops, w.beating(id, time.Duration(i)*47*time.Millisecond))
				}
				w.after(10 * time.Second)
				for _, stop := range stops {
					stop()
				}
				if tt.gossip {
					time.Sleep(700 * time.Millisecond)
					for _, id := range ids { // one by one, as gossip does
						w.lost(id)
						w.ready.Ring()
						time.Sleep(50 * time.Millisecond)
					}
				}
				w.after(10 * tt.patience)
				if n := w.logs.FilterMessageSnippet("more than a third").Len(); n != 1 {
					t.Errorf("it was said %d times that the leader holds", n)
				}
				// Removing those that are lost is the way out, without any beat.
				for _, id := range ids[:8] {
					w.remove(id)
				}
				w.after(2*time.Second, "w10", "w9")
			})
		})
	}
}

// TestFewDie: what is believed is DOWN in its time and not a beat later.
func TestFewDie(t *testing.T) {
	for _, tt := range []struct {
		workers int
		die     []string
	}{
		{1, []string{"w1"}},
		{2, []string{"w1"}},
		{2, []string{"w1", "w2"}}, // two are always believed
		{4, []string{"w1", "w2"}},
		{9, []string{"w1", "w2", "w3"}},
	} {
		t.Run(fmt.Sprint(len(tt.die), " of ", tt.workers+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, tt.workers)
				w.beating("m0", 0)
				stops := map[string]func(){}
				for i := range tt.workers {
					id := fmt.Sprint("w", i+1)
					stops[id] = w.beating(id, time.Duration(i)*53*time.Millisecond)
				}
				w.after(10 * time.Second)
				for _, id := range tt.die {
					stops[id]()
					w.lost(id)
				}
				w.ready.Ring()
				w.after(1500*time.Millisecond+time.Millisecond, tt.die...)
			})
		})
	}
}

// TestOneAfterTheOther: three of five that die apart are three deaths.
func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 4)
		w.beating("m0", 0)
		w.beating("w4", 0)
		stops := map[string]func(){}
		died := []string{"w1", "w2", "w3"}
		for _, id := range died {
			stops[id] = w.beating(id, 0)
		}
		for i, id := range died {
			w.after(10*time.Second, died[:i]...)
			stops[id]()
			w.lost(id)
			w.ready.Ring()
			w.after(1501*time.Millisecond, died[:i+1]...)
		}
	})
}

// TestOneAtATimeButSoon: who dies soon after others went together with them.
func TestOneAtATimeButSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 5)
		w.beating("m0", 0)
		w.beating("w4", 0)
		w.beating("w5", 0)
		stops := map[string]func(){}
		for _, id := range []string{"w1", "w2", "w3"} {
			stops[id] = w.beating(id, 0)
		}
		w.after(10 * time.Second)
		die := func(ids ...string) {
			for _, id := range ids {
				stops[id]()
			}
			w.lost(ids...)
			w.ready.Ring()
		}
		die("w1", "w2")
		w.after(3*time.Second, "w1", "w2")
		die("w3")
		w.after(5*time.Second, "w1", "w2")
		w.remove("w1") // of five, one of whom is lost for good
		w.after(time.Second, "w1", "w2", "w3")
	})
}

// TestNobodyToWaitFor: a node that left is DOWN without being declared so, and
// one that was removed is nobody any more. Neither counts among those that are
// silent together.
func TestNobodyToWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 5)
		w.beating("m0", 0)
		stops := map[string]func(){}
		for i := range 5 {
			id := fmt.Sprint("w", i+1)
			stops[id] = w.beating(id, 0)
		}
		w.after(10 * time.Second)
		for _, id := range []string{"w1", "w5"} {
			stops[id]()
			w.put(id, swarm.NodeStateDown) // as leaving does
		}
		stops["w2"]()
		w.remove("w2")
		w.after(10 * time.Second)
		stops["w3"]()
		w.lost("w3")
		w.ready.Ring()
		w.after(1501*time.Millisecond, "w3")
		w.after(30*time.Second, "w1", "w3", "w5") // whose sessions end all the same
		if n := w.logs.FilterMessage("node is down").Len(); n != 1 {
			t.Errorf("%d nodes were said to be down", n)
		}
		w.beating("w1", 0) // it came back, before its Hello is written
		w.after(5*time.Second, "w1", "w3", "w5")
		w.put("w1", swarm.NodeStateReady)
		w.after(30*time.Second, "w1", "w3", "w5")
	})
}

// slow is a quorum that takes its time.
type slow struct {
	store *store.Store
	takes atomic.Int64 // nanoseconds

	mu    sync.Mutex
	index uint64
}

func (s *slow) Apply(_ context.Context, data []byte) error {
	time.Sleep(time.Duration(s.takes.Load()))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	return s.store.Apply(s.index, data)
}

// TestASlowWrite is no reason to believe that this manager was held up: who is
// silent meanwhile is DOWN in its time, and who is heard again is not.
func TestASlowWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 9)
		w.beating("m0", 0)
		stops := map[string]func(){}
		for i := range 9 {
			id := fmt.Sprint("w", i+1)
			stops[id] = w.beating(id, 0)
		}
		w.after(10 * time.Second)
		w.quorum.takes.Store(int64(3 * time.Second))
		stops["w1"]()
		time.Sleep(2 * time.Second)
		stops["w2"]()
		time.Sleep(15*time.Second + 100*time.Millisecond) // w1 is written since 2 s
		synctest.Wait()
		if got := w.isDown(); len(got) != 0 {
			t.Fatalf("%v are down already", got)
		}
		w.after(time.Second, "w1")
		w.after(3*time.Second, "w1", "w2")
		if n := w.logs.FilterMessageSnippet("held up").Len(); n != 0 {
			t.Errorf("it was said %d times that this manager was held up", n)
		}
	})
}

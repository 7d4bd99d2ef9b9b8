package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// distribution prints what DESIGN.md quotes.
func distribution(t *testing.T, what string, all []time.Duration) {
	t.Helper()
	slices.Sort(all)
	at := func(q float64) time.Duration {
		return all[min(len(all)-1, int(q*float64(len(all))))].Round(time.Millisecond)
	}
	t.Logf("%s: median %s, 90%% %s, 99%% %s, worst %s (%d)", what, at(0.5), at(0.9), at(0.99), all[len(all)-1].Round(time.Millisecond), len(all))
}

func TestKilledHostIsGone(t *testing.T) {
	for _, c := range []struct{ nodes, trials int }{{2, 5}, {3, 20}, {10, 20}, {30, 10}, {100, 6}} {
		t.Run(fmt.Sprint(c.nodes), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c.nodes)
				w.startAll()
				defer w.stopAll()
				var each []time.Duration
				for range c.trials {
					time.Sleep(time.Duration(rand.Int64N(int64(time.Second))))
					w.forget()
					victim := w.hosts[rand.IntN(c.nodes)]
					began := time.Now()
					victim.kill()
					w.await(5*time.Second, "everybody holds the victim for gone", func() bool { return w.count(Gone) == c.nodes-1 })
					for _, h := range w.hosts {
						if h != victim {
							each = append(each, h.of(victim).Since.Sub(began))
						}
					}
					victim.boot()
					w.await(20*time.Second, "the victim is back", func() bool { return w.count(Alive) == c.nodes*(c.nodes-1) })
					if n := w.convicted(Gone); n != c.nodes-1 {
						t.Errorf("%d verdicts of gone instead of %d", n, c.nodes-1)
					}
				}
				distribution(t, fmt.Sprintf("%d nodes, from the cut of power to a node's verdict", c.nodes), each)
				if worst := each[len(each)-1]; worst > 2500*time.Millisecond {
					t.Errorf("the slowest took %s", worst)
				}
			})
		})
	}
}

func TestLossConvictsNobody(t *testing.T) {
	for _, nodes := range []int{3, 10, 50} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, nodes)
				w.startAll()
				defer w.stopAll()
				w.forget()
				w.setLoss(0.3)
				time.Sleep(10 * time.Second)
				if g, d := w.convicted(Gone), w.convicted(DaemonDown); g+d > 0 {
					t.Errorf("under 30%% loss %d nodes were held for gone and %d daemons for down", g, d)
				}
				// And whoever does die in it is still found out.
				victim := w.hosts[0]
				began := time.Now()
				victim.kill()
				w.await(15*time.Second, "the victim is gone", func() bool { return w.count(Gone) >= nodes-1 })
				var each []time.Duration
				for _, h := range w.hosts[1:] {
					each = append(each, h.of(victim).Since.Sub(began))
				}
				distribution(t, fmt.Sprintf("%d nodes under 30%% loss", nodes), each)
				w.setLoss(0)
				victim.boot()
				w.await(20*time.Second, "all is well again", func() bool { return w.count(Alive) == nodes*(nodes-1) })
			})
		})
	}
}

func (w *world) setLoss(p float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss = p
}

func (w *world) setCut(f func(from, to int) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = f
}

func TestRestartedDaemonIsNeverGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		defer w.stopAll()
		w.forget()
		for _, pause := range []time.Duration{0, 300 * time.Millisecond, time.Second, 2 * time.Second, time.Minute} {
			w.hosts[2].stop()
			time.Sleep(pause)
			if pause >= 2*time.Second && w.count(DaemonDown) != 4 {
				t.Errorf("%d nodes know that the daemon is down", w.count(DaemonDown))
			}
			w.hosts[2].start()
			w.await(10*time.Second, "the daemon is back", func() bool { return w.count(Alive) == 20 })
		}
		if n := w.convicted(Gone); n > 0 {
			t.Errorf("the host was held for gone %d times", n)
		}
	})
}

// A host that dies after its daemon is noticed although no probe is sent to it.
func TestHostDiesAfterItsDaemon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		defer w.stopAll()
		w.hosts[2].stop()
		w.await(3*time.Second, "the daemon is down", func() bool { return w.count(DaemonDown) == 4 })
		w.mu.Lock()
		w.hosts[2].power = false
		w.mu.Unlock()
		took := w.await(3*time.Second, "the host is gone", func() bool { return w.count(Gone) == 4 })
		t.Logf("all knew after %s", took)
	})
}

func TestPartitionAndHeal(t *testing.T) {
	for name, cut := range map[string]func(from, to int) bool{
		"halves":  func(from, to int) bool { return (from < 3) != (to < 3) },
		"one out": func(from, to int) bool { return from == 0 || to == 0 },
		"one way": func(from, to int) bool { return from == 0 && to == 1 },
		"one pair": func(from, to int) bool {
			return from+to == 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const nodes = 6
				w := newWorld(t, nodes)
				w.startAll()
				defer w.stopAll()
				w.setCut(cut)
				// Both ends of a path that is cut one way lose their way to each
				// other: a question that gets no answer, or an answer that does not
				// arrive. Nobody else is touched by it.
				apart := func(a, b int) bool { return cut(a, b) || cut(b, a) }
				right := func() bool {
					for _, a := range w.hosts {
						for _, b := range w.hosts {
							if a != b && (a.of(b).Verdict == Gone) != apart(a.n, b.n) {
								return false
							}
						}
					}
					return true
				}
				t.Logf("seen by all after %s", w.await(10*time.Second, "everybody is right about everybody", right))
				for range 300 { // for half a minute nothing changes
					time.Sleep(100 * time.Millisecond)
					if !right() {
						t.Fatal("a verdict did not last as long as the partition")
					}
				}
				if name == "one out" && !w.hosts[0].g.Isolated() {
					t.Error("the one that is out does not know it")
				}
				w.setCut(nil)
				t.Logf("healed after %s", w.await(10*time.Second, "healed", func() bool { return w.count(Alive) == nodes*(nodes-1) }))
			})
		})
	}
}

func TestMovedNodesAreFollowed(t *testing.T) {
	const nodes = 5
	for _, c := range []struct {
		name  string
		moved int
		live  bool // with the daemon running
	}{{"one, restarted", 1, false}, {"one, running", 1, true}, {"all but one", nodes - 1, false}, {"all", nodes, false}, {"all, running", nodes, true}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, nodes)
				w.startAll()
				defer w.stopAll()
				for i := range c.moved {
					if !c.live {
						w.hosts[i].kill()
					}
				}
				for i := range c.moved {
					w.hosts[i].move(simAddr(1000 + i))
					if !c.live {
						w.hosts[i].boot()
					}
				}
				took := w.await(20*time.Second, "everybody is found at the new address", func() bool {
					for _, a := range w.hosts {
						for _, b := range w.hosts {
							if m := a.of(b); a != b && (m.Verdict != Alive || m.Addr != b.addr) {
								return false
							}
						}
					}
					return true
				})
				t.Logf("found after %s", took)
				time.Sleep(20 * time.Second)
				if w.count(Alive) != nodes*(nodes-1) {
					t.Error("they lost each other again")
				}
			})
		})
	}
}

func TestKeysRotateWithoutGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.startAll()
		defer w.stopAll()
		w.forget()
		old, fresh := testKey(1), testKey(2)
		for _, step := range [][]Key{{old, fresh}, {fresh, old}, {fresh}} {
			for _, h := range w.hosts { // one after the other, with time between
				if err := h.g.SetKeys(step); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
			}
		}
		if n := w.convicted(Gone) + w.convicted(DaemonDown); n > 0 {
			t.Errorf("%d verdicts during the rotation", n)
		}
		// The old key opens nothing any more.
		if err := w.hosts[5].g.SetKeys([]Key{old}); err != nil {
			t.Fatal(err)
		}
		w.await(10*time.Second, "the node with the old key is shut out", func() bool { return w.hosts[0].of(w.hosts[5]).Verdict == DaemonDown })
	})
}

// Nobody is followed to an address on somebody's word alone.
func TestHintIsNotBelieved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		w.hosts[0].g.hint("node001", simAddr(999))
		w.hosts[0].g.joined("node001", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 9, 9}), 1), "v1")
		time.Sleep(5 * time.Second)
		if m := w.hosts[0].of(w.hosts[1]); m.Verdict != Alive || m.Addr != w.hosts[1].addr {
			t.Errorf("%+v", m)
		}
	})
}

// Traffic is what DESIGN.md quotes for a cluster at rest.
func TestTrafficAtRest(t *testing.T) {
	for _, nodes := range []int{3, 50} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, nodes)
			w.startAll()
			defer w.stopAll()
			time.Sleep(20 * time.Second)
			w.mu.Lock()
			sent, bytes := w.sent, w.bytes
			w.mu.Unlock()
			time.Sleep(20 * time.Second)
			w.mu.Lock()
			defer w.mu.Unlock()
			perNode := float64(w.sent-sent) / 20 / float64(nodes)
			t.Logf("%d nodes: %.1f packets and %.0f bytes a second and node", nodes, perNode, float64(w.bytes-bytes)/20/float64(nodes))
			if perNode > 60 {
				t.Error("that is too much for a cluster in which nothing happens")
			}
		})
	}
}

// A node that was removed from the cluster is not listened to any more, and a
// new one is as soon as the managers know it.
func TestOnlyMembersTakePart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5)
		var mu sync.Mutex
		removed := map[string]bool{"node004": true}
		w.admit = func(id string) bool {
			mu.Lock()
			defer mu.Unlock()
			return !removed[id]
		}
		for _, h := range w.hosts {
			h.start()
		}
		defer w.stopAll()
		set := func(id string, out bool) {
			mu.Lock()
			defer mu.Unlock()
			removed[id] = out
		}
		known := func(id string, want int) func() bool {
			return func() bool {
				n := 0
				for _, h := range w.hosts {
					if m, ok := h.g.Lookup(id); ok && m.Verdict == Alive {
						n++
					}
				}
				return n == want
			}
		}
		w.await(10*time.Second, "the four know each other", known("node000", 3))
		if !known("node004", 0)() {
			t.Error("one that does not belong is listed")
		}
		set("node004", false)
		w.await(5*time.Second, "the new one is found", known("node004", 4))
		set("node001", true)
		w.await(5*time.Second, "the removed one is forgotten", known("node001", 0))
		time.Sleep(30 * time.Second)
		if !known("node001", 0)() {
			t.Error("it came back")
		}
		if !known("node004", 3)() { // all but the removed one, which gets no answers
			t.Error("the others lost each other")
		}
	})
}

// An orderly goodbye is heard by all, and is a matter of the daemon alone.
func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.startAll()
		defer w.stopAll()
		w.forget()
		if err := w.hosts[4].g.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.hosts[4].stop()
		w.await(2*time.Second, "all know", func() bool { return w.count(DaemonDown) == 4 })
		if n := w.convicted(Gone); n > 0 {
			t.Errorf("held for gone %d times", n)
		}
		if err := w.hosts[4].g.Leave(t.Context()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("left twice: %v", err)
		}
	})
}

// What a node says of itself arrives.
func TestMeta(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		w.await(time.Second, "the version of the others", func() bool { return w.hosts[0].of(w.hosts[2]).Meta == "v1" })
		if _, err := New(Config{NodeID: "x", Meta: strings.Repeat("x", maxMeta+1)}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("too much: %v", err)
		}
	})
}

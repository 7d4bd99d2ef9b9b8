package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestRunAsLeaderFlapping loses and regains leadership at every pace. At no time
// may two runs overlap, none may begin without a barrier, none may outlive its
// leadership by more than it takes to return, and the last must be running.
func TestRunAsLeaderFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			l                   leadership
			running, runs       atomic.Int32
			barriers            atomic.Int32
			rng                 = rand.New(rand.NewPCG(1, 2))
			ctx, cancel         = context.WithCancel(t.Context())
			barrierWait, linger atomic.Int64
		)
		done := make(chan error, 1)
		go func() {
			done <- l.runAsLeader(ctx, func(ctx context.Context) error {
				barriers.Add(1)
				select {
				case <-time.After(time.Duration(barrierWait.Load())):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}, func(ctx context.Context) error {
				if running.Add(1) != 1 {
					t.Error("two runs at once")
				}
				defer running.Add(-1)
				if runs.Add(1) > barriers.Load() {
					t.Error("a run without a barrier")
				}
				<-ctx.Done()
				time.Sleep(time.Duration(linger.Load())) // slow to return
				return errors.New("stopped in the middle")
			}, func(err error) { t.Error("an end of leadership was taken for a failure:", err) })
		}()

		for range 500 {
			barrierWait.Store(rng.Int64N(int64(10 * time.Millisecond)))
			linger.Store(rng.Int64N(int64(20 * time.Millisecond)))
			l.set(true)
			time.Sleep(time.Duration(rng.Int64N(int64(15 * time.Millisecond))))
			l.set(false)
			if rng.IntN(2) == 0 { // regained in the same instant, or later
				time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Millisecond))))
			}
		}
		l.set(true)
		time.Sleep(time.Second)
		if running.Load() != 1 {
			t.Error("nothing runs although this node leads")
		}
		if runs.Load() < 50 {
			t.Errorf("only %d runs in 500 leaderships", runs.Load())
		}
		l.set(false)
		time.Sleep(time.Second)
		if running.Load() != 0 {
			t.Error("a run goes on although this node does not lead")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestRunAsLeaderSeesAFlap: a run in progress must end and begin again when
// leadership is lost and regained before anybody could look.
func TestRunAsLeaderSeesAFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leadership
		var wg sync.WaitGroup
		starts := make(chan struct{}, 10)
		ctx, cancel := context.WithCancel(t.Context())
		l.set(true)
		wg.Go(func() {
			_ = l.runAsLeader(ctx, func(context.Context) error { return nil }, func(ctx context.Context) error {
				starts <- struct{}{}
				<-ctx.Done()
				return nil
			}, func(error) {})
		})
		<-starts
		l.set(false)
		l.set(true)
		synctest.Wait()
		if len(starts) != 1 {
			t.Fatalf("%d further starts after a flap", len(starts))
		}
		cancel()
		wg.Wait()
	})
}

// TestRunAsLeaderTriesAgain: a failure while leading, such as a proposal that
// raft refuses a moment before it says that leadership is lost, ends the attempt
// and not the daemon. The next begins behind another barrier.
func TestRunAsLeaderTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leadership
		l.set(true)
		ctx, cancel := context.WithCancel(t.Context())
		boom := errors.New("boom")
		barriers, runs, failures := 0, 0, 0
		err := l.runAsLeader(ctx,
			func(context.Context) error { barriers++; return nil },
			func(ctx context.Context) error {
				if runs++; runs < 3 {
					return boom
				}
				cancel()
				<-ctx.Done()
				return ctx.Err()
			},
			func(err error) {
				if errors.Is(err, boom) {
					failures++
				}
			})
		if !errors.Is(err, context.Canceled) || runs != 3 || barriers != 3 || failures != 2 {
			t.Fatalf("%v after %d runs, %d barriers, %d failures", err, runs, barriers, failures)
		}
	})
}

// TestRunAsLeaderFollowsRaft is the same over a real group.
func TestRunAsLeaderFollowsRaft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		var leading sync.Map
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		defer wg.Wait()
		defer cancel()
		for id, m := range g.members {
			wg.Go(func() {
				_ = m.RunAsLeader(ctx, func(ctx context.Context) error {
					leading.Store(id, true)
					defer leading.Delete(id)
					<-ctx.Done()
					return nil
				})
			})
		}
		only := func(want string) func() bool {
			return func() bool {
				var got []string
				leading.Range(func(k, _ any) bool { got = append(got, k.(string)); return true })
				return len(got) == 1 && (want == "" || got[0] == want)
			}
		}
		eventually(t, "one runs as leader", only(""))
		for range 3 {
			lead := g.leader(t)
			if err := lead.TransferLeadership(deadline(t), ""); err != nil {
				t.Fatal(err)
			}
			eventually(t, "leadership has moved", func() bool { _, self := lead.Leader(); return !self })
			next := g.leader(t)
			eventually(t, "the new leader alone runs", only(next.nodeID))
		}
	})
}

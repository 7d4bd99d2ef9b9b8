package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
)

// moody is an engine that answers, refuses, or leaves its callers waiting.
type moody struct {
	mu      sync.Mutex
	mood    string        // "up", "down", "hung"
	changed chan struct{} // closed with each change
	version string
	asked   int // how often what it is
}

func newMoody(mood string) *moody {
	return &moody{mood: mood, changed: make(chan struct{}), version: "1"}
}

func (e *moody) set(mood string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mood = mood
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *moody) Ping(ctx context.Context) error {
	for {
		e.mu.Lock()
		mood, changed := e.mood, e.changed
		e.mu.Unlock()
		switch mood {
		case "up":
			return nil
		case "down":
			return errors.New("connection refused")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (e *moody) Describe(ctx context.Context) (swarm.NodeDescription, error) {
	if err := e.Ping(ctx); err != nil {
		return swarm.NodeDescription{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	return swarm.NodeDescription{Hostname: "h", Engine: swarm.EngineDescription{EngineVersion: e.version}}, nil
}

func (e *moody) upgrade(version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.version = version
}

func (e *moody) descriptions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// witness is who is told.
type witness struct {
	t       *testing.T
	mu      sync.Mutex
	last    engineWord
	changes int
}

func (w *witness) tell(word engineWord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if word.state != w.last.state || word.why != w.last.why {
		w.changes++
	}
	w.last = word
}

// told is what was said last, and how often that was something new.
func (w *witness) told() (engineWord, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.changes
}

// changed is how often something new was said by now.
func (w *witness) changed() int {
	synctest.Wait()
	_, n := w.told()
	return n
}

// expect waits for a state, and checks how long that took.
func (w *witness) expect(state engineState, why string, least, most time.Duration) {
	w.t.Helper()
	begin := time.Now()
	for {
		synctest.Wait()
		last, _ := w.told()
		took := time.Since(begin)
		switch {
		case last.state == state && took < least:
			w.t.Fatalf("%v after %s, which is too early: %+v", state, took, last)
		case last.state == state && !strings.Contains(last.why, why):
			w.t.Fatalf("it says %q, and not %q", last.why, why)
		case last.state == state:
			return
		case took > most:
			w.t.Fatalf("after %s it is %+v, not %v", took, last, state)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// never checks that nothing changes for a time.
func (w *witness) never(d time.Duration) {
	w.t.Helper()
	before := w.changed()
	time.Sleep(d)
	if n := w.changed() - before; n != 0 {
		last, _ := w.told()
		w.t.Fatalf("%d changes, last %+v", n, last)
	}
}

func TestWatchEngine(t *testing.T) {
	ms := time.Millisecond
	for name, test := range map[string]struct {
		first string
		story func(e *moody, w *witness)
	}{
		"well": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			w.never(5 * time.Minute)
			last, _ := w.told()
			if n := e.descriptions(); last.description.Hostname != "h" || n < 9 || n > 11 {
				t.Errorf("described %d times, as %+v", n, last.description)
			}
		}},
		"away for a moment": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			for _, mood := range []string{"down", "hung"} {
				e.set(mood)
				w.never(1400 * ms)
				e.set("up")
				w.never(10 * time.Second)
			}
		}},
		"away for longer": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			e.set("down")
			w.expect(engineSilent, "Docker engine does not answer: connection refused", 1500*ms, 2600*ms)
			w.never(10 * time.Second)
			e.upgrade("2")
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms)
			if last, _ := w.told(); last.description.Engine.EngineVersion != "2" {
				t.Errorf("another engine came back, and is taken for version %s", last.description.Engine.EngineVersion)
			}
		}},
		"hung": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			e.set("hung")
			w.expect(engineSilent, "Docker engine does not answer", 1500*ms, 2600*ms)
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms)
		}},
		"hung while it says what it is": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			time.Sleep(describeEvery + lookEvery/2) // the next answer is due
			e.set("hung")
			w.expect(engineSilent, "", 1500*ms, 2600*ms)
			w.expect(engineGone, "", 12*time.Second, 15*time.Second)
		}},
		"gone": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			e.set("down")
			w.expect(engineSilent, "", 1500*ms, 2600*ms)
			w.expect(engineGone, "Docker engine: connection refused", 12*time.Second, 14*time.Second)
			w.never(time.Minute)
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms)
		}},
		"not there yet": {"down", func(e *moody, w *witness) {
			w.expect(engineSilent, "Docker engine does not answer", 0, 100*ms)
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms)
		}},
		"hung from the start": {"hung", func(e *moody, w *witness) {
			w.expect(engineSilent, "Docker engine does not answer", 1400*ms, 1600*ms)
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms)
		}},
		"comes and goes": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			begin := w.changed()
			for range 200 {
				e.set("down")
				time.Sleep(3 * time.Second)
				e.set("up")
				time.Sleep(3 * time.Second)
			}
			if n := w.changed() - begin; n < 4 || n > 12 {
				t.Errorf("%d changes were told", n)
			}
			if last, _ := w.told(); last.state != engineSilent ||
				!strings.HasPrefix(last.why, "Docker engine does not answer: ") || !strings.Contains(last.why, "; not for the first time lately: it is given tasks once it has answered for ") {
				t.Errorf("it is %+v", last)
			}
			w.expect(engineAnswers, "", 0, holdMax)
			w.never(steadyAfter + 10*time.Second)
			e.set("down")
			w.expect(engineSilent, "does not answer", 1500*ms, 2600*ms)
			e.set("up")
			w.expect(engineAnswers, "", 0, 300*ms) // that it once came and went is forgotten
		}},
		"comes and goes slowly": {"up", func(e *moody, w *witness) {
			w.expect(engineAnswers, "", 0, 100*ms)
			begin := w.changed()
			for range 50 {
				e.set("hung")
				time.Sleep(5 * time.Second)
				e.set("up")
				time.Sleep(20 * time.Second)
			}
			if n := w.changed() - begin; n > 2*50 {
				t.Errorf("%d changes were told", n)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, w := newMoody(test.first), &witness{t: t}
				ctx, cancel := context.WithCancel(t.Context())
				var watch sync.WaitGroup
				watch.Go(func() { watchEngine(ctx, e, zap.NewNop(), w.tell) })
				defer watch.Wait()
				defer cancel()
				test.story(e, w)
			})
		})
	}
}

func (s engineState) String() string {
	return [...]string{"unknown", "answers", "silent", "gone"}[s]
}

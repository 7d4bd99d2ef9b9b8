//go:debug randseednop=0

package daemon

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	mathrand "math/rand"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap/zapcore"

	"shoal/cluster"
	"shoal/cluster/gossip"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/sim"
	"shoal/internal/store"
)

// Environment of the simulations. With simSeedEnv one seed runs, again and again
// if simRunsEnv says so: what a seed decides is the clients, the faults and the
// network, and not in which order Go runs what happens in the same instant.
const (
	simSeedEnv = "SHOAL_SIM_SEED"
	simRunsEnv = "SHOAL_SIM_RUNS"
)

// simEnough is how many failures are enough to look at.
const simEnough = 10

// TestLinearizable has clients use a cluster through whichever manager, while
// managers are killed, cut off, paused and made to hand over. Whatever the
// clients were told must be explained by one order of events.
func TestLinearizable(t *testing.T) {
	var all simTotals
	runs := seeds(t, 200, 20, func(t *testing.T, seed uint64, dir string) { runSim(t, seed, dir, &all) })
	t.Log(all.String())
	all.check(t, runs)
}

// seeds runs a simulation with many seeds, or as the environment says, and tells
// with how many.
func seeds(t *testing.T, runs, short int, run func(t *testing.T, seed uint64, dir string)) int {
	if raceDetector {
		t.Skip("synctest and the race detector do not go together before Go 1.27")
	}
	if testing.Short() {
		runs = short
	}
	one, first := false, uint64(1)
	if s := os.Getenv(simRunsEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	if s := os.Getenv(simSeedEnv); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, one = n, true
		if os.Getenv(simRunsEnv) == "" {
			runs = 1
		}
	}
	name := t.Name()
	for failed, i := 0, 0; i < runs; i++ {
		seed := first
		if !one {
			seed += uint64(i)
		}
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			dir := simTemp(t)
			// raft draws its timeouts from the global source.
			//lint:ignore SA1019 there is no other way to the global source
			mathrand.Seed(int64(seed))
			synctest.Test(t, func(t *testing.T) { run(t, seed, dir) })
			if t.Failed() {
				t.Logf("again: %s=%d %s=20 go test -run %s ./internal/daemon", simSeedEnv, seed, simRunsEnv, name)
			}
		})
		if !ok {
			if failed++; failed == simEnough {
				t.Logf("%d of %d seeds have failed: the rest is left", failed, i+1)
				break
			}
		}
	}
	return runs
}

// simTotals add up over the runs, to see that there was something to judge.
type simTotals struct {
	runs, terms, woken, sent, lost, repeated int
	outcomes                                 map[sim.Outcome]int
	faults                                   map[string]int
	answers                                  map[string]int
	simulated                                time.Duration
}

func (s *simTotals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs of %s in all; leaders %d, woken %d; messages %d, lost %d, repeated %d\n", s.runs, s.simulated.Round(time.Second), s.terms, s.woken, s.sent, s.lost, s.repeated)
	fmt.Fprintf(&b, "outcomes: %v\nfaults: %v\n", s.outcomes, s.faults)
	for _, m := range slices.Sorted(maps.Keys(s.answers)) {
		fmt.Fprintf(&b, "%6d %s\n", s.answers[m], m)
	}
	return b.String()
}

// check wants every kind of outcome and of fault in a full set of runs.
func (s *simTotals) check(t *testing.T, runs int) {
	if runs < 20 || t.Failed() {
		return
	}
	for _, o := range []sim.Outcome{sim.Unknown, sim.Done, sim.Missing, sim.Exists, sim.Conflict} {
		if s.outcomes[o] == 0 {
			t.Errorf("no operation ended %s", o)
		}
	}
	for _, f := range simFaults {
		if s.faults[f.name] == 0 {
			t.Errorf("no fault %q in all runs", f.name)
		}
	}
	if s.terms < 2*runs {
		t.Errorf("only %d leaders in %d runs", s.terms, runs)
	}
}

// simWorld is one run.
type simWorld struct {
	t       *testing.T
	seed    uint64
	dir     string
	rng     *rand.Rand // of the faults
	net     *sim.Network
	history *sim.History
	hosts   map[string]*simHost
	order   []*simHost
	names   []string
	workers []*simWorker
	over    context.Context // ends with the run
	rest    sync.WaitGroup  // all that must be over before the run is
	// returning is who was killed or paused and comes back.
	returning sync.WaitGroup
	terms     atomic.Int64
	woken     atomic.Int64 // leaders that stood still
	begin     time.Time
	story     []string
	said      said

	mu      sync.Mutex
	answers map[string]int
	faults  map[string]int
}

func runSim(t *testing.T, seed uint64, dir string, all *simTotals) {
	w := &simWorld{
		t: t, seed: seed, dir: dir, rng: rand.New(rand.NewPCG(seed, 0)),
		net: sim.NewNetwork(seed), history: sim.NewHistory(), hosts: map[string]*simHost{},
		names: []string{"svc-a", "svc-b", "svc-c"}, begin: time.Now(),
		answers: map[string]int{}, faults: map[string]int{},
	}
	managers := 3
	if seed%3 == 0 {
		managers = 5
	}
	w.found(managers)

	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i := range 10 {
		c := &simClient{w: w, n: i, only: i%2 == 1, rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), seen: map[string]sim.Answer{}}
		clients.Go(func() { c.run(ctx) })
	}
	w.trouble(10*time.Second, simFaults)
	w.heal()
	stop()
	clients.Wait()
	w.settle()
	w.judge()
	w.end()
	w.add(all)
}

// found makes a cluster of managers.
func (w *simWorld) found(n int) {
	for i := range n {
		id := fmt.Sprint("n", i+1)
		h := &simHost{w: w, id: id, disk: filepath.Join(w.dir, id), key: seal.NewKey(seal.Owner{ClusterID: simCluster, NodeID: id})}
		w.hosts[id] = h
		w.order = append(w.order, h)
	}
	first := w.order[0].start(cluster.Bootstrap)
	raft := first.m.cluster.Raft
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := raft.WaitLeader(ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, h := range w.order[1:] {
		h.start(cluster.Join)
		if err := raft.AddVoter(ctx, h.id); err != nil {
			w.t.Fatal(err)
		}
	}
	made, err := control.Bootstrap(control.Founding{
		ClusterID: simCluster, NodeID: first.h.id, IngressID: "ingress1", Addr: simAddr(first.h.id),
		JoinTokens:  swarm.JoinTokens{Worker: "SWMTKN-1-dig-w", Manager: "SWMTKN-1-dig-m"},
		Description: swarm.NodeDescription{Hostname: first.h.id},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	made.Cluster.GossipKeys, made.Cluster.GossipKeysSince = rawKeys([]gossip.Key{gossip.NewKey()}), time.Now()
	if err := first.m.found(ctx, made); err != nil {
		w.t.Fatal(err)
	}
	err = first.m.store.Update(ctx, func(tx *store.Tx) error {
		for _, h := range w.order[1:] {
			node := api.Clone(made.Node)
			node.ID, node.Addr, node.Description.Hostname = h.id, simAddr(h.id), h.id
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range w.order {
		h.alive().serve()
	}
}

// heal ends all faults.
func (w *simWorld) heal() {
	w.returning.Wait()
	w.net.Mend()
	w.calm()
	w.tell("healed")
}

// settle reads everything once more, which tells whether all that was
// acknowledged is there, and waits until all managers have the same state, to
// the byte.
func (w *simWorld) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := &simClient{w: w, n: 99, seen: map[string]sim.Answer{}}
	for _, h := range w.order {
		for _, name := range w.names {
			for !c.get(ctx, h.alive(), name) {
				if w.sleep(ctx, 100*time.Millisecond) != nil {
					w.t.Errorf("%s does not answer a minute after all faults ended: %+v", h.id, h.alive().m.cluster.Raft.Stats())
					return
				}
			}
		}
	}
	for {
		same := true
		states := map[string][]byte{}
		for _, h := range w.order {
			states[h.id] = w.state(h)
			same = same && bytes.Equal(states[h.id], states[w.order[0].id])
		}
		if same {
			return
		}
		if w.sleep(ctx, 100*time.Millisecond) != nil {
			w.t.Error("the managers' states differ a minute after all faults ended")
			for _, h := range w.order {
				w.t.Logf("%s: %+v\n%s", h.id, h.alive().m.cluster.Raft.Stats(), states[h.id])
			}
			return
		}
	}
}

func (w *simWorld) state(h *simHost) []byte {
	var b bytes.Buffer
	if _, err := h.alive().m.store.View().WriteTo(&b); err != nil {
		w.t.Error(err)
	}
	return b.Bytes()
}

func (w *simWorld) judge() {
	for _, wrong := range w.net.Wrong() {
		w.t.Error(wrong)
	}
	broken, err := w.history.Check(10 * time.Second)
	switch {
	case err != nil:
		w.t.Error(err)
	case broken != "":
		w.t.Errorf("no order of events explains what clients were told of %s", broken)
	}
	if !w.t.Failed() {
		return
	}
	var b strings.Builder
	for _, s := range w.story {
		fmt.Fprintln(&b, s)
	}
	if broken != "" {
		w.history.Dump(&b, broken)
	}
	w.t.Log("\n" + b.String())
	w.t.Log("what raft said last:\n" + w.said.tail())
}

// since is a moment as the story tells it.
func (w *simWorld) since(at time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(fmt.Sprintf("%7.3f", at.Sub(w.begin).Seconds()))
}

// said keeps the last lines of the logs.
type said struct {
	mu    sync.Mutex
	lines []string
}

// saidLines is how many are kept: some tell why a run failed, all fill pages.
const saidLines = 300

// Write implements io.Writer.
func (s *said) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines = append(s.lines, string(line)); len(s.lines) > 2*saidLines {
		s.lines = append(s.lines[:0], s.lines[saidLines:]...)
	}
	return len(line), nil
}

func (s *said) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines[max(0, len(s.lines)-saidLines):], "")
}

// end stops everything that runs.
func (w *simWorld) end() {
	for _, h := range w.order {
		if l := h.alive(); l != nil {
			_ = l.transport.Close()
			l.cancel()
			<-l.ended
		}
	}
	w.rest.Wait()
}

func (w *simWorld) add(all *simTotals) {
	if all.outcomes == nil {
		all.outcomes, all.faults, all.answers = map[sim.Outcome]int{}, map[string]int{}, map[string]int{}
	}
	all.runs++
	all.simulated += time.Since(w.begin)
	all.terms += int(w.terms.Load())
	all.woken += int(w.woken.Load())
	sent, lost, repeated, _ := w.net.Counts()
	all.sent, all.lost, all.repeated = all.sent+sent, all.lost+lost, all.repeated+repeated
	for o, n := range w.history.Count() {
		all.outcomes[o] += n
	}
	for f, n := range w.faults {
		all.faults[f] += n
	}
	for a, n := range w.answers {
		all.answers[a] += n
	}
}

func (w *simWorld) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%7.3f ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
}

func (w *simWorld) count(answer string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[answer]++
}

func (w *simWorld) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

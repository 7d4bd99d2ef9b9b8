package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/sim"
	"shoal/internal/testbed"
)

const (
	// rageFor is how long managers are troubled; SHOAL_SOAK is how many times
	// that.
	rageFor = 30 * time.Second
	// epoch is how long clients stay with the same names. What a checker has to
	// think through grows fast with the number of changes of one name.
	epoch = 15 * time.Second
	// namesInUse is how many services clients contend for.
	namesInUse = 4
	// askFor is when a client gives up on an answer.
	askFor = 2 * time.Second
	// judgeFor bounds the judgement of one name.
	judgeFor = time.Minute
)

// TestLinearizable lets clients of five managers make, change, read and remove
// the same services while these are cut off from each other, stand still and are
// killed. All that they were told must fit into one order of what happened.
func TestLinearizable(t *testing.T) {
	rnd, seed := seeded(t)
	bed := swarmOf(t, 5, 0)
	hosts := bed.Hosts()
	everybodyVotes(t, hosts)
	for _, h := range hosts {
		quiet(t, h, `more than a third of the nodes went silent`, `ERROR\tcluster\.(port\.)?raft\t`, `changes to services were not written`)
	}

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	b := &book{history: sim.NewHistory(), began: time.Now()}
	for i, h := range hosts {
		c := &contender{
			book: b, n: i, host: h.Name, api: dialed(t, h.API), seen: map[string]sim.Answer{},
			rnd: rand.New(rand.NewPCG(seed, uint64(i)+1)),
		}
		wg.Go(func() { c.run(ctx) })
	}
	w := &weather{t: t, hosts: hosts, rnd: rnd, seen: map[string]int{}}
	w.rage(rageFor * time.Duration(rounds(t, 1)))
	stop()
	wg.Wait()
	took := time.Since(b.began)

	everybodyVotes(t, hosts)
	for i, h := range hosts { // what was in doubt is known now, and the same everywhere
		c := &contender{book: b, n: len(hosts) + i, host: h.Name, api: dialed(t, h.API), seen: map[string]sim.Answer{}}
		for _, name := range b.all() {
			testbed.Eventually(t, patience, func() error {
				if a := c.get(t.Context(), name); a.Outcome != sim.Done && a.Outcome != sim.Missing {
					return fmt.Errorf("%s is %s", name, a.Outcome)
				}
				return nil
			})
		}
	}
	begin := time.Now()
	broken, err := b.history.Check(judgeFor)
	if err != nil {
		t.Error(err)
	} else if broken != "" {
		var story strings.Builder
		b.history.Dump(&story, broken)
		t.Errorf("no order of what happened explains what clients were told of %s:\n%s", broken, story.String())
	}
	n := b.history.Count()
	t.Logf("%s of weather %v; answers %v; the longest time without an acknowledged change %s; judged in %s",
		took.Round(time.Second), w.seen, n, b.longest.Round(10*time.Millisecond), time.Since(begin).Round(time.Millisecond))
	if b.changes < int(took/time.Second) {
		t.Errorf("only %d acknowledged changes in %s: this shows little", b.changes, took)
	}
	if n[sim.Unknown] == 0 {
		t.Error("no answer was lost: nothing has happened to the managers")
	}
}

// book is what all clients write down.
type book struct {
	history *sim.History
	began   time.Time

	mu      sync.Mutex
	changes int // acknowledged
	last    time.Time
	longest time.Duration // between two of them
	used    map[string]bool
}

// name chooses one of those that are in use now.
func (b *book) name(i int) string {
	now := fmt.Sprintf("s%d-%d", int(time.Since(b.began)/epoch), i)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == nil {
		b.used = map[string]bool{}
	}
	b.used[now] = true
	return now
}

func (b *book) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return sortedKeys(b.used)
}

func (b *book) acknowledged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	now := time.Now()
	if !b.last.IsZero() {
		b.longest = max(b.longest, now.Sub(b.last))
	}
	b.last = now
}

// contender is a client of one manager that asks one thing after the other.
type contender struct {
	*book
	n    int
	host string
	api  *client.Client
	rnd  *rand.Rand
	next int
	seen map[string]sim.Answer // what it read last
}

func (c *contender) run(ctx context.Context) {
	for ctx.Err() == nil {
		name := c.name(c.rnd.IntN(namesInUse))
		what := c.rnd.IntN(100)
		switch seen, ok := c.seen[name]; {
		case what < 30:
			c.get(ctx, name)
		case what < 35:
			c.list(ctx)
		case what < 75 && ok:
			c.change(ctx, sim.Call{Kind: sim.Update, Name: name, Value: c.value(), Was: seen.Value, Seen: seen.Version})
		case what < 82:
			c.change(ctx, sim.Call{Kind: sim.Delete, Name: name})
		default:
			c.change(ctx, sim.Call{Kind: sim.Create, Name: name, Value: c.value()})
		}
		select { // a pace that leaves the machine to the managers
		case <-ctx.Done():
		case <-time.After(time.Duration(c.rnd.Int64N(int64(150 * time.Millisecond)))):
		}
	}
}

func (c *contender) value() string {
	c.next++
	return fmt.Sprintf("%d-%d", c.n, c.next)
}

func (c *contender) get(ctx context.Context, name string) sim.Answer {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	end := c.history.Begin(c.n, c.host, sim.Call{Kind: sim.Get, Name: name})
	s, _, err := c.api.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	a := sim.Answer{Outcome: outcomeOf(err)}
	if err == nil {
		a = valueOf(s)
		c.seen[name] = a
	}
	end(a)
	return a
}

func (c *contender) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	var calls []sim.Call
	for i := range namesInUse {
		calls = append(calls, sim.Call{Kind: sim.Get, Name: c.name(i)})
	}
	end := c.history.Begin(c.n, c.host, calls...)
	list, err := c.api.ServiceList(ctx, swarm.ServiceListOptions{})
	answers := make([]sim.Answer, len(calls))
	for i, call := range calls {
		if answers[i].Outcome = outcomeOf(err); err != nil {
			continue
		}
		answers[i].Outcome = sim.Missing
		for _, s := range list {
			if s.Spec.Name == call.Name {
				answers[i] = valueOf(s)
				c.seen[call.Name] = answers[i]
			}
		}
	}
	end(answers...)
}

func (c *contender) change(ctx context.Context, call sim.Call) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	end := c.history.Begin(c.n, c.host, call)
	var err error
	switch call.Kind {
	case sim.Create:
		_, err = c.api.ServiceCreate(ctx, idleSpec(call), swarm.ServiceCreateOptions{})
	case sim.Update:
		_, err = c.api.ServiceUpdate(ctx, call.Name, swarm.Version{Index: call.Seen}, idleSpec(call), swarm.ServiceUpdateOptions{})
	case sim.Delete:
		err = c.api.ServiceRemove(ctx, call.Name)
	}
	a := sim.Answer{Outcome: outcomeOf(err)}
	end(a)
	if a.Outcome == sim.Done {
		c.acknowledged()
	}
}

// valueLabel is where a service carries the value that clients write.
const valueLabel = "value"

// idleSpec is a service without tasks: this is about what is agreed upon.
func idleSpec(call sim.Call) swarm.ServiceSpec {
	spec := webSpec(call.Name, 0, 0)
	spec.Labels = map[string]string{valueLabel: call.Value}
	return spec
}

func valueOf(s swarm.Service) sim.Answer {
	return sim.Answer{Outcome: sim.Done, Value: s.Spec.Labels[valueLabel], Version: s.Version.Index}
}

// outcomeOf reads an error as the API means it. Of one that says nothing certain
// the change may have taken effect.
func outcomeOf(err error) sim.Outcome {
	if err == nil {
		return sim.Done
	}
	says := func(s string) bool { return strings.Contains(err.Error(), s) }
	switch {
	case errdefs.IsNotFound(err):
		return sim.Missing
	case errdefs.IsConflict(err) && says("already exists"):
		return sim.Exists
	case says("update out of sequence"):
		return sim.Conflict
	case says("Cannot connect to the Docker daemon"), says("does not have a leader"), says("is not the leader"), says("changed by another request"), says("raft is not running"):
		return sim.Refused
	}
	return sim.Unknown
}

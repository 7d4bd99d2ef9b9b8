package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

// killFor is how long managers are killed; SHOAL_SOAK is how many times that.
// What else may befall them TestLinearizable has.
const killFor = 20 * time.Second

// TestMinorityKilled kills the daemons of a random minority of the managers
// again and again, while clients of every manager write: what was acknowledged
// holds, every manager says the same in the end, and no task is touched.
func TestMinorityKilled(t *testing.T) {
	soak := rounds(t, 1)
	for _, managers := range []int{3, 5} {
		t.Run(fmt.Sprint(managers), func(t *testing.T) {
			rnd, seed := seeded(t)
			bed := swarmOf(t, managers, 0)
			hosts := bed.Hosts()
			everybodyVotes(t, hosts)
			create(t, hosts[0], "--name", "bystander", "--replicas", fmt.Sprint(managers), testbed.WebV1)
			before := everywhere(t, hosts, "bystander")

			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			var changes atomic.Int32
			ws := make([]*writer, managers)
			for i, h := range hosts {
				ws[i] = &writer{
					name: fmt.Sprintf("w%d", i), api: dialed(t, h.API), changes: &changes,
					rnd: rand.New(rand.NewPCG(seed, uint64(i)+1)), model: map[string]outcomes{}, idle: true,
				}
				wg.Go(func() { ws[i].run(ctx) })
			}
			rounds, killed := 0, 0
			for begin := time.Now(); time.Since(begin) < killFor*time.Duration(soak); rounds++ {
				killed += killSome(t, hosts, rnd)
			}
			acknowledged := changes.Load()
			stop()
			wg.Wait()
			t.Logf("%d daemons killed in %d rounds, %d acknowledged changes", killed, rounds, acknowledged)
			if int(acknowledged) < rounds {
				t.Errorf("only %d changes in %d rounds: this shows little", acknowledged, rounds)
			}
			for i, w := range ws {
				if w.failed != nil {
					t.Errorf("client of %s: %v", hosts[i].Name, w.failed)
				}
			}
			for _, h := range hosts {
				agrees(t, dialed(t, h.API), ws)
			}
			testbed.Eventually(t, patience, running(t, hosts[0], "bystander", managers))
			if after := everywhere(t, hosts, "bystander"); !maps.Equal(before, after) {
				t.Errorf("containers were touched:\nbefore %v\nafter  %v", before, after)
			}
		})
	}
}

// killSome kills a minority at a random moment each, and starts it again.
func killSome(t *testing.T, hosts []*testbed.Host, rnd *rand.Rand) int {
	t.Helper()
	n := 1 + rnd.IntN(len(hosts)/2)
	var wg sync.WaitGroup
	for _, i := range rnd.Perm(len(hosts))[:n] {
		h, moment, away := hosts[i], time.Duration(rnd.Int64N(int64(300*time.Millisecond))), time.Duration(rnd.Int64N(int64(time.Second)))
		wg.Go(func() {
			<-time.After(moment) // the moments are what is tested: there is no condition to them
			if err := h.KillShoal(t.Context()); err != nil {
				t.Error(err)
			}
			<-time.After(away)
			if err := h.StartShoal(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	everybodyVotes(t, hosts)
	return n
}

// everybodyVotes waits until the next minority is one: with all managers back.
func everybodyVotes(t *testing.T, hosts []*testbed.Host) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		got, err := roles(hosts[0])
		if err != nil {
			return err
		}
		for _, h := range hosts {
			if got[h.Name] != "Ready Leader" && got[h.Name] != "Ready Reachable" {
				return fmt.Errorf("%v", got)
			}
		}
		return nil
	})
}

// everywhere gives a service's running containers on all hosts, by task.
func everywhere(t *testing.T, hosts []*testbed.Host, service string) map[string]life {
	t.Helper()
	all := map[string]life{}
	for _, h := range hosts {
		maps.Copy(all, mustLive(t, h, service))
	}
	return all
}

// agrees fails the test unless this manager knows every acknowledged change.
func agrees(t *testing.T, api *client.Client, ws []*writer) {
	t.Helper()
	for _, w := range ws {
		mine := *w
		mine.api, mine.model = api, maps.Clone(w.model)
		if err := mine.settle(t.Context()); err != nil {
			t.Error(err)
			continue
		}
		maps.Copy(w.model, mine.model) // what was in doubt must be the same for the next
	}
}

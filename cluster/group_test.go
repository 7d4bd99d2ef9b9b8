package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// bubble runs a test of several members in simulated time: elections are about
// who was heard of in time, and the machine may be busy.
func bubble(t *testing.T, f func(t *testing.T)) {
	if raceDetector { // it and synctest do not go together before Go 1.27
		f(t)
		return
	}
	synctest.Test(t, f)
}

// group is several members in one process.
type group struct {
	dir     string
	members map[string]*member
}

func (g *group) config(id string, start Start) RaftConfig {
	return RaftConfig{
		Dir: filepath.Join(g.dir, id), Key: testKey(id), Start: start,
		TrailingEntries: 10,
		ElectionTimeout: 200 * time.Millisecond,
	}
}

func (g *group) start(t testing.TB, id string, start Start) *member {
	t.Helper()
	_, transport := raft.NewInmemTransport(raft.ServerAddress(id))
	cfg := g.config(id, start)
	cfg.Transport = func() (raft.Transport, error) { return transport, nil }
	m := startMember(t, cfg)
	m.transport = transport
	for other, o := range g.members {
		transport.Connect(raft.ServerAddress(other), o.transport)
		o.transport.Connect(raft.ServerAddress(id), transport)
	}
	g.members[id] = m
	return m
}

func (g *group) stop(t testing.TB, id string) {
	t.Helper()
	m := g.members[id]
	delete(g.members, id)
	m.stop(t)
	for _, o := range g.members {
		o.transport.Disconnect(raft.ServerAddress(id))
	}
}

func (g *group) isolate(m *member) {
	m.transport.DisconnectAll()
	for _, o := range g.members {
		o.transport.Disconnect(m.transport.LocalAddr())
	}
}

func (g *group) heal() {
	for a, m := range g.members {
		for b, o := range g.members {
			if a != b {
				m.transport.Connect(raft.ServerAddress(b), o.transport)
			}
		}
	}
}

func newGroup(t testing.TB, n int) *group {
	t.Helper()
	g := &group{dir: t.TempDir(), members: map[string]*member{}}
	first := g.start(t, "n1", Bootstrap)
	first.waitLeader(t)
	for i := 2; i <= n; i++ {
		id := fmt.Sprint("n", i)
		g.start(t, id, Join)
		if err := first.AddNonvoter(deadline(t), id); err != nil {
			t.Fatal(err)
		}
		if err := first.AddVoter(deadline(t), id); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// leader waits for a member that leads and can prove it.
func (g *group) leader(t testing.TB) *member {
	t.Helper()
	var found *member
	eventually(t, "there is a leader", func() bool {
		for _, m := range g.members {
			if _, self := m.Leader(); self {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				err := m.VerifyLeader(ctx)
				cancel()
				if err == nil {
					found = m
					return true
				}
			}
		}
		return false
	})
	return found
}

func (g *group) agree(t testing.TB, want []string) {
	t.Helper()
	for id, m := range g.members {
		eventually(t, id+" has every entry", func() bool {
			return strings.Join(m.machine.all(), " ") == strings.Join(want, " ")
		})
	}
}

func TestThreeVotersFailOverAndCatchUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		lead := g.leader(t)
		var want []string
		put := func(m *member, s string) {
			t.Helper()
			m.mustApply(t, s)
			want = append(want, s)
		}
		for i := range 20 {
			put(lead, fmt.Sprint("a", i))
		}
		g.agree(t, want)

		var notLeader *NotLeaderError
		for id, m := range g.members {
			if m == lead {
				continue
			}
			if err := m.Apply(deadline(t), []byte("x")); !errors.As(err, &notLeader) || notLeader.LeaderID != lead.nodeID {
				t.Fatalf("apply on follower %s: %v", id, err)
			}
		}

		// The leader is cut off: the others go on, and it stops leading by itself.
		g.isolate(lead)
		begin := time.Now()
		eventually(t, "the cut-off leader steps down", func() bool { _, self := lead.Leader(); return !self })
		var next *member
		eventually(t, "another leads", func() bool {
			for _, m := range g.members {
				if _, self := m.Leader(); self && m != lead {
					next = m
				}
			}
			return next != nil
		})
		t.Logf("failed over in %s with an election timeout of 200 ms", time.Since(begin))
		// More than the trailing log, with a snapshot, so that the one that was
		// cut off has to install it.
		for i := range 60 {
			put(next, fmt.Sprint("b", i))
		}
		if err := next.Snapshot(deadline(t)); err != nil {
			t.Fatal(err)
		}
		put(next, "c")
		g.heal()
		g.agree(t, want)

		// Everybody restarts.
		ids := []string{"n1", "n2", "n3"}
		for _, id := range ids {
			g.stop(t, id)
		}
		for _, id := range ids {
			g.start(t, id, Restart)
		}
		put(g.leader(t), "d")
		g.agree(t, want)
		if n := len(g.leader(t).Stats().Servers); n != 3 {
			t.Fatalf("%d servers after the restart", n)
		}
	})
}

func TestPlannedStopHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		lead := g.leader(t)
		lead.mustApply(t, "a")
		g.agree(t, []string{"a"})
		// From now on nobody elects for want of a leader: only who is asked to.
		for _, m := range g.members {
			h, err := m.begin()
			if err != nil {
				t.Fatal(err)
			}
			c := h.ReloadableConfig()
			c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour
			err = h.ReloadConfig(c)
			if err != nil {
				t.Fatal(err)
			}
		}
		g.stop(t, lead.nodeID)
		eventually(t, "a successor leads", func() bool {
			for _, m := range g.members {
				if _, self := m.Leader(); self {
					return true
				}
			}
			return false
		})
	})
}

func TestRemoveAndTransfer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newGroup(t, 3)
		lead := g.leader(t)
		var target string
		for id, m := range g.members {
			if m != lead {
				target = id
			}
		}
		if err := lead.TransferLeadership(deadline(t), target); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the target leads", func() bool { _, self := g.members[target].Leader(); return self })
		next := g.leader(t)
		if err := next.RemoveServer(deadline(t), lead.nodeID); err != nil {
			t.Fatal(err)
		}
		if n := len(next.Stats().Servers); n != 2 {
			t.Fatalf("%d servers after the removal", n)
		}
		next.mustApply(t, "two are enough")
	})
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/internal/testbed"
)

// weather is what befalls the managers of a bed, one thing after the other.
// What is cut is cut for packets from one host at another, so that one may hear
// and not be heard.
type weather struct {
	t     *testing.T
	hosts []*testbed.Host
	rnd   *rand.Rand
	seen  map[string]int
}

// misfortunes are what can happen. Each begins, says of whom, and returns what
// ends it. Clocks are not among them: all hosts of a bed share the machine's. The
// simulation sets them wrong.
var misfortunes = map[string]func(w *weather) (string, func() error, error){
	"the leader cut off": func(w *weather) (string, func() error, error) { return w.split(w.leader()) },
	"a minority cut off": func(w *weather) (string, func() error, error) {
		return w.split(w.some(len(w.hosts) / 2)...)
	},
	"the leader in a minority": func(w *weather) (string, func() error, error) {
		lead := w.leader()
		with := []*testbed.Host{lead}
		for _, h := range w.some(len(w.hosts)) {
			if h != lead && len(with) < len(w.hosts)/2 {
				with = append(with, h)
			}
		}
		return w.split(with...)
	},
	"nobody has a majority": func(w *weather) (string, func() error, error) {
		order := w.some(len(w.hosts))
		third := (len(order) + 2) / 3
		part := map[*testbed.Host]int{}
		for i, h := range order {
			part[h] = i / third
		}
		return w.cut(names(order...)+" in three", func(a, b *testbed.Host) bool { return part[a] != part[b] })
	},
	"one hears nothing": func(w *weather) (string, func() error, error) {
		h := w.leaderOrAny()
		return w.cut(h.Name, func(_, to *testbed.Host) bool { return to == h })
	},
	"one is not heard": func(w *weather) (string, func() error, error) {
		h := w.leaderOrAny()
		return w.cut(h.Name, func(from, _ *testbed.Host) bool { return from == h })
	},
	"a bridge": func(w *weather) (string, func() error, error) {
		order := w.some(len(w.hosts))
		half := 1 + len(order)/2
		left := map[*testbed.Host]bool{}
		for _, h := range order[1:half] {
			left[h] = true
		}
		between := order[0]
		return w.cut(between.Name+" between "+names(order[1:half]...)+" and "+names(order[half:]...), func(a, b *testbed.Host) bool {
			return a != between && b != between && left[a] != left[b]
		})
	},
	"the leader stands still": func(w *weather) (string, func() error, error) { return w.pause(w.leader()) },
	"one stands still":        func(w *weather) (string, func() error, error) { return w.pause(w.some(1)[0]) },
	"the leader killed":       func(w *weather) (string, func() error, error) { return w.kill(w.leader()) },
	"a minority killed": func(w *weather) (string, func() error, error) {
		return w.kill(w.some(len(w.hosts) / 2)...)
	},
}

// rage lets one thing after the other happen until it has been long enough, and
// each of them has.
func (w *weather) rage(long time.Duration) {
	kinds := make([]string, 0, len(misfortunes))
	for end := time.Now().Add(long); time.Now().Before(end) || len(w.seen) < len(misfortunes); {
		if len(kinds) == 0 {
			kinds = sortedKeys(misfortunes)
			w.rnd.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		}
		kind := kinds[0]
		kinds = kinds[1:]
		whom, undo, err := misfortunes[kind](w)
		if err == nil {
			w.t.Logf("%s %s: %s", time.Now().Format("15:04:05.000"), kind, whom)
			w.seen[kind]++
			// The moments are what is tested: there is no condition to them.
			<-time.After(300*time.Millisecond + time.Duration(w.rnd.Int64N(int64(2500*time.Millisecond))))
			err = undo()
		}
		if err != nil {
			w.t.Fatalf("%s: %s: %v", kind, whom, err)
		}
		<-time.After(time.Duration(w.rnd.Int64N(int64(time.Second))))
	}
}

// some chooses n hosts.
func (w *weather) some(n int) []*testbed.Host {
	var out []*testbed.Host
	for _, i := range w.rnd.Perm(len(w.hosts))[:n] {
		out = append(out, w.hosts[i])
	}
	return out
}

// leader is who leads, by what the first says that can tell; or anybody.
func (w *weather) leader() *testbed.Host {
	for _, h := range w.some(len(w.hosts)) {
		got, err := roles(h)
		if err != nil {
			continue
		}
		for _, l := range w.hosts {
			if strings.HasSuffix(got[l.Name], " Leader") {
				return l
			}
		}
	}
	return w.some(1)[0]
}

func (w *weather) leaderOrAny() *testbed.Host {
	if w.rnd.IntN(3) == 0 {
		return w.some(1)[0]
	}
	return w.leader()
}

// split cuts some off from the rest, both ways.
func (w *weather) split(some ...*testbed.Host) (string, func() error, error) {
	in := map[*testbed.Host]bool{}
	for _, h := range some {
		in[h] = true
	}
	return w.cut(names(some...), func(a, b *testbed.Host) bool { return in[a] != in[b] })
}

// cut drops packets at their receivers.
func (w *weather) cut(whom string, lost func(from, to *testbed.Host) bool) (string, func() error, error) {
	for _, to := range w.hosts {
		var from []string
		for _, h := range w.hosts {
			if h != to && lost(h, to) {
				from = append(from, h.IP.String())
			}
		}
		if len(from) == 0 {
			continue
		}
		err := nft(w.t.Context(), to, fmt.Sprintf(`table ip weather {
			chain arrives { type filter hook prerouting priority -400; ip saddr { %s } drop; }
		}`, strings.Join(from, ", ")))
		if err != nil {
			return whom, nil, errors.Join(err, w.mend())
		}
	}
	return whom, w.mend, nil
}

func (w *weather) mend() error {
	var errs []error
	for _, h := range w.hosts {
		errs = append(errs, nft(w.t.Context(), h, "add table ip weather\ndelete table ip weather"))
	}
	return errors.Join(errs...)
}

func nft(ctx context.Context, h *testbed.Host, rules string) error {
	return h.RunInput(ctx, strings.NewReader(rules), "nft", "-f", "-").Err()
}

// pause stops a daemon as it is, and lets it go on.
func (w *weather) pause(h *testbed.Host) (string, func() error, error) {
	pid, err := h.ShoalPID()
	if err != nil {
		return h.Name, nil, err
	}
	return h.Name, func() error { return unix.Kill(pid, unix.SIGCONT) }, unix.Kill(pid, unix.SIGSTOP)
}

func (w *weather) kill(some ...*testbed.Host) (string, func() error, error) {
	var errs []error
	for _, h := range some {
		errs = append(errs, h.KillShoal(w.t.Context()))
	}
	return names(some...), func() error {
		var errs []error
		for _, h := range some {
			errs = append(errs, h.StartShoal(w.t.Context()))
		}
		return errors.Join(errs...)
	}, errors.Join(errs...)
}

func names(hosts ...*testbed.Host) string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return strings.Join(out, " ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

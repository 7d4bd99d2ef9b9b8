package daemon

import (
	"context"
	"time"

	"shoal/cluster"
)

// simFault is what can happen, and how often compared to others. It returns what
// it did, "" if there was nothing to do.
type simFault struct {
	name   string
	weight int
	do     func(w *simWorld) string
}

// simFaults are those of managers.
var simFaults = []simFault{
	{"kill the leader", 10, func(w *simWorld) string { return w.killOne(w.leader()) }},
	{"kill any", 5, func(w *simWorld) string { return w.killOne(w.any()) }},
	{"kill all", 4, (*simWorld).killAll},
	{"cut the leader off", 6, func(w *simWorld) string { return w.split([]*simHost{w.leader()}) }},
	{"cut a minority off", 5, func(w *simWorld) string { return w.split(w.pick((len(w.order) - 1) / 2)) }},
	{"leader in the minority", 5, (*simWorld).splitWithLeader},
	{"one-way", 6, (*simWorld).oneWay},
	{"bridge", 6, (*simWorld).bridge},
	{"mend", 20, (*simWorld).mend},
	{"disturb", 6, (*simWorld).disturb},
	{"calm", 6, (*simWorld).calm},
	{"pause the leader", 6, func(w *simWorld) string { return w.pause(w.leader()) }},
	{"pause any", 4, func(w *simWorld) string { return w.pause(w.any()) }},
	{"hand over", 6, (*simWorld).handOver},
	{"slow to apply", 5, (*simWorld).sluggish},
	{"clock jump", 5, (*simWorld).clock},
}

// trouble lets faults happen for a time.
func (w *simWorld) trouble(d time.Duration, faults []simFault) {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		_ = w.sleep(context.Background(), 100*time.Millisecond+time.Duration(w.rng.Int64N(int64(1200*time.Millisecond))))
		n := w.rng.IntN(total)
		for _, f := range faults {
			if n -= f.weight; n >= 0 {
				continue
			}
			if what := f.do(w); what != "" {
				w.faults[f.name]++
				w.tell("%s: %s", f.name, what)
			}
			break
		}
	}
}

// leader is who says of itself that it leads, or anybody.
func (w *simWorld) leader() *simHost {
	for _, h := range w.order {
		if l := h.alive(); l != nil {
			if _, self := l.m.cluster.Raft.Leader(); self {
				return h
			}
		}
	}
	return w.any()
}

func (w *simWorld) any() *simHost { return w.order[w.rng.IntN(len(w.order))] }

// pick chooses n hosts.
func (w *simWorld) pick(n int) []*simHost {
	var out []*simHost
	for _, i := range w.rng.Perm(len(w.order))[:n] {
		out = append(out, w.order[i])
	}
	return out
}

func simIDs(hosts []*simHost) string {
	s := ""
	for _, h := range hosts {
		s += " " + h.id
	}
	return s
}

// killOne kills a host, as long as a quorum stays, and brings it back later.
func (w *simWorld) killOne(h *simHost) string {
	dead := 0
	for _, o := range w.order {
		if o.alive() == nil {
			dead++
		}
	}
	if h.alive() == nil || dead >= (len(w.order)-1)/2 {
		return ""
	}
	back := 50*time.Millisecond + time.Duration(w.rng.Int64N(int64(2500*time.Millisecond)))
	w.killUntil(h, back)
	return h.id + ", back after " + back.String()
}

func (w *simWorld) killUntil(h *simHost, back time.Duration) {
	h.kill()
	w.net.Resume(h.id) // a paused process that is killed is gone
	w.returning.Go(func() {
		_ = w.sleep(context.Background(), back)
		h.start(cluster.Restart).serve()
	})
}

func (w *simWorld) killAll() string {
	for _, h := range w.order {
		if h.alive() != nil {
			w.killUntil(h, time.Duration(w.rng.Int64N(int64(500*time.Millisecond))))
		}
	}
	return "at once"
}

// split cuts some off from the rest, both ways.
func (w *simWorld) split(some []*simHost) string {
	w.net.Mend()
	in := map[string]bool{}
	for _, h := range some {
		in[h.id] = true
	}
	for _, a := range w.order {
		for _, b := range w.order {
			if in[a.id] != in[b.id] {
				w.net.Cut(a.id, b.id)
			}
		}
	}
	return simIDs(some)
}

// splitWithLeader cuts the largest minority off, with the leader in it.
func (w *simWorld) splitWithLeader() string {
	lead := w.leader()
	some := []*simHost{lead}
	for _, h := range w.pick(len(w.order)) {
		if h != lead && len(some) < (len(w.order)-1)/2 {
			some = append(some, h)
		}
	}
	return w.split(some)
}

// oneWay lets a host hear and not be heard, or the other way round.
func (w *simWorld) oneWay() string {
	w.net.Mend()
	h := w.leader()
	if w.rng.IntN(3) == 0 {
		h = w.any()
	}
	deaf := w.rng.IntN(2) == 0
	for _, o := range w.order {
		if o == h {
			continue
		}
		if deaf {
			w.net.Cut(o.id, h.id)
		} else {
			w.net.Cut(h.id, o.id)
		}
	}
	if deaf {
		return h.id + " hears nothing"
	}
	return h.id + " is not heard"
}

// bridge leaves one host that everybody reaches, between two halves that do not
// reach each other.
func (w *simWorld) bridge() string {
	w.net.Mend()
	order := w.pick(len(w.order))
	half := (len(order) - 1) / 2
	for _, a := range order[1 : 1+half] {
		for _, b := range order[1+half:] {
			w.net.Cut(a.id, b.id)
			w.net.Cut(b.id, a.id)
		}
	}
	return order[0].id + " between" + simIDs(order[1:1+half]) + " and" + simIDs(order[1+half:])
}

func (w *simWorld) mend() string {
	w.net.Mend()
	return "all links"
}

func (w *simWorld) disturb() string {
	loss, twice := 0.3*w.rng.Float64(), 0.2*w.rng.Float64()
	slow := time.Duration(w.rng.Int64N(int64(150 * time.Millisecond)))
	w.net.Disturb(loss, twice, slow)
	return "loss, repetition and delay"
}

func (w *simWorld) calm() string {
	w.net.Disturb(0, 0, 0)
	for _, h := range w.order {
		if l := h.alive(); l != nil {
			l.slow.Store(0)
		}
	}
	return "the network, and all hosts are quick"
}

func (w *simWorld) pause(h *simHost) string {
	if h.alive() == nil {
		return ""
	}
	d := 20*time.Millisecond + time.Duration(w.rng.Int64N(int64(3*time.Second)))
	w.net.Pause(h.id)
	w.returning.Go(func() {
		_ = w.sleep(context.Background(), d)
		w.net.Resume(h.id)
	})
	return h.id + " for " + d.String()
}

func (w *simWorld) handOver() string {
	h := w.leader()
	l := h.alive()
	if l == nil {
		return ""
	}
	w.rest.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		defer cancel()
		_ = l.m.cluster.Raft.TransferLeadership(ctx, "") // may well fail, in this weather
	})
	return "by " + h.id
}

// sluggish lets a host take its time for every entry.
func (w *simWorld) sluggish() string {
	h := w.any()
	l := h.alive()
	if l == nil {
		return ""
	}
	d := time.Duration(w.rng.Int64N(int64(300 * time.Millisecond)))
	l.slow.Store(int64(d))
	return h.id + " takes " + d.String()
}

// clock sets a host's clock wrong, or right again.
func (w *simWorld) clock() string {
	h := w.any()
	l := h.alive()
	if l == nil {
		return ""
	}
	skew := time.Duration(w.rng.Int64N(int64(48*time.Hour))) - 24*time.Hour
	l.skew.Store(int64(skew))
	return h.id + " by " + skew.String()
}

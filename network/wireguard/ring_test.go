package wireguard

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"shoal/internal/api"
)

var (
	t0   = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	test = Rotation{Period: 24 * time.Hour, Settle: 10 * time.Second, Patience: time.Hour, Linger: 4 * time.Minute}
)

func newRing(t interface{ Fatal(...any) }) *Ring {
	r, err := NewRing(test, Key{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// step goes one and tells what came of it.
func step(t interface{ Fatal(...any) }, r *Ring, f Facts) api.WireGuard {
	before := r.Public()
	changed, err := r.Step(f)
	if err != nil {
		t.Fatal(err)
	}
	if after := r.Public(); changed != (before != after) {
		t.Fatal("changed:", changed, before, after)
	}
	return r.Public()
}

func TestRotation(t *testing.T) {
	r := newRing(t)
	first := r.Public()
	at := func(d time.Duration, known api.WireGuard) Facts {
		return Facts{Now: t0.Add(d), Since: t0, Known: known, AllUp: true}
	}
	if got := step(t, r, at(24*time.Hour-1, first)); got != first {
		t.Errorf("a key that is not due changed to %+v", got)
	}
	if got := step(t, r, Facts{Now: t0.Add(48 * time.Hour), Known: api.WireGuard{}, AllUp: true}); got != first {
		t.Errorf("a key that nobody knows yet changed to %+v", got)
	}
	next := step(t, r, at(24*time.Hour, first))
	if next.Key != first.Key || next.Next == "" || next.Last != "" {
		t.Fatalf("when it is due: %+v", next)
	}
	day := 24 * time.Hour
	for _, s := range []struct {
		why string
		f   Facts
	}{
		{"managers do not know the next yet", at(day+time.Hour, first)},
		{"they have just heard of it", at(day+2*time.Hour, next)},
		{"others had no time to", at(day+2*time.Hour+test.Settle-1, next)},
		{"one of them is down", Facts{Now: t0.Add(day + 2*time.Hour + test.Settle), Since: t0, Known: next}},
		{"another's turn is first", Facts{Now: t0.Add(day + 2*time.Hour + test.Settle), Since: t0, Known: next, AllUp: true, Wait: true}},
	} {
		if got := step(t, r, s.f); got != next {
			t.Fatalf("%s: %+v", s.why, got)
		}
	}
	now := day + 2*time.Hour + test.Settle
	changed := step(t, r, at(now, next))
	if used, _ := r.Keys(); changed != (api.WireGuard{Key: next.Next, Last: first.Key}) || used.PublicKey().String() != changed.Key {
		t.Fatalf("when all know: %+v", changed)
	}
	if got := step(t, r, at(now+test.Linger-1, changed)); got != changed {
		t.Errorf("the last key is forgotten while others may use it: %+v", got)
	}
	if got := step(t, r, at(now+test.Linger, changed)); got != (api.WireGuard{Key: next.Next}) {
		t.Errorf("in the end: %+v", got)
	}
}

func TestRotationOnDemand(t *testing.T) {
	r := newRing(t)
	first := r.Public()
	asked := t0.Add(time.Minute)
	if got := step(t, r, Facts{Now: asked, Since: asked, Older: asked, Known: first}); got != first {
		t.Errorf("a key from after it was asked for changed to %+v", got)
	}
	if got := step(t, r, Facts{Now: asked, Since: t0, Older: asked, Known: first}); got.Next == "" {
		t.Errorf("nothing happened: %+v", got)
	}
}

func TestWhoIsDownIsWaitedForSoLong(t *testing.T) {
	r := newRing(t)
	next := step(t, r, Facts{Now: t0.Add(25 * time.Hour), Since: t0, Known: r.Public()})
	step(t, r, Facts{Now: t0.Add(26 * time.Hour), Since: t0, Known: next})
	if got := step(t, r, Facts{Now: t0.Add(26*time.Hour + test.Patience - 1), Since: t0, Known: next}); got != next {
		t.Errorf("too early: %+v", got)
	}
	if got := step(t, r, Facts{Now: t0.Add(26*time.Hour + test.Patience), Since: t0, Known: next}); got.Key != next.Next {
		t.Errorf("for ever: %+v", got)
	}
}

// TestOthersAlwaysKnowTheKey lets time, news and nodes be as they like: a node
// uses no key that the managers have not told.
func TestOthersAlwaysKnowTheKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRing(t)
		told := r.Public()
		now := t0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(26*time.Hour)).Draw(t, "later")))
			if rapid.Bool().Draw(t, "news") {
				told = r.Public()
			}
			f := Facts{Now: now, Since: t0, Known: told, AllUp: rapid.Bool().Draw(t, "up"), Wait: rapid.Bool().Draw(t, "wait")}
			got := step(t, r, f)
			if got.Key != told.Key && got.Key != told.Next {
				t.Fatalf("uses %s, and others know %+v", got.Key, told)
			}
			if used, own := r.Keys(); own[0].String() != got.Key || own[0] != used.PublicKey() || len(own) > 2 {
				t.Fatalf("own keys %v, public %+v", own, got)
			}
		}
	})
}

// TestKeysBelongTogether asks for them while they change.
func TestKeysBelongTogether(t *testing.T) {
	r := newRing(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			now := t0
			for range 5 { // announced, told, used, forgotten
				now = now.Add(2 * test.Patience)
				_, _ = r.Step(Facts{Now: now, Since: t0.Add(-100 * test.Period), Known: r.Public(), AllUp: true})
			}
		}
	}()
	for changes, last := 0, (Key{}); ; {
		used, own := r.Keys()
		if own[0] != used.PublicKey() {
			t.Fatal("a private key with another's public one")
		}
		if used != last {
			changes, last = changes+1, used
		}
		select {
		case <-done:
			if changes < 2 {
				t.Error("no key changed")
			}
			return
		default:
		}
	}
}

func TestKeyOfTheDevice(t *testing.T) {
	one := newRing(t)
	used, _ := one.Keys()
	two, err := NewRing(test, used)
	if err != nil {
		t.Fatal(err)
	}
	if one.Public() != two.Public() || one.Public() == newRing(t).Public() {
		t.Error("a ring that begins with a key has it, and another has another")
	}
}

func TestAddress(t *testing.T) {
	a, b := Address(Key{1}), Address(Key{2})
	if a == b || !a.IsLinkLocalUnicast() || a != Address(Key{1}) {
		t.Errorf("addresses %s and %s", a, b)
	}
}

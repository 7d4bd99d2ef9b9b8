package docker

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestPullBack(t *testing.T) {
	now := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	f := newFailures()
	f.now = func() time.Time { return now }
	failed := errors.New("No such image: web")
	first, other := attemptOf("r1", ""), attemptOf("r1", "other credentials")
	if first == other || first == attemptOf("r2", "") {
		t.Fatal("attempts that may end differently are the same")
	}
	if err := f.check("web", first); err != nil {
		t.Fatalf("before anything failed: %v", err)
	}
	last := time.Duration(0)
	for n := range 20 {
		f.note("web", first, failed)
		err := f.check("web", first)
		if !errors.Is(err, failed) || n > 0 && !strings.Contains(err.Error(), "again in ") {
			t.Fatalf("after %d failures: %v", n+1, err)
		}
		wait := f.of["web"].until.Sub(now)
		if wait < last && last < pullBackMax || wait < pullBackMin || wait > pullBackMax*5/4 {
			t.Errorf("after %d failures it waits %s, before that %s", n+1, wait, last)
		}
		last = wait
		now = now.Add(wait)
		if err := f.check("web", first); err != nil {
			t.Fatalf("after the wait: %v", err)
		}
	}
	f.note("web", first, failed)
	for _, fresh := range []string{other, attemptOf("r2", "")} {
		if err := f.check("web", fresh); err != nil {
			t.Errorf("something new has to wait: %v", err)
		}
	}
	if f.check("other", first) != nil {
		t.Error("another image has to wait")
	}
	f.note("web", first, nil)
	if err := f.check("web", first); err != nil {
		t.Errorf("after a success: %v", err)
	}
}

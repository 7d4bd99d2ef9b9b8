package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"shoal/internal/api"
)

// TestTend: do is called at once, after a change, and after the time that it
// asked for, which the next call decides anew.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		start := time.Now()
		var at []time.Duration
		waits := []time.Duration{0, 3 * time.Second, time.Minute, 0}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- s.Tend(ctx, func() time.Duration {
				at = append(at, time.Since(start))
				return waits[len(at)-1]
			}, api.KindService)
		}()
		change := func(after time.Duration, id string) {
			time.Sleep(after - time.Since(start))
			mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service(id, id)) })
		}
		change(time.Second, "a")    // asks to be called at 4 s
		change(10*time.Second, "b") // takes the place of what was asked for at 4 s
		time.Sleep(time.Hour)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if want := []time.Duration{0, time.Second, 4 * time.Second, 10 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("called at %v, want %v", at, want)
		}
	})
}

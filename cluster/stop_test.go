package cluster

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"shoal/cluster/seal"
)

// TestDrainLeavesNobodyBehind: a stop waits for calls in flight and, if they do
// not end, for a time; nobody goes on waiting after that.
func TestDrainLeavesNobodyBehind(t *testing.T) {
	for name, tt := range map[string]struct{ ends, takes time.Duration }{
		"one that ends":     {time.Second, time.Second},
		"one that does not": {time.Hour, drainTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails if a goroutine stays blocked
				r := NewRaft(RaftConfig{Key: seal.NewKey(seal.Owner{ClusterID: "c1", NodeID: "n1"})})
				if !r.pending.TryAcquire(perEntry) {
					t.Fatal("there is no room for a call")
				}
				stop := time.AfterFunc(tt.ends, func() { r.pending.Release(perEntry) })
				defer stop.Stop()
				begin := time.Now()
				r.drain()
				if took := time.Since(begin); took != tt.takes {
					t.Errorf("a stop took %s, want %s", took, tt.takes)
				}
			})
		})
	}
}

// TestWhyAConnectionEnded: how long that is waited for is up to the caller.
func TestWhyAConnectionEnded(t *testing.T) {
	for name, tt := range map[string]struct {
		soon          bool
		closes, gives time.Duration // when net/http closes it, and when the caller gives up
		ended         bool
		takes         time.Duration
	}{
		"closed in a moment":            {true, 10 * time.Millisecond, time.Hour, true, 10 * time.Millisecond},
		"not closed":                    {true, time.Hour, time.Hour, false, closeTime},
		"the caller gives up":           {true, time.Hour, 20 * time.Millisecond, false, 20 * time.Millisecond},
		"in use, and not waited for":    {false, 10 * time.Millisecond, time.Hour, false, 0},
		"the caller has given up since": {true, time.Hour, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				defer b.Close()
				conn := tls.Client(watch(a), &tls.Config{InsecureSkipVerify: true})
				defer conn.NetConn().Close()
				stop := time.AfterFunc(tt.closes, func() { _ = conn.NetConn().Close() })
				defer stop.Stop()
				ctx, cancel := context.WithTimeout(t.Context(), tt.gives)
				defer cancel()
				begin := time.Now()
				got := ended(ctx, conn, tt.soon)
				if took := time.Since(begin); got != tt.ended || took != tt.takes {
					t.Errorf("%v after %s, want %v after %s", got, took, tt.ended, tt.takes)
				}
			})
		})
	}
}

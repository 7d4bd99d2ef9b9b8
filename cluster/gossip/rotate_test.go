package gossip

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// TestRotation follows the keys through three days: at every step a node that
// still has the keys of the step before opens what is sealed now, and the other
// way round, and every day another key seals.
func TestRotation(t *testing.T) {
	now := time.Unix(0, 0)
	keys, since := []Key{NewKey()}, now
	opens := func(ring []Key, k Key) bool {
		return slices.ContainsFunc(ring, func(o Key) bool { return bytes.Equal(o, k) })
	}
	sealed := [][]byte{keys[0]}
	var steps uint64
	for now.Before(time.Unix(0, 0).Add(3*keyLife + time.Hour)) {
		next, wait := NextKeys(keys, steps, since, now)
		if next == nil {
			if wait <= 0 {
				t.Fatalf("nothing to do, and no wait, after %s", now.Sub(since))
			}
			now = now.Add(wait)
			continue
		}
		if !opens(keys, next[0]) || !opens(next, keys[0]) {
			t.Fatalf("a gap between %x and %x", keys, next)
		}
		if !bytes.Equal(sealed[len(sealed)-1], next[0]) {
			sealed = append(sealed, next[0])
		}
		keys, since = next, now
		steps++
	}
	if len(sealed) != 4 || steps != 9 || len(keys) != 1 {
		t.Fatalf("%d keys sealed, %d steps, %d keys left", len(sealed), steps, len(keys))
	}
}

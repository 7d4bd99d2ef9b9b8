package gossip

import (
	"crypto/rand"
	"time"
)

const (
	// keyLife is how long a key seals. Its nonces are random, so that a day of a
	// large cluster stays far below the number at which two may be alike.
	keyLife = 24 * time.Hour
	// spreadTime is how long a change of the keys has to reach every node before
	// the next one builds on it. A node that is away for longer gets the keys of
	// the day with its first state.
	spreadTime = time.Minute
)

// NewKey makes a key.
func NewKey() Key {
	k := make(Key, KeySize)
	_, _ = rand.Read(k) // never fails: crypto/rand ends the program instead
	return k
}

// NextKeys is the next step of the rotation, or how long to wait for it. A new
// key first only opens, then seals, and then the old one goes; step counts how
// often the keys have changed since the first.
func NextKeys(keys []Key, step uint64, since, now time.Time) (next []Key, wait time.Duration) {
	age := now.Sub(since)
	switch {
	case len(keys) == 1 && age < keyLife:
		return nil, keyLife - age
	case len(keys) == 1:
		return []Key{keys[0], NewKey()}, 0
	case age < spreadTime:
		return nil, spreadTime - age
	case step%3 == 1:
		return []Key{keys[1], keys[0]}, 0
	default:
		return keys[:1], 0
	}
}

package wireguard

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"shoal/internal/api"
)

// Key is a private or a public key.
type Key = wgtypes.Key

// Address is where a node is reached inside the tunnel under a public key. A
// link-local address is good on the device alone: nothing that comes in by
// another interface can pretend to be sent there. And as each key has its own,
// WireGuard's check of senders does not stand in the way while a node changes
// from one key to the next.
func Address(public Key) netip.Addr {
	sum := sha256.Sum256(public[:])
	a := [16]byte{0xfe, 0x80}
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

// Rotation says when a node changes its key.
type Rotation struct {
	// Period is how long a key is used.
	Period time.Duration
	// Settle is how long others have to take in the next key from when the
	// managers have it.
	Settle time.Duration
	// Patience is how long a node that is DOWN is waited for: it would not know
	// the next key.
	Patience time.Duration
	// Linger is how long others may go on sending under the last key. WireGuard
	// itself gives up a session that was not renewed after three minutes.
	Linger time.Duration
}

// Daily is how keys rotate. What the keys protect is renewed every two minutes
// by WireGuard itself: they only say who is who.
var Daily = Rotation{Period: 24 * time.Hour, Settle: 10 * time.Second, Patience: time.Hour, Linger: 4 * time.Minute}

// Facts is what a change of keys depends on.
type Facts struct {
	Now time.Time
	// Known is what the managers have told all nodes of this one, and Since from
	// when they have known the key that it uses.
	Known api.WireGuard
	Since time.Time
	// Older asks for a new key if the present one is from before.
	Older time.Time
	// AllUp tells whether no other node is DOWN.
	AllUp bool
	// Wait tells whether another node is to change its key before this one. Two
	// at once would each call the other by the key that it has just given up.
	Wait bool
}

// Ring holds a node's private keys. They are in memory and in the device, never
// on a disk: a host that starts anew has a new one, and others learn of it when
// they learn that it is back.
//
// Its methods may be called at any time.
type Ring struct {
	rotation Rotation

	mu    sync.Mutex
	used  Key
	next  Key       // not zero: is to be used
	last  Key       // not zero: was used
	since time.Time // of the change under way
}

// NewRing begins with a key that the device has already, or with a new one if
// that is zero.
func NewRing(r Rotation, used Key) (*Ring, error) {
	if used == (Key{}) {
		var err error
		if used, err = wgtypes.GeneratePrivateKey(); err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
	}
	return &Ring{rotation: r, used: used}, nil
}

// Keys are the private key to use now, and the public keys that others may know
// this node by, the used one first.
func (r *Ring) Keys() (used Key, own []Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own = []Key{r.used.PublicKey()}
	for _, k := range []Key{r.next, r.last} {
		if k != (Key{}) {
			own = append(own, k.PublicKey())
		}
	}
	return r.used, own
}

// Public is what others should know.
func (r *Ring) Public() api.WireGuard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.public()
}

func (r *Ring) public() api.WireGuard {
	return api.WireGuard{Key: named(r.used), Next: named(r.next), Last: named(r.last)}
}

func named(private Key) string {
	if private == (Key{}) {
		return ""
	}
	return private.PublicKey().String()
}

// Step goes one step in the change of keys, if it is time: the next key is made
// and told; when all others had time to take it in, it is used; and when nobody
// can send under the last any more, that is forgotten. It tells whether anything
// changed.
func (r *Ring) Step(f Facts) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := f.Known == r.public()
	switch {
	case r.last != Key{}:
		if f.Now.Sub(r.since) < r.rotation.Linger {
			return false, nil
		}
		r.last = Key{}
		return true, nil
	case r.next == Key{}:
		if !told || f.Since.IsZero() || f.Now.Sub(f.Since) < r.rotation.Period && !f.Since.Before(f.Older) {
			return false, nil
		}
		next, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return false, fmt.Errorf("make a key: %w", err)
		}
		r.next, r.since = next, time.Time{}
		return true, nil
	case !told:
		r.since = time.Time{}
		return false, nil
	case r.since.IsZero():
		r.since = f.Now
		return false, nil
	}
	waited := f.Now.Sub(r.since)
	if waited < r.rotation.Settle || (f.Wait || !f.AllUp) && waited < r.rotation.Patience {
		return false, nil
	}
	r.used, r.last, r.next, r.since = r.next, r.used, Key{}, f.Now
	return true, nil
}

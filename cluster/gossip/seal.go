package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/containerd/errdefs"
)

// Key is one of the cluster's gossip keys: 32 secret bytes.
type Key []byte

// KeySize is the length of a Key.
const KeySize = 32

// A sealed packet is
//
//	format, key ID (4), nonce (12), AES-256-GCM of (kind, length of sender, sender, body)
//
// The key ID lets a stranger's packet be dropped without any cryptography, and
// picks the right key while several are in use. Both the ID and the key that
// seals are derived from the secret and the cluster's ID.
const (
	format     = 1
	keyIDSize  = 4
	nonceSize  = 12
	tagSize    = 16
	headSize   = 1 + keyIDSize + nonceSize
	maxSender  = 64
	maxPacket  = 1400 // fits every path we care for, tunnels included
	sealedCost = headSize + tagSize + 2
)

// kind says what a packet's body is.
type kind byte

const (
	kindMember kind = iota // memberlist's own
	kindPing               // "who is there?", to one address or to the whole segment
	kindPong               // its answer
	kindDoubt              // "I find this node silent, what about you?"
)

// keyring holds what packets are sealed with. Changing it is one atomic step,
// so no packet ever meets half a ring.
type keyring struct {
	cluster string
	keys    atomic.Pointer[[]sealer] // the first one seals, all of them open
}

type sealer struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
}

func (r *keyring) set(keys []Key) error {
	if len(keys) == 0 {
		return fmt.Errorf("set gossip keys: there are none: %w", errdefs.ErrInvalidArgument)
	}
	ring := make([]sealer, len(keys))
	for i, key := range keys {
		if len(key) != KeySize {
			return fmt.Errorf("set gossip keys: key %d has %d bytes instead of %d: %w", i+1, len(key), KeySize, errdefs.ErrInvalidArgument)
		}
		derived, err := hkdf.Key(sha256.New, key, nil, "shoal gossip "+r.cluster, keyIDSize+KeySize)
		if err != nil {
			return fmt.Errorf("derive gossip key %d: %w", i+1, err)
		}
		block, err := aes.NewCipher(derived[keyIDSize:])
		if err != nil {
			return fmt.Errorf("set gossip key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return fmt.Errorf("set gossip key %d: %w", i+1, err)
		}
		ring[i] = sealer{[keyIDSize]byte(derived[:keyIDSize]), aead}
	}
	r.keys.Store(&ring)
	return nil
}

var errOversize = errors.New("gossip packet is too large")

// seal makes a packet for the wire.
func (r *keyring) seal(k kind, sender string, body []byte) ([]byte, error) {
	ring := r.keys.Load()
	if ring == nil {
		return nil, fmt.Errorf("seal gossip packet: no keys yet: %w", errdefs.ErrUnavailable)
	}
	size := sealedCost + len(sender) + len(body)
	if size > maxPacket {
		return nil, fmt.Errorf("%w: %d bytes", errOversize, size)
	}
	key := &(*ring)[0]
	packet := make([]byte, headSize, size)
	packet[0] = format
	copy(packet[1:], key.id[:])
	nonce := packet[1+keyIDSize : headSize]
	_, _ = rand.Read(nonce) // never fails
	plain := make([]byte, 0, 2+len(sender)+len(body))
	plain = append(plain, byte(k), byte(len(sender)))
	plain = append(plain, sender...)
	plain = append(plain, body...)
	return key.aead.Seal(packet, nonce, plain, packet[:1+keyIDSize]), nil
}

// open is the inverse. Whatever is not ours is false, without an error that
// somebody might log a million times.
func (r *keyring) open(packet []byte) (k kind, sender string, body []byte, ok bool) {
	if len(packet) < sealedCost || len(packet) > maxPacket || packet[0] != format {
		return 0, "", nil, false
	}
	ring := r.keys.Load()
	if ring == nil {
		return 0, "", nil, false
	}
	for i := range *ring {
		key := &(*ring)[i]
		if !bytes.Equal(key.id[:], packet[1:1+keyIDSize]) {
			continue
		}
		plain, err := key.aead.Open(nil, packet[1+keyIDSize:headSize], packet[headSize:], packet[:1+keyIDSize])
		if err != nil {
			continue
		}
		n := int(plain[1])
		if n == 0 || n > maxSender || len(plain) < 2+n {
			return 0, "", nil, false
		}
		return kind(plain[0]), string(plain[2 : 2+n]), plain[2+n:], true
	}
	return 0, "", nil, false
}

package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// KeySize is the size of every key: AES-256.
const KeySize = 32

// Overhead is how much longer sealed data is.
const Overhead = nonceSize + tagSize

const (
	nonceSize = 24
	tagSize   = 16
	gcmNonce  = 12
)

// Kinds of what is sealed, so that one can not stand in for another.
const (
	KindEntry        = "raft entry"
	KindValue        = "raft value"
	KindSnapshotHead = "snapshot head"
	KindSnapshot     = "snapshot"
	KindNodeKey      = "node key"
	KindGossipKeys   = "gossip keys"

	kindDataKey = "data key"
)

// Owner is the node whose data it is.
type Owner struct {
	ClusterID string
	NodeID    string
}

// Place is where something sealed belongs. It opens nowhere else.
type Place struct {
	Kind  string
	Index uint64 // of an entry, or of a piece of a file
	Name  string // of a value, or of the file
}

// Key seals what one node writes. It is safe for concurrent use.
//
// The cipher is XAES-256-GCM (C2SP): AES-256-GCM with a key derived for each
// message from the first half of a nonce of 24 random bytes. Random nonces are
// then safe for any number of messages, and nothing has to be counted: a
// counter goes back when somebody restores an older copy of the disk, and a
// nonce that is used twice gives the plaintext away.
type Key struct {
	id     string
	raw    [KeySize]byte
	owner  Owner
	block  cipher.Block
	subkey [aes.BlockSize]byte // CMAC's K1
}

// ErrSealed says that data was not sealed by this key for this place, or that
// it has been changed since.
var ErrSealed = errors.New("it was changed, or sealed with another key or for another place")

// NewKey makes the data key of a new manager.
func NewKey(owner Owner) *Key {
	var raw [KeySize]byte
	_, _ = rand.Read(raw[:]) // never fails
	return keyOf(raw, owner)
}

func keyOf(raw [KeySize]byte, owner Owner) *Key {
	k := &Key{raw: raw, owner: owner, block: newBlock(raw[:])}
	sum := sha256.Sum256(append([]byte("shoal data key "), raw[:]...))
	k.id = hex.EncodeToString(sum[:8])
	k.block.Encrypt(k.subkey[:], k.subkey[:])
	carry := byte(0)
	for i := len(k.subkey) - 1; i >= 0; i-- {
		next := k.subkey[i] >> 7
		k.subkey[i] = k.subkey[i]<<1 | carry
		carry = next
	}
	k.subkey[len(k.subkey)-1] ^= carry * 0x87
	return k
}

// ID tells keys apart and gives nothing away.
func (k *Key) ID() string { return k.id }

// Owner is the node that the key is of.
func (k *Key) Owner() Owner { return k.owner }

// Seal returns plain sealed for a place.
func (k *Key) Seal(at Place, plain []byte) []byte {
	out := make([]byte, nonceSize, nonceSize+len(plain)+tagSize)
	_, _ = rand.Read(out) // never fails
	return k.derive(out).Seal(out, out[gcmNonce:nonceSize], plain, k.bind(at))
}

// Open returns what was sealed for a place, or ErrSealed.
func (k *Key) Open(at Place, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrSealed
	}
	plain, err := k.derive(sealed).Open(nil, sealed[gcmNonce:nonceSize], sealed[nonceSize:], k.bind(at))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// bind is the data that is authenticated along with a message. Each part has
// its length before it, so that no two places look the same.
func (k *Key) bind(at Place) []byte {
	var b []byte
	for _, part := range []string{at.Kind, k.owner.ClusterID, k.owner.NodeID, at.Name} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return binary.BigEndian.AppendUint64(b, at.Index)
}

// derive makes the cipher for one message from the first half of its nonce: two
// blocks of CMAC as SP 800-108 counts them.
func (k *Key) derive(nonce []byte) cipher.AEAD {
	var derived [KeySize]byte
	for i := range 2 {
		b := derived[i*aes.BlockSize:][:aes.BlockSize]
		b[1], b[2] = byte(i+1), 'X'
		copy(b[4:], nonce[:gcmNonce])
		for j := range b {
			b[j] ^= k.subkey[j]
		}
		k.block.Encrypt(b, b)
	}
	aead, err := cipher.NewGCM(newBlock(derived[:]))
	if err != nil {
		panic(err) // only for block sizes other than AES's
	}
	return aead
}

func newBlock(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for key sizes other than AES's
	}
	return b
}

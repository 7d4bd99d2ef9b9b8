package seal

import (
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/containerd/errdefs"
)

// unlockPrefix is Swarm's.
const unlockPrefix = "SWMKEY-1-"

// UnlockKey seals the data keys of all managers. Its text is what people keep.
type UnlockKey [KeySize]byte

// NewUnlockKey makes one.
func NewUnlockKey() UnlockKey {
	var k UnlockKey
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// String is SWMKEY-1- and the key in base64.
func (k UnlockKey) String() string {
	return unlockPrefix + base64.RawStdEncoding.EncodeToString(k[:])
}

// ParseUnlockKey reads what String wrote. Its error does not repeat the text.
func ParseUnlockKey(text string) (UnlockKey, error) {
	var k UnlockKey
	body, ok := strings.CutPrefix(text, unlockPrefix)
	raw, err := base64.RawStdEncoding.Strict().DecodeString(body)
	// The length of the text, too: the decoder skips line breaks.
	if !ok || err != nil || len(raw) != KeySize || len(body) != base64.RawStdEncoding.EncodedLen(KeySize) {
		return UnlockKey{}, errdefs.ErrInvalidArgument.WithMessage("invalid unlock key: it must begin with " + unlockPrefix + " and be complete")
	}
	copy(k[:], raw)
	return k, nil
}

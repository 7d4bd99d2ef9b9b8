package api

import (
	"crypto/rand"
	"math/big"
)

// idBase and idLen give Swarm's form of an identifier: 25 characters of base
// 36, which hold 128 random bits.
const (
	idBase = 36
	idLen  = 25
)

// NewID returns a new random identifier in Swarm's form: 25 characters of
// [0-9a-z].
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	s := new(big.Int).SetBytes(b[:]).Text(idBase)
	for len(s) < idLen {
		s = "0" + s
	}
	return s
}

package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	tokenPrefix  = "SWMTKN"
	tokenVersion = "1"
	digestLength = 50 // base36 digits that hold 256 bits
	secretLength = 25 // base36 digits, 129 bits
)

// Token is what a new node is given to join: the digest that pins the
// cluster's root, and the secret that says which role it may take.
type Token struct {
	Digest string // 50 base36 digits, see Digest
	Secret string // 25 base36 digits
}

// NewSecret returns a fresh secret for one role's join token.
func NewSecret() string { return randomDigits(secretLength) }

// Digest is the SHA-256 of a root certificate in 50 base36 digits. It is taken
// over the DER form, so that re-wrapping the PEM does not change it.
func Digest(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	digits := new(big.Int).SetBytes(sum[:]).Text(36)
	return strings.Repeat("0", digestLength-len(digits)) + digits
}

// String gives the form people copy: SWMTKN-1-<digest>-<secret>.
func (t Token) String() string {
	return tokenPrefix + "-" + tokenVersion + "-" + t.Digest + "-" + t.Secret
}

// ParseToken reads a join token. The errors name the part that is wrong but
// never repeat the token: it is a secret, and errors end up in logs.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), "-")
	bad := func(why string) (Token, error) {
		return Token{}, fmt.Errorf("invalid join token: %s: %w", why, errdefs.ErrInvalidArgument)
	}
	if parts[0] == "" {
		return bad("none was given; on a manager, 'shoal swarm join-token worker' says how to join")
	}
	if parts[0] != tokenPrefix {
		return bad("it must begin with " + tokenPrefix + "-" + tokenVersion)
	}
	if len(parts) != 4 {
		return bad("it must have four parts joined by dashes; was it copied whole?")
	}
	if parts[1] != tokenVersion {
		return bad("its version is not one this release knows")
	}
	t := Token{Digest: parts[2], Secret: parts[3]}
	if len(t.Digest) != digestLength || !isBase36(t.Digest) {
		return bad("the digest of the cluster's root is malformed; was it copied whole?")
	}
	if len(t.Secret) != secretLength || !isBase36(t.Secret) {
		return bad("the secret is malformed; was it copied whole?")
	}
	return t, nil
}

// Pins reports whether root is the one this token was made for.
func (t Token) Pins(root *x509.Certificate) bool { return equal(t.Digest, Digest(root)) }

// Matches compares the secret with the one the cluster holds for a role, in
// constant time. An empty secret on the cluster's side matches nothing.
func (t Token) Matches(secret string) bool {
	return len(secret) == secretLength && equal(t.Secret, secret)
}

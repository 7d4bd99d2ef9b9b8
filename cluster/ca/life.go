package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// Wanted is what the managers want of a node's key material.
type Wanted struct {
	Roots    []byte        // PEM: whom to trust, the current root first
	Issuer   []byte        // PEM: the root that signs now
	Validity time.Duration // how long a certificate lives
}

// Action is what a node should do about its key material.
type Action struct {
	Trust bool      // take over Wanted.Roots
	Renew bool      // ask for a new certificate
	At    time.Time // when it is due to renew, if nothing changes
}

// A certificate is renewed in the third quarter of its life or so, each at a
// moment of its own: nodes that joined together do not come back together, and
// the last fifth is left for managers that are away.
const (
	renewFrom = 0.50
	renewTo   = 0.80
)

// Next compares what the node has with what is wanted. A zero Wanted is that of
// a node which has not heard from the managers yet.
func (c *Credentials) Next(w Wanted, now time.Time) Action {
	m := c.current.Load()
	leaf := m.cert.Leaf
	a := Action{
		Trust: len(w.Roots) > 0 && !bytes.Equal(w.Roots, encodeCertificates(m.roots...)),
		At:    renewAt(leaf, w.Validity),
	}
	issuer, err := ParseCertificates(w.Issuer)
	a.Renew = !now.Before(a.At) || err == nil && !samePublicKey(issuer[0].PublicKey, m.issuer.PublicKey)
	return a
}

// renewAt is between renewFrom and renewTo of a certificate's life, or of the
// shorter one that is wanted since. The place between the two comes from the
// serial number, so that it is the same each time one looks.
func renewAt(leaf *x509.Certificate, wanted time.Duration) time.Time {
	issued := leaf.NotBefore.Add(backdate)
	life := leaf.NotAfter.Sub(issued)
	if wanted > 0 {
		life = min(life, wanted)
	}
	var draw float64 // in [0, 1)
	for _, b := range sha256.Sum256(leaf.SerialNumber.Bytes()) {
		draw = (draw + float64(b)) / 256
	}
	return issued.Add(time.Duration(float64(life) * (renewFrom + draw*(renewTo-renewFrom))))
}

// Expired tells whether the certificate in use has run out.
func (c *Credentials) Expired(now time.Time) bool { return now.After(c.Expiry()) }

// Trusts tells whether root is one of those that this node trusts.
func (c *Credentials) Trusts(root *x509.Certificate) bool {
	for _, r := range c.Roots() {
		if r.Equal(root) {
			return true
		}
	}
	return false
}

// Refresh signs this node's own certificate anew: same key, same name, same
// role, another end. It is for managers, which hold the root's key, and for the
// case that there is nobody to ask.
//
// The new certificate begins when the old one did. A manager that starts with
// its clock years ahead then still has a valid one when the clock is put right.
func (c *Credentials) Refresh(root *Root, validity time.Duration, now time.Time) (Bundle, error) {
	m := c.current.Load()
	if !c.Trusts(root.Cert) {
		return Bundle{}, fmt.Errorf("this node does not trust that root: %w", errdefs.ErrFailedPrecondition)
	}
	pub, ok := m.cert.Leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || m.identity.Role != RoleManager {
		return Bundle{}, fmt.Errorf("a %s can not sign its own certificate: %w", m.identity.Role, errdefs.ErrFailedPrecondition)
	}
	cert, err := root.signNode(pub, m.identity, m.cert.Leaf.NotBefore, now.Add(validity))
	if err != nil {
		return Bundle{}, err
	}
	b := m.bundle
	b.CertPEM = cert
	return b, nil
}

// KeyID names a public key: how the managers remember which keys they have
// certified.
func KeyID(cert *x509.Certificate) string { return keyID(cert.RawSubjectPublicKeyInfo) }

// RequestKeyID is KeyID of the key in a signing request.
func RequestKeyID(csrPEM []byte) (string, error) {
	pub, err := requestKey(csrPEM)
	if err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return keyID(spki), nil
}

func keyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// DefaultNodeValidity is Swarm's: 90 days.
	DefaultNodeValidity = 90 * 24 * time.Hour

	rootValidity = 20 * 365 * 24 * time.Hour

	// backdate lets a node whose clock runs behind accept a certificate that
	// was signed a moment ago.
	backdate = time.Hour

	// minRSABits is what a root of the user's must have if it is RSA.
	minRSABits = 2048
)

// Root is the authority of one cluster. Its key lives in the replicated store,
// so that every manager can sign.
type Root struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// NewRoot makes the authority of a new cluster.
func NewRoot(clusterID string, now time.Time) (*Root, error) {
	if clusterID == "" {
		return nil, fmt.Errorf("a root needs a cluster ID: %w", errdefs.ErrInvalidArgument)
	}
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make root key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "swarm-ca", Organization: []string{clusterID}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // signs nodes, and its successor: see CrossSign
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back root certificate: %w", err)
	}
	return &Root{Cert: cert, key: key}, nil
}

// CrossSign vouches for the root that comes next: whoever trusts r alone can
// then verify what next has signed. The PEM goes behind a node's certificate.
func (r *Root) CrossSign(next *x509.Certificate) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		RawSubject:            next.RawSubject, // to the byte: names are compared so
		SubjectKeyId:          next.SubjectKeyId,
		NotBefore:             latest(r.Cert.NotBefore, next.NotBefore),
		NotAfter:              earliest(r.Cert.NotAfter, next.NotAfter),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, r.Cert, next.PublicKey, r.key)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the next root: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// ParseOwnRoot reads a root that the user brings, and refuses one that could
// not do its work: sign certificates of this life for now, and one day vouch
// for its successor.
func ParseOwnRoot(certPEM, keyPEM []byte, validity time.Duration, now time.Time) (*Root, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read root certificate: %w", err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("a root is one certificate, found %d: %w", len(certs), errdefs.ErrInvalidArgument)
	}
	root, err := ParseRoot(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) (*Root, error) {
		return nil, fmt.Errorf("root certificate of %q %s: %w", root.Cert.Subject.CommonName, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	key, isRSA := root.Cert.PublicKey.(*rsa.PublicKey)
	switch {
	case root.Cert.KeyUsage != 0 && root.Cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return bad("may not sign certificates (key usage)")
	case root.Cert.MaxPathLenZero && root.Cert.MaxPathLen == 0:
		return bad("allows no authority below it (path length 0), which it needs to vouch for its successor in a later rotation")
	case isRSA && key.N.BitLen() < minRSABits:
		return bad("has a key of %d bits; %d is the least", key.N.BitLen(), minRSABits)
	case now.Before(root.Cert.NotBefore):
		return bad("is not valid before %s", root.Cert.NotBefore.UTC().Format(time.RFC3339))
	case root.Cert.NotAfter.Before(now.Add(validity)):
		return bad("expires at %s, before the first certificates of nodes do, which live for %s", root.Cert.NotAfter.UTC().Format(time.RFC3339), validity)
	}
	if err := root.try(validity, now); err != nil {
		return bad("can not be the root of a cluster (%v)", err)
	}
	return root, nil
}

// try signs for a node that does not exist, and vouches for a successor that
// does: what a certificate may say to restrict its authority is without end, and
// nodes that do not believe each other can not be told of another root either.
func (r *Root) try(validity time.Duration, now time.Time) error {
	next, err := NewRoot("trial", now)
	if err != nil {
		return err
	}
	cross, err := r.CrossSign(next.Cert)
	if err != nil {
		return err
	}
	csr, _, err := NewRequest()
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(r.Cert)
	for _, by := range []struct {
		root  *Root
		above []byte
	}{{r, nil}, {next, cross}} {
		signed, err := by.root.Sign(csr, Identity{NodeID: "trial", Role: RoleManager, ClusterID: "trial"}, validity, now)
		if err != nil {
			return err
		}
		chain, err := ParseCertificates(append(signed, by.above...))
		if err != nil {
			return err
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := verifyChain(chain, pool, usage, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseRoot reads what CertPEM and KeyPEM wrote.
func ParseRoot(certPEM, keyPEM []byte) (*Root, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read root certificate: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read root key: %w", err)
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("certificate of %q is not an authority: %w", certs[0].Subject.CommonName, errdefs.ErrInvalidArgument)
	}
	if !samePublicKey(certs[0].PublicKey, key.Public()) {
		return nil, fmt.Errorf("root key does not belong to the root certificate: %w", errdefs.ErrInvalidArgument)
	}
	return &Root{Cert: certs[0], key: key}, nil
}

// CertPEM returns the root certificate, which is public.
func (r *Root) CertPEM() []byte { return encodeCertificates(r.Cert) }

// KeyPEM returns the root key, which must never leave the managers.
func (r *Root) KeyPEM() ([]byte, error) { return encodeKey(r.key) }

// Sign issues a node certificate for the public key of a signing request. The
// subject is the caller's word alone: whatever the request asks to be called,
// to be or to do is ignored.
func (r *Root) Sign(csrPEM []byte, id Identity, validity time.Duration, now time.Time) (certPEM []byte, err error) {
	if err := id.validate(); err != nil {
		return nil, err
	}
	pub, err := requestKey(csrPEM)
	if err != nil {
		return nil, err
	}
	return r.signNode(pub, id, now.Add(-backdate), now.Add(validity))
}

func (r *Root) signNode(pub crypto.PublicKey, id Identity, notBefore, notAfter time.Time) (certPEM []byte, err error) {
	der, err := r.issue(pub, id, &x509.Certificate{
		NotBefore: notBefore, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("sign certificate of node %s: %w", id.NodeID, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// issue signs a certificate for whoever has a key. From its caller it takes what
// differs: how long it is valid, what for, and under which names.
func (r *Root) issue(pub crypto.PublicKey, id Identity, cert *x509.Certificate) (der []byte, err error) {
	cert.SerialNumber = newSerial()
	cert.Subject = id.subject()
	cert.NotAfter = earliest(cert.NotAfter, r.Cert.NotAfter)
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, cert, r.Cert, pub, r.key)
}

// requestKey takes the one thing that counts out of a signing request.
func requestKey(csrPEM []byte) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		return nil, fmt.Errorf("not one PEM certificate request: %w", errdefs.ErrInvalidArgument)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its own key: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("certificate request must use an ECDSA P-256 key: %w", errdefs.ErrInvalidArgument)
	}
	return pub, nil
}

// NewRequest makes a key and a signing request for it. The request carries no
// name: the authority decides what the node is called.
func NewRequest() (csrPEM, keyPEM []byte, err error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, fmt.Errorf("make node key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), keyPEM, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f // serial numbers are positive
	b[0] |= 0x40 // and of one length
	return new(big.Int).SetBytes(b[:])
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

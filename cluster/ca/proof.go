package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// Proof is what a node whose certificate has expired shows instead of it: the
// certificate, and a signature by its key that holds on one TLS connection and
// for one signing request only.
type Proof struct {
	Chain     []byte // PEM: the expired certificate, then intermediates if any
	Request   []byte // PEM: the signing request for the new one
	Signature []byte // ASN.1, ECDSA over SHA-256
}

const (
	// proofContext keeps the signature apart from any other that the key makes;
	// those of TLS itself begin with 64 spaces.
	proofContext = "shoal: renew an expired node certificate\x00"
	proofLabel   = "EXPORTER-shoal-renew-expired"

	// maxChain is more than a certificate needs to reach a root: one
	// intermediate, while the root is rotated.
	maxChain = 4
)

// Prove makes the proof for one connection.
func (c *Credentials) Prove(cs *tls.ConnectionState, request []byte) (*Proof, error) {
	m := c.current.Load()
	digest, err := proofDigest(cs, request)
	if err != nil {
		return nil, err
	}
	signer, ok := m.cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("node key cannot sign: %w", errdefs.ErrInvalidArgument)
	}
	signature, err := signer.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with the node key: %w", err)
	}
	return &Proof{Chain: m.bundle.CertPEM, Request: request, Signature: signature}, nil
}

// proofDigest is what is signed. The exporter's value is secret to the two ends
// of the connection and never the same twice: a proof that was overheard or
// passed on is worth nothing.
func proofDigest(cs *tls.ConnectionState, request []byte) ([]byte, error) {
	if cs == nil || !cs.HandshakeComplete || cs.Version < tls.VersionTLS13 {
		return nil, fmt.Errorf("a proof needs a TLS 1.3 connection: %w", errdefs.ErrUnauthenticated)
	}
	binding, err := cs.ExportKeyingMaterial(proofLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("bind the proof to the connection: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(proofContext))
	h.Write(binding)
	of := sha256.Sum256(request)
	h.Write(of[:])
	return h.Sum(nil), nil
}

// Verify says whose proof it is and which key made it. All must be right but
// the date: signed by one of the roots, of this cluster, expired, and proven on
// the very connection. Whether that node is still a member, and that key still
// the one it should have, is for the caller to know.
func (p *Proof) Verify(cs *tls.ConnectionState, roots []*x509.Certificate, clusterID string, now time.Time) (id Identity, keyID string, err error) {
	fail := func(kind error, format string, args ...any) (Identity, string, error) {
		return Identity{}, "", fmt.Errorf("renew an expired certificate: %s: %w", fmt.Sprintf(format, args...), kind)
	}
	chain, err := ParseCertificates(p.Chain)
	if err != nil {
		return fail(err, "read it")
	}
	if len(chain) > maxChain {
		return fail(errdefs.ErrInvalidArgument, "%d certificates are too many", len(chain))
	}
	leaf := chain[0]
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	if _, err := verifyChain(chain, pool, x509.ExtKeyUsageClientAuth, leaf.NotAfter); err != nil {
		return fail(errdefs.ErrPermissionDenied, "it was not signed by this cluster's authority (%v)", err)
	}
	if id, err = CertificateIdentity(leaf); err != nil {
		return fail(errdefs.ErrPermissionDenied, "%v", err)
	}
	switch pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); {
	case id.ClusterID != clusterID:
		return fail(errdefs.ErrPermissionDenied, "node %s is of cluster %s", id.NodeID, id.ClusterID)
	case now.Before(leaf.NotBefore):
		return fail(errdefs.ErrFailedPrecondition, "that of node %s is not valid before %s; are the clocks right?", id.NodeID, leaf.NotBefore.UTC().Format(time.RFC3339))
	case !now.After(leaf.NotAfter):
		return fail(errdefs.ErrFailedPrecondition, "that of node %s is valid until %s; are the clocks right?", id.NodeID, leaf.NotAfter.UTC().Format(time.RFC3339))
	default:
		digest, err := proofDigest(cs, p.Request)
		if err != nil {
			return fail(errdefs.ErrUnauthenticated, "%v", err)
		}
		if !ok || !ecdsa.VerifyASN1(pub, digest, p.Signature) {
			return fail(errdefs.ErrPermissionDenied, "the key of node %s was not proven on this connection", id.NodeID)
		}
	}
	return id, KeyID(leaf), nil
}

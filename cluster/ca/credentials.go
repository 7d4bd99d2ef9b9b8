package ca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

// Bundle is the key material of one node as it is kept on disk.
type Bundle struct {
	CAPEM   []byte // the trusted roots: one, or two while the root is rotated
	CertPEM []byte // the node's certificate, then intermediates if any
	KeyPEM  []byte
}

// Credentials is a node's identity in use. It can be replaced while
// connections are open: every handshake takes what is current at that moment.
type Credentials struct {
	current atomic.Pointer[material]
}

type material struct {
	bundle   Bundle
	identity Identity
	issuer   *x509.Certificate // whose key signed the certificate
	cert     tls.Certificate
	roots    []*x509.Certificate
	pool     *x509.CertPool
}

// NewCredentials checks that the parts of a bundle belong together. An expired
// certificate is accepted: its node may still renew it by proof of its key.
func NewCredentials(b Bundle) (*Credentials, error) {
	c := &Credentials{}
	return c, c.Replace(b)
}

// Replace puts a renewed bundle to use. The node and the cluster must stay the
// same; the role may change, as in a promotion.
func (c *Credentials) Replace(b Bundle) error {
	next, err := parseBundle(b)
	if err != nil {
		return err
	}
	if old := c.current.Load(); old != nil &&
		(old.identity.NodeID != next.identity.NodeID || old.identity.ClusterID != next.identity.ClusterID) {
		return fmt.Errorf("certificate is of node %s in cluster %s, this is node %s in cluster %s: %w",
			next.identity.NodeID, next.identity.ClusterID, old.identity.NodeID, old.identity.ClusterID, errdefs.ErrFailedPrecondition)
	}
	c.current.Store(next)
	return nil
}

func parseBundle(b Bundle) (*material, error) {
	roots, err := ParseCertificates(b.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("read trusted roots: %w", err)
	}
	chain, err := ParseCertificates(b.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("read node certificate: %w", err)
	}
	key, err := parseKey(b.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	leaf := chain[0]
	if !samePublicKey(leaf.PublicKey, key.Public()) {
		return nil, fmt.Errorf("node key does not belong to the node certificate: %w", errdefs.ErrFailedPrecondition)
	}
	id, err := CertificateIdentity(leaf)
	if err != nil {
		return nil, err
	}
	m := &material{bundle: b, identity: id, roots: roots, pool: x509.NewCertPool()}
	for _, r := range roots {
		m.pool.AddCert(r)
	}
	// Judged within its validity: whether it has run out is another question.
	verified, err := verifyChain(chain, m.pool, x509.ExtKeyUsageAny, leaf.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("node certificate is not signed by the trusted root: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if len(verified[0]) < 2 {
		return nil, fmt.Errorf("node certificate is one of the trusted roots: %w", errdefs.ErrFailedPrecondition)
	}
	m.issuer = verified[0][1]

	m.cert = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		m.cert.Certificate = append(m.cert.Certificate, c.Raw)
	}
	// The roots travel with the chain, so that a node which knows only the
	// digest in its join token can check the server in the very first handshake.
	for _, r := range roots {
		m.cert.Certificate = append(m.cert.Certificate, r.Raw)
	}
	return m, nil
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	return chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
}

// Identity is who this node is.
func (c *Credentials) Identity() Identity { return c.current.Load().identity }

// Expiry is when the certificate in use runs out.
func (c *Credentials) Expiry() time.Time { return c.current.Load().cert.Leaf.NotAfter }

// Roots are the trusted root certificates, the first being the current one.
func (c *Credentials) Roots() []*x509.Certificate { return c.current.Load().roots }

// Issuer is the authority whose key signed the certificate in use.
func (c *Credentials) Issuer() *x509.Certificate { return c.current.Load().issuer }

// Bundle is what is in use, as it is kept on disk.
func (c *Credentials) Bundle() Bundle { return c.current.Load().bundle }

// ServerConfig is for the cluster port. A certificate is verified if one is
// given; who may come without one is for the listener to decide.
func (c *Credentials) ServerConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := c.current.Load()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{m.cert},
				ClientAuth:   tls.VerifyClientCertIfGiven,
				ClientCAs:    m.pool,
				NextProtos:   protocols,
				// A resumed session would carry yesterday's certificate past
				// a rotation or a removal.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// ClientConfig is for a connection to another node of the cluster. The server
// is verified against the cluster's roots and then by identity, as its
// certificate names a node and not a host.
func (c *Credentials) ClientConfig(protocol string, expect Peer) *tls.Config {
	m := c.current.Load()
	config := m.strangerConfig(protocol, expect)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		// Always ours, whatever the server's hints: without it the server
		// answers "no certificate" where "wrong cluster" is the truth.
		return &m.cert, nil
	}
	return config
}

// StrangerConfig is ClientConfig for a node that shows no certificate, because
// its own has expired: the server is verified all the same. See Prove.
func (c *Credentials) StrangerConfig(protocol string, expect Peer) *tls.Config {
	return c.current.Load().strangerConfig(protocol, expect)
}

func (m *material) strangerConfig(protocol string, expect Peer) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // replaced, not skipped: see VerifyConnection
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errNoPeerCertificate
			}
			if _, err := verifyChain(cs.PeerCertificates, m.pool, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
				return fmt.Errorf("verify peer: %w: %w", err, errdefs.ErrUnauthenticated)
			}
			id, err := CertificateIdentity(cs.PeerCertificates[0])
			if err != nil {
				return err
			}
			return expect.check(id, m.identity.ClusterID)
		},
	}
}

// JoinConfig is for a node that has nothing yet but a token. It sends nothing
// until the server has shown the very root that the token pins, a certificate
// signed by it, and the role of a manager.
func JoinConfig(protocol string, token Token) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // replaced, not skipped: see VerifyConnection
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := PinnedRoot(&cs, token)
			return err
		},
	}
}

// PinnedRoot returns the root that a token pins from what a server showed, once
// the server's own certificate is known to come from it.
func PinnedRoot(cs *tls.ConnectionState, token Token) (*x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, errNoPeerCertificate
	}
	for _, root := range cs.PeerCertificates {
		if !root.IsCA || !token.Pins(root) {
			continue
		}
		pool := x509.NewCertPool()
		pool.AddCert(root)
		if _, err := verifyChain(cs.PeerCertificates, pool, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
			return nil, fmt.Errorf("verify the manager to join: %w: %w", err, errdefs.ErrUnauthenticated)
		}
		id, err := CertificateIdentity(cs.PeerCertificates[0])
		if err != nil {
			return nil, err
		}
		if id.Role != RoleManager {
			return nil, fmt.Errorf("node %s is not a manager; join through a manager: %w", id.NodeID, errdefs.ErrFailedPrecondition)
		}
		return root, nil
	}
	return nil, fmt.Errorf(`join token is for another cluster, or from before this cluster's root certificate was rotated: get the current one with "shoal swarm join-token" on a manager: %w`, errdefs.ErrPermissionDenied)
}

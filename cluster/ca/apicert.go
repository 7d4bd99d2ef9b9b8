package ca

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"
)

// The API over the network has certificates of the same authority and of other
// roles, which no node can have: neither of them gets through the port between
// nodes, and a node's is worth nothing at the API.
const (
	roleClient Role = "shoal-client"
	roleAPI    Role = "shoal-api"
)

// SignClient issues a certificate for a client of the API. name is for people.
func (r *Root) SignClient(csrPEM []byte, name, clusterID string, validity time.Duration, now time.Time) (certPEM []byte, err error) {
	pub, err := requestKey(csrPEM)
	if err != nil {
		return nil, err
	}
	der, err := r.issue(pub, Identity{NodeID: name, Role: roleClient, ClusterID: clusterID}, &x509.Certificate{
		NotBefore: now.Add(-backdate), NotAfter: now.Add(validity),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("sign certificate of client %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// NewServerKey makes a key for certificates of the API of one node.
func NewServerKey() (crypto.Signer, error) { return newKey() }

// ServerCertificate makes the certificate that the API of a node shows to clients
// that know it by these names and addresses.
func (r *Root) ServerCertificate(key crypto.Signer, nodeID, clusterID string, names []string, addrs []net.IP, validity time.Duration, now time.Time) (*tls.Certificate, error) {
	der, err := r.issue(key.Public(), Identity{NodeID: nodeID, Role: roleAPI, ClusterID: clusterID}, &x509.Certificate{
		NotBefore: now.Add(-backdate), NotAfter: now.Add(validity),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names, IPAddresses: addrs,
	})
	if err != nil {
		return nil, fmt.Errorf("sign certificate of the API: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back certificate of the API: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// VerifyClient tells which client a chain of certificates is of, if the cluster
// vouches for it now.
func VerifyClient(chain []*x509.Certificate, rootsPEM []byte, clusterID string, now time.Time) (name string, err error) {
	if len(chain) == 0 {
		return "", ErrNoCertificate
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootsPEM) {
		return "", fmt.Errorf("no trusted root: %w", errdefs.ErrFailedPrecondition)
	}
	s := chain[0].Subject
	if len(s.OrganizationalUnit) != 1 || len(s.Organization) != 1 || s.OrganizationalUnit[0] != string(roleClient) || s.Organization[0] != clusterID {
		return "", fmt.Errorf("certificate of %q is not a client's of this cluster: %w", s.CommonName, errdefs.ErrUnauthenticated)
	}
	if _, err := verifyChain(chain, roots, x509.ExtKeyUsageClientAuth, now); err != nil {
		return "", fmt.Errorf("certificate of client %q: %w: %w", s.CommonName, err, errdefs.ErrUnauthenticated)
	}
	return s.CommonName, nil
}

package ca

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
)

// Role is what a certificate lets its node do. The words are Swarm's.
type Role string

const (
	RoleManager Role = "swarm-manager"
	RoleWorker  Role = "swarm-worker"
)

// Identity is what a node certificate says.
type Identity struct {
	NodeID    string
	Role      Role
	ClusterID string
	// Since is how far the managers' log was when the certificate was issued. A
	// manager whose own log ends before that can not know what became of the
	// node; one whose log goes on can.
	Since uint64
}

func (id Identity) subject() pkix.Name {
	n := pkix.Name{
		CommonName:         id.NodeID,
		OrganizationalUnit: []string{string(id.Role)},
		Organization:       []string{id.ClusterID},
	}
	if id.Since > 0 {
		n.SerialNumber = strconv.FormatUint(id.Since, 10)
	}
	return n
}

func (id Identity) validate() error {
	if id.NodeID == "" || id.ClusterID == "" {
		return fmt.Errorf("an identity needs a node ID and a cluster ID: %w", errdefs.ErrInvalidArgument)
	}
	if id.Role != RoleManager && id.Role != RoleWorker {
		return fmt.Errorf("unknown node role %q: %w", id.Role, errdefs.ErrInvalidArgument)
	}
	return nil
}

// CertificateIdentity reads the identity out of a certificate. It says nothing
// about who signed it. Repeated fields are refused rather than picked from:
// two readers that pick differently are how roles get confused.
func CertificateIdentity(cert *x509.Certificate) (Identity, error) {
	s := cert.Subject
	if len(s.OrganizationalUnit) != 1 || len(s.Organization) != 1 {
		return Identity{}, fmt.Errorf("certificate of %q is not a node certificate: %w", s.CommonName, errdefs.ErrUnauthenticated)
	}
	id := Identity{NodeID: s.CommonName, Role: Role(s.OrganizationalUnit[0]), ClusterID: s.Organization[0]}
	err := id.validate()
	if err == nil && s.SerialNumber != "" {
		id.Since, err = strconv.ParseUint(s.SerialNumber, 10, 64)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("certificate of %q is not a node certificate: %w", s.CommonName, errdefs.ErrUnauthenticated)
	}
	return id, nil
}

// ErrNoCertificate says that the peer showed no certificate at all, which a
// joining node cannot help and everybody else must be refused for.
var ErrNoCertificate = fmt.Errorf("no client certificate: %w", errdefs.ErrUnauthenticated)

// PeerIdentity returns who is at the other end of an incoming connection. It
// insists on a chain that crypto/tls has verified, so it cannot be fooled by a
// listener whose configuration asks for certificates without checking them.
func PeerIdentity(cs *tls.ConnectionState) (Identity, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return Identity{}, ErrNoCertificate
	}
	if len(cs.VerifiedChains) == 0 {
		return Identity{}, fmt.Errorf("client certificate was not verified: %w", errdefs.ErrUnauthenticated)
	}
	return CertificateIdentity(cs.PeerCertificates[0])
}

// Peer is what the caller expects at the other end of an outgoing connection.
// An empty field means any.
type Peer struct {
	NodeID string
	Role   Role
}

// check compares an authenticated identity with what was expected.
func (p Peer) check(id Identity, clusterID string) error {
	switch {
	case id.ClusterID != clusterID:
		return fmt.Errorf("peer belongs to another cluster (%s): %w", id.ClusterID, errdefs.ErrPermissionDenied)
	case p.NodeID != "" && id.NodeID != p.NodeID:
		return fmt.Errorf("peer is node %s, expected %s: %w", id.NodeID, p.NodeID, errdefs.ErrPermissionDenied)
	case p.Role != "" && id.Role != p.Role:
		return fmt.Errorf("peer is a %s, expected a %s: %w", id.Role, p.Role, errdefs.ErrPermissionDenied)
	}
	return nil
}

// errNoPeerCertificate cannot happen in TLS, where a server always shows one.
var errNoPeerCertificate = errors.New("peer showed no certificate")

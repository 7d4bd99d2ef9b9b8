package control

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"shoal/cluster/ca"
	"shoal/internal/api"
)

const (
	// DefaultClientValidity is how long the certificate of an API client lives
	// unless told otherwise: a node's, for there is no other list of those whom
	// to let in.
	DefaultClientValidity = ca.DefaultNodeValidity
	minClientValidity     = time.Minute
	maxClientValidity     = 10 * 365 * 24 * time.Hour
	// apiValidity is how long the certificate of the API itself lives. It is made
	// again when the daemon needs it.
	apiValidity = 24 * time.Hour
)

// ClientCertificate is what a client of the API needs besides its key.
type ClientCertificate struct {
	Cert    []byte // PEM
	Roots   []byte // PEM: whom the client should trust
	Name    string
	Expires time.Time
}

// SignClient lets the holder of a key use the API over the network.
func (c *Control) SignClient(request []byte, name string, validity time.Duration) (*ClientCertificate, error) {
	switch {
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }):
		return nil, invalid("name of the client %q: must be 1 to 64 plain letters", name)
	case validity == 0:
		validity = DefaultClientValidity
	case validity < minClientValidity || validity > maxClientValidity:
		return nil, invalid("expiry %s: must be between %s and %s", validity, minClientValidity, maxClientValidity)
	}
	cl := c.View().Cluster()
	if cl == nil {
		return nil, errNoCluster
	}
	root, suffix, err := issuer(cl)
	if err != nil {
		return nil, err
	}
	now := c.now()
	cert, err := root.SignClient(request, name, cl.ID, validity, now)
	if err != nil {
		return nil, err
	}
	return &ClientCertificate{
		Cert: slices.Concat(cert, suffix), Roots: cl.Trust().Roots, Name: name, Expires: now.Add(validity).UTC(),
	}, nil
}

// VerifyClient tells which client the certificates are of, by what the cluster
// trusts now: after a rotation of its root, those of before are worth nothing.
func (c *Control) VerifyClient(chain []*x509.Certificate) (name string, err error) {
	cl := c.View().Cluster()
	if cl == nil {
		return "", errNoCluster
	}
	return ca.VerifyClient(chain, cl.Trust().Roots, cl.ID, c.now())
}

// APICertificate makes what the API of a manager shows to its clients.
func (c *Control) APICertificate(key crypto.Signer, nodeID string, names []string, addrs []net.IP) (*tls.Certificate, error) {
	cl := c.View().Cluster()
	if cl == nil {
		return nil, errNoCluster
	}
	root, suffix, err := issuer(cl)
	if err != nil {
		return nil, err
	}
	cert, err := root.ServerCertificate(key, nodeID, cl.ID, names, addrs, apiValidity, c.now())
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(suffix); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert, nil
}

// APICertificateGood tells whether one of them can still be shown.
func (c *Control) APICertificateGood(cert *tls.Certificate) bool {
	cl := c.View().Cluster()
	if cl == nil || cert == nil || cert.Leaf.NotAfter.Before(c.now().Add(apiValidity/2)) {
		return false
	}
	root, err := ca.ParseCertificates(cl.Trust().Issuer)
	return err == nil && cert.Leaf.CheckSignatureFrom(root[0]) == nil
}

// issuer is the root that signs now, and what goes behind its certificates.
func issuer(cl *api.Cluster) (root *ca.Root, suffix []byte, err error) {
	signer := api.RootCA{Cert: cl.RootCA.Cert, Key: cl.RootCA.Key}
	if r := cl.RootCA.Rotation; r != nil && r.Stage == api.RotationIssue {
		signer, suffix = api.RootCA{Cert: r.Cert, Key: r.Key}, r.CrossSigned
	}
	if root, err = ca.ParseRoot(signer.Cert, signer.Key); err != nil {
		return nil, nil, fmt.Errorf("read the cluster's root: %w", err)
	}
	return root, suffix, nil
}

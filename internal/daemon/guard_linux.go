package daemon

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"shoal/cluster/ca"
	"shoal/internal/control"
)

// guard lets clients use the API over the network. The cluster's authority is in
// every manager's copy of the state, so that a manager needs nobody for it: not
// even a leader.
type guard struct {
	node *node

	key  func() (crypto.Signer, error) // one for all names, made when it is first needed
	mu   sync.Mutex
	kept map[string]*tls.Certificate // by the names they are for
}

func newGuard(n *node) *guard { return &guard{node: n, key: sync.OnceValues(ca.NewServerKey)} }

// maxKeptCertificates bounds what is kept for strangers who call this node by many
// names. Any name may be one by which its clients know it, behind a load balancer
// for one. Each costs them a handshake, and this node one more signature than that.
const maxKeptCertificates = 64

var errNoGuard = errdefs.ErrUnavailable.WithMessage("this node is not a manager of a cluster: nobody can be let in over the network")

func (g *guard) control() (*control.Control, *membership, error) {
	m := g.node.current()
	if m == nil || m.manager == nil {
		return nil, nil, errNoGuard
	}
	return m.manager.control, m, nil
}

// VerifyClient implements httpapi.Guard.
func (g *guard) VerifyClient(chain []*x509.Certificate) (string, error) {
	c, _, err := g.control()
	if err != nil {
		return "", err
	}
	return c.VerifyClient(chain)
}

// APICertificate implements httpapi.Guard.
func (g *guard) APICertificate(name string, local net.IP) (*tls.Certificate, error) {
	c, m, err := g.control()
	if err != nil {
		return nil, err
	}
	names, addrs := []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if hostname, err := os.Hostname(); err == nil && hostname != "" {
		names = append(names, hostname)
	}
	if name != "" && len(name) < 254 {
		names = append(names, name)
	}
	for _, ip := range []net.IP{net.ParseIP(m.identity().host()), local} {
		if ip != nil {
			addrs = append(addrs, ip)
		}
	}
	called := m.id.NodeID + " " + strings.Join(names, " ") + " " + local.String()
	g.mu.Lock()
	kept := g.kept[called]
	g.mu.Unlock()
	if c.APICertificateGood(kept) {
		return kept, nil
	}
	key, err := g.key()
	if err != nil {
		return nil, fmt.Errorf("make the key of the API: %w", err)
	}
	cert, err := c.APICertificate(key, m.id.NodeID, names, addrs) // nobody else waits for it
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil || len(g.kept) >= maxKeptCertificates {
		g.kept = map[string]*tls.Certificate{}
	}
	g.kept[called] = cert
	return cert, nil
}

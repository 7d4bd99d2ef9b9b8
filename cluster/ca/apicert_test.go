package ca

import (
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"
)

// TestClientCertificates are good for the API and for nothing between nodes, and
// nodes' are worth nothing at the API.
func TestClientCertificates(t *testing.T) {
	root, foreign := newRoot(t, "c1"), newRoot(t, "c1")
	now := time.Now()
	sign := func(r *Root, cluster string, validity time.Duration) []*x509.Certificate {
		t.Helper()
		csr, key, err := NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := r.SignClient(csr, "ann", cluster, validity, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewCredentials(Bundle{CAPEM: r.CertPEM(), CertPEM: cert, KeyPEM: key}); err == nil {
			t.Error("a client's certificate makes a node")
		}
		chain, err := ParseCertificates(cert)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	nodeChain, err := ParseCertificates(issue(t, root, Identity{NodeID: "n1", Role: RoleManager, ClusterID: "c1"}, now).CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewServerKey()
	if err != nil {
		t.Fatal(err)
	}
	server, err := root.ServerCertificate(key, "n1", "c1", []string{"host"}, []net.IP{net.IPv4(10, 0, 0, 1)}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		at    time.Time
		fails string
	}{
		"a client":             {sign(root, "c1", time.Hour), now, ""},
		"of yesterday":         {sign(root, "c1", time.Hour), now.Add(25 * time.Hour), "expired"},
		"of another cluster":   {sign(root, "c2", time.Hour), now, "not a client's of this cluster"},
		"of another root":      {sign(foreign, "c1", time.Hour), now, "unknown authority"},
		"a manager":            {nodeChain, now, "not a client's"},
		"the API's own":        {[]*x509.Certificate{server.Leaf}, now, "not a client's"},
		"nobody":               {nil, now, "no client certificate"},
		"that outlives a root": {sign(root, "c1", 100*365*24*time.Hour), now.Add(21 * 365 * 24 * time.Hour), "expired"},
	} {
		who, err := VerifyClient(c.chain, root.CertPEM(), "c1", c.at)
		if c.fails == "" && (err != nil || who != "ann") || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: %q, %v", name, who, err)
		}
	}
	if _, err := CertificateIdentity(server.Leaf); err == nil {
		t.Error("the API's certificate makes a node")
	}
	for _, host := range []string{"host", "10.0.0.1"} {
		if err := server.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
}

package ca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// ends are the two sides of one handshake.
type ends struct {
	client, server tls.ConnectionState
	err            error // the client's
}

func handshake(t testing.TB, server, client *tls.Config) ends {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err != nil {
			_ = a.Close()
		}
		done <- err
	}()
	err := c.HandshakeContext(t.Context())
	if err != nil {
		_ = b.Close()
	}
	serverErr := <-done
	out := ends{c.ConnectionState(), s.ConnectionState(), err}
	if err == nil && serverErr != nil {
		out.err = errors.Join(err, serverErr)
	}
	_ = a.Close()
	_ = b.Close()
	return out
}

func certs(roots ...*Root) []*x509.Certificate {
	var out []*x509.Certificate
	for _, r := range roots {
		out = append(out, r.Cert)
	}
	return out
}

func TestProof(t *testing.T) {
	root, foreign := newRoot(t, "c1"), newRoot(t, "c1")
	now := time.Now()
	const day = 24 * time.Hour
	manager := credentials(t, root, Identity{NodeID: "m1", Role: RoleManager, ClusterID: "c1"}, day, now)
	node := credentials(t, root, worker, day, now)
	later := now.Add(3 * day)
	if !node.Expired(later) || node.Expired(now) {
		t.Fatal("a day is over after three, not before")
	}
	connect := func(c *Credentials) ends {
		t.Helper()
		e := handshake(t, manager.ServerConfig("h2"), c.StrangerConfig("h2", Peer{NodeID: "m1", Role: RoleManager}))
		if e.err != nil {
			t.Fatal(e.err)
		}
		if len(e.server.PeerCertificates) != 0 {
			t.Fatal("a stranger showed its certificate")
		}
		return e
	}
	csr, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(node)
	proof, err := node.Prove(&conn.client, csr)
	if err != nil {
		t.Fatal(err)
	}
	id, key, err := proof.Verify(&conn.server, certs(root), "c1", later)
	if err != nil || id != worker || key != KeyID(node.current.Load().cert.Leaf) {
		t.Fatalf("%+v %v", id, err)
	}

	otherCSR, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := connect(node)
	thief := credentials(t, root, Identity{NodeID: "w2", Role: RoleWorker, ClusterID: "c1"}, day, now)
	stolen, err := thief.Prove(&conn.client, csr)
	if err != nil {
		t.Fatal(err)
	}
	stolen.Chain = proof.Chain
	forged := credentials(t, foreign, worker, day, now)
	alien, err := forged.Prove(&conn.client, csr)
	if err != nil {
		t.Fatal(err)
	}
	authority := *proof
	authority.Chain = root.CertPEM()
	for _, c := range []struct {
		name    string
		proof   *Proof
		cs      *tls.ConnectionState
		roots   []*x509.Certificate
		cluster string
		at      time.Time
		why     string
	}{
		{"not expired", proof, &conn.server, certs(root), "c1", now, "is valid until"},
		{"not begun", proof, &conn.server, certs(root), "c1", now.Add(-2 * day), "is not valid before"},
		{"another cluster's name", proof, &conn.server, certs(root), "c2", later, "of cluster c1"},
		{"another authority", alien, &conn.server, certs(root), "c1", later, "not signed by this cluster's authority"},
		{"a root that was rotated away", proof, &conn.server, certs(foreign), "c1", later, "not signed by this cluster's authority"},
		{"overheard on another connection", proof, &elsewhere.server, certs(root), "c1", later, "was not proven"},
		{"for another request", &Proof{proof.Chain, otherCSR, proof.Signature}, &conn.server, certs(root), "c1", later, "was not proven"},
		{"signed by another key", stolen, &conn.server, certs(root), "c1", later, "was not proven"},
		{"no signature", &Proof{proof.Chain, csr, nil}, &conn.server, certs(root), "c1", later, "was not proven"},
		{"no connection", proof, nil, certs(root), "c1", later, "needs a TLS 1.3 connection"},
		{"no certificate", &Proof{nil, csr, proof.Signature}, &conn.server, certs(root), "c1", later, "no PEM certificate"},
		{"the root itself", &authority, &conn.server, certs(root), "c1", later.AddDate(30, 0, 0), "not a node certificate"},
		{"many certificates", &Proof{[]byte(strings.Repeat(string(proof.Chain), 9)), csr, proof.Signature}, &conn.server, certs(root), "c1", later, "too many"},
	} {
		if _, _, err := c.proof.Verify(c.cs, c.roots, c.cluster, c.at); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzProof: a proof comes from somebody who has shown nothing yet.
func FuzzProof(f *testing.F) {
	root := newRoot(f, "c1")
	now := time.Now()
	manager := credentials(f, root, Identity{NodeID: "m1", Role: RoleManager, ClusterID: "c1"}, time.Hour, now)
	node := credentials(f, root, worker, time.Hour, now)
	conn := handshake(f, manager.ServerConfig("h2"), node.StrangerConfig("h2", Peer{}))
	csr, _, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	proof, err := node.Prove(&conn.client, csr)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(proof)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"Chain":"","Request":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Proof
		if json.Unmarshal(data, &p) != nil {
			return
		}
		id, _, err := p.Verify(&conn.server, certs(root), "c1", now.Add(2*time.Hour))
		if err == nil && (id != worker || string(p.Request) != string(csr)) {
			t.Fatalf("%+v proved something else", id)
		}
	})
}

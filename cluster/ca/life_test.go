package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

var worker = Identity{NodeID: "w1", Role: RoleWorker, ClusterID: "c1"}

// credentials of a node, signed by root at a moment for a while.
func credentials(t testing.TB, root *Root, id Identity, validity time.Duration, at time.Time, trusted ...*Root) *Credentials {
	t.Helper()
	csr, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Sign(csr, id, validity, at)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := NewCredentials(Bundle{CAPEM: pemOf(append([]*Root{root}, trusted...)...), CertPEM: cert, KeyPEM: key})
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

func pemOf(roots ...*Root) []byte {
	var out []byte
	for _, r := range roots {
		out = append(out, r.CertPEM()...)
	}
	return out
}

func TestNext(t *testing.T) {
	old, next := newRoot(t, "c1"), newRoot(t, "c1")
	now := time.Now()
	const day = 24 * time.Hour
	creds := credentials(t, old, worker, 100*day, now)
	steady := Wanted{Roots: old.CertPEM(), Issuer: old.CertPEM(), Validity: 100 * day}
	with := func(change func(*Wanted)) Wanted {
		w := steady
		change(&w)
		return w
	}
	for _, c := range []struct {
		name         string
		wanted       Wanted
		after        time.Duration
		trust, renew bool
	}{
		{"fresh", steady, 0, false, false},
		{"nothing heard yet", Wanted{}, 0, false, false},
		{"nothing heard, and old", Wanted{}, 81 * day, false, true},
		{"before half of its life", steady, 49 * day, false, false},
		{"in its last fifth", steady, 81 * day, false, true},
		{"expired", steady, 200 * day, false, true},
		{"shortened, and beyond the new life", with(func(w *Wanted) { w.Validity = 10 * day }), 20 * day, false, true},
		{"shortened, and not there yet", with(func(w *Wanted) { w.Validity = 50 * day }), 20 * day, false, false},
		{"shortened to an hour, just now", with(func(w *Wanted) { w.Validity = time.Hour }), time.Minute, false, false},
		{"lengthened", with(func(w *Wanted) { w.Validity = 900 * day }), 81 * day, false, true},
		{"another root is to be trusted", with(func(w *Wanted) { w.Roots = pemOf(old, next) }), 0, true, false},
		{"another root signs", with(func(w *Wanted) { w.Roots, w.Issuer = pemOf(old, next), next.CertPEM() }), 0, true, true},
		{"roots that can not be read", with(func(w *Wanted) { w.Issuer = []byte("x") }), 0, false, false},
	} {
		got := creds.Next(c.wanted, now.Add(c.after))
		if got.Trust != c.trust || got.Renew != c.renew {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestRenewalIsInTime: whatever its life, a certificate is renewed in the third
// quarter of it or so, at a moment that does not move, and not together with
// all others.
func TestRenewalIsInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(time.Hour), int64(10*365*24*time.Hour)).Draw(t, "life"))
		wanted := time.Duration(rapid.Int64Range(0, 10*365*24).Draw(t, "wanted hours")) * time.Hour
		issued := time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "issued"), 0)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(rapid.Int64Min(1).Draw(t, "serial")),
			NotBefore:    issued.Add(-backdate), NotAfter: issued.Add(life),
		}
		short := life
		if wanted > 0 {
			short = min(short, wanted)
		}
		at := renewAt(leaf, wanted)
		part := float64(at.Sub(issued)) / float64(short)
		if part < renewFrom-1e-6 || part > renewTo+1e-6 {
			t.Fatalf("after %.3f of its life", part)
		}
		if again := renewAt(leaf, wanted); !again.Equal(at) {
			t.Fatal("the moment moves")
		}
	})
	var parts []float64
	for range 200 {
		leaf := &x509.Certificate{SerialNumber: newSerial(), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0).Add(backdate + time.Hour)}
		parts = append(parts, renewAt(leaf, 0).Sub(leaf.NotBefore.Add(backdate)).Hours())
	}
	if spread := slices.Max(parts) - slices.Min(parts); spread < 0.25 {
		t.Errorf("200 nodes renew within %.2f of a life", spread)
	}
}

// TestCrossSigning: at each stage of a rotation every node trusts every other,
// and a token for either root lets a machine join.
func TestCrossSigning(t *testing.T) {
	old, next := newRoot(t, "c1"), newRoot(t, "c1")
	now := time.Now()
	crossSigned, err := old.CrossSign(next.Cert)
	if err != nil {
		t.Fatal(err)
	}
	csr, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{NodeID: "m1", Role: RoleManager, ClusterID: "c1"}
	cert, err := next.Sign(csr, id, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		roots []byte
		cert  []byte
		ok    bool
	}{
		{"whoever trusts both", pemOf(old, next), cert, true},
		{"whoever trusts the new one", pemOf(next), cert, true},
		{"whoever trusts the old one, with the intermediate", pemOf(old), slices.Concat(cert, crossSigned), true},
		{"whoever trusts the old one, without", pemOf(old), cert, false},
	} {
		creds, err := NewCredentials(Bundle{CAPEM: c.roots, CertPEM: c.cert, KeyPEM: key})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && !samePublicKey(creds.Issuer().PublicKey, next.Cert.PublicKey) {
			t.Errorf("%s: issued by another key", c.name)
		}
	}

	creds, err := NewCredentials(Bundle{CAPEM: pemOf(old, next), CertPEM: slices.Concat(cert, crossSigned), KeyPEM: key})
	if err != nil {
		t.Fatal(err)
	}
	server := creds.ServerConfig("h2")
	for name, root := range map[string]*Root{"old": old, "new": next} {
		cs := handshake(t, server, JoinConfig("h2", Token{Digest: Digest(root.Cert), Secret: NewSecret()}))
		if cs.err != nil {
			t.Errorf("join by a token of the %s root: %v", name, cs.err)
		}
	}
	if cs := handshake(t, server, JoinConfig("h2", Token{Digest: Digest(newRoot(t, "c1").Cert), Secret: NewSecret()})); !errdefs.IsPermissionDenied(cs.err) || !strings.Contains(cs.err.Error(), "rotated") {
		t.Errorf("join by a token of an older root: %v", cs.err)
	}
	// Nothing but the next root can be made of a cross-signature.
	certs, err := ParseCertificates(crossSigned)
	if err != nil || !certs[0].MaxPathLenZero || string(certs[0].RawSubject) != string(next.Cert.RawSubject) {
		t.Errorf("%+v, %v", certs[0], err)
	}
}

func TestOwnRoot(t *testing.T) {
	now := time.Now()
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		rsa    bool
		why    string
	}{
		{"good", func(*x509.Certificate) {}, false, ""},
		{"no authority", func(c *x509.Certificate) { c.IsCA = false }, false, "not an authority"},
		{"may not sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, false, "may not sign"},
		{"path length 0", func(c *x509.Certificate) { c.MaxPathLenZero = true }, false, "path length 0"},
		{"not yet", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, false, "not valid before"},
		{"too short", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) }, false, "expires at"},
		{"weak", func(*x509.Certificate) {}, true, "1024 bits"},
		{"for servers alone", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, false, "incompatible key usage"},
		{"with a rule that nobody knows", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, false, "unhandled critical extension"},
	} {
		template := good
		c.change(&template)
		var cert, key []byte
		if c.rsa {
			cert, err = x509.CreateCertificate(rand.Reader, &template, &template, weak.Public(), weak)
			key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)})
		} else {
			cert, err = x509.CreateCertificate(rand.Reader, &template, &template, ec.Public(), ec)
			der, _ := x509.MarshalECPrivateKey(ec)
			key = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		}
		if err != nil {
			t.Fatal(err)
		}
		certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
		root, err := ParseOwnRoot(certPEM, key, 90*24*time.Hour, now)
		if c.why != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		credentials(t, root, worker, time.Hour, now) // it signs, and what it signs is believed
		if _, err := ParseOwnRoot(append(certPEM, certPEM...), key, time.Hour, now); err == nil {
			t.Error("two certificates were taken for one root")
		}
	}
}

// FuzzOwnRoot: a root that is taken has to do all that a root is there for.
func FuzzOwnRoot(f *testing.F) {
	now := time.Now()
	// One key for all processes: the seeds come from another than the one that
	// tries them.
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range []x509.Certificate{
		{},
		{KeyUsage: x509.KeyUsageCertSign, MaxPathLen: 1},
		{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}},
		{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		{PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"example.com"}},
		{ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}},
	} {
		c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: "Example"}
		c.NotBefore, c.NotAfter = now.Add(-time.Hour), now.AddDate(10, 0, 0)
		c.IsCA, c.BasicConstraintsValid = true, true
		der, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		root, err := ParseOwnRoot(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, 90*24*time.Hour, now)
		if err != nil {
			return
		}
		credentials(t, root, worker, 90*24*time.Hour, now)
		next := newRoot(t, "c1")
		cross, err := root.CrossSign(next.Cert)
		if err != nil {
			t.Fatal(err)
		}
		b := credentials(t, next, worker, 90*24*time.Hour, now).Bundle()
		chain, err := ParseCertificates(append(b.CertPEM, cross...))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(root.Cert)
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := verifyChain(chain, pool, usage, now); err != nil {
				t.Errorf("its successor's are not believed: %v", err)
			}
		}
	})
}

func TestRefresh(t *testing.T) {
	root, other := newRoot(t, "c1"), newRoot(t, "c1")
	then := time.Now()
	now := then.Add(100 * 24 * time.Hour)
	manager := Identity{NodeID: "m1", Role: RoleManager, ClusterID: "c1"}
	creds := credentials(t, root, manager, 24*time.Hour, then)
	before := KeyID(creds.current.Load().cert.Leaf)
	b, err := creds.Refresh(root, 24*time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.Replace(b); err != nil {
		t.Fatal(err)
	}
	leaf := creds.current.Load().cert.Leaf
	if creds.Expired(now) || !leaf.NotBefore.Before(then) || KeyID(leaf) != before || creds.Identity() != manager {
		t.Errorf("refreshed to %+v, valid from %s to %s", creds.Identity(), leaf.NotBefore, leaf.NotAfter)
	}
	if _, err := creds.Refresh(other, time.Hour, now); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("by a root that it does not trust: %v", err)
	}
	if _, err := credentials(t, root, worker, time.Hour, then).Refresh(root, time.Hour, now); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a worker: %v", err)
	}
}

package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"shoal/cluster/seal"
)

func newRoot(t testing.TB, cluster string) *Root {
	t.Helper()
	root, err := NewRoot(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func issue(t *testing.T, root *Root, id Identity, now time.Time) Bundle {
	t.Helper()
	csr, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Sign(csr, id, DefaultNodeValidity, now)
	if err != nil {
		t.Fatal(err)
	}
	return Bundle{CAPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key}
}

func TestSecrets(t *testing.T) {
	seen := map[string]bool{}
	digits := map[byte]int{}
	for range 2000 {
		id := NewSecret()
		if len(id) != secretLength || !isBase36(id) || seen[id] {
			t.Fatalf("bad or repeated secret %q", id)
		}
		seen[id] = true
		for i := range len(id) {
			digits[id[i]]++
		}
	}
	// 50,000 digits, 1,389 of each expected, with a deviation of 37.
	for i := range len(alphabet) {
		if n := digits[alphabet[i]]; n < 1150 || n > 1630 {
			t.Errorf("digit %c came up %d times", alphabet[i], n)
		}
	}
}

func TestTokens(t *testing.T) {
	root, other := newRoot(t, "c1"), newRoot(t, "c1")
	want := Token{Digest: Digest(root.Cert), Secret: NewSecret()}
	got, err := ParseToken(" " + want.String() + "\n")
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if !got.Pins(root.Cert) || got.Pins(other.Cert) {
		t.Error("the token does not pin its root alone")
	}
	if !got.Matches(want.Secret) || got.Matches(NewSecret()) {
		t.Error("the secret does not match itself alone")
	}
	if (Token{}).Matches("") {
		t.Error("no secret matches no secret")
	}

	whole := want.String()
	for name, bad := range map[string]string{
		"empty":          "",
		"prefix":         "TOKEN" + whole[6:],
		"version":        strings.Replace(whole, "-1-", "-2-", 1),
		"cut":            whole[:len(whole)-1],
		"longer":         whole + "0",
		"part missing":   whole[:strings.LastIndex(whole, "-")],
		"part too many":  whole + "-x",
		"upper case":     strings.Replace(whole, want.Secret, strings.ToUpper("a"+want.Secret[1:]), 1),
		"space inside":   strings.Replace(whole, want.Secret, " "+want.Secret[1:], 1),
		"not ascii":      strings.Replace(whole, want.Secret, "é"+want.Secret[2:], 1),
		"short digest":   strings.Replace(whole, want.Digest, want.Digest[1:], 1),
		"just dashes":    "---",
		"only a prefix ": "SWMTKN",
	} {
		_, err := ParseToken(bad)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		} else if bad == "" && !strings.Contains(err.Error(), "none was given; on a manager, 'shoal swarm join-token worker' says how to join") {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), want.Secret) {
			t.Errorf("%s: the error gives the secret away: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("SWMTKN-1-" + strings.Repeat("0", digestLength) + "-" + strings.Repeat("z", secretLength))
	f.Add("SWMTKN-1--")
	f.Add("----")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		if token.String() != strings.TrimSpace(s) {
			t.Fatalf("%q was read as %q", s, token)
		}
	})
}

// FuzzSign: a request comes from somebody who is not a member yet.
func FuzzSign(f *testing.F) {
	root, err := NewRoot("c1", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	csr, _, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	id := Identity{NodeID: "n1", Role: RoleWorker, ClusterID: "c1"}
	f.Fuzz(func(t *testing.T, csr []byte) {
		certPEM, err := root.Sign(csr, id, time.Hour, time.Now())
		if err != nil {
			return
		}
		certs, err := ParseCertificates(certPEM)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := CertificateIdentity(certs[0]); err != nil || got != id || certs[0].IsCA {
			t.Fatalf("signed as %+v, %v", got, err)
		}
	})
}

// FuzzIdentity: what a certificate says of its node is read in one way alone.
func FuzzIdentity(f *testing.F) {
	root := newRoot(f, "c1")
	for _, id := range []Identity{
		{NodeID: "m1", Role: RoleManager, ClusterID: "c1", Since: 1234},
		{NodeID: "w1", Role: RoleWorker, ClusterID: "c1"},
	} {
		csr, _, err := NewRequest()
		if err != nil {
			f.Fatal(err)
		}
		certPEM, err := root.Sign(csr, id, time.Hour, time.Now())
		if err != nil {
			f.Fatal(err)
		}
		block, _ := pem.Decode(certPEM)
		f.Add(block.Bytes)
	}
	f.Add(root.Cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		certs, err := ParseCertificates(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		if err != nil {
			return
		}
		id, err := CertificateIdentity(certs[0])
		if err != nil {
			return
		}
		if id.validate() != nil {
			t.Fatalf("read as %+v", id)
		}
		again, err := CertificateIdentity(&x509.Certificate{Subject: id.subject()})
		if err != nil || again != id {
			t.Fatalf("%+v, then %+v, %v", id, again, err)
		}
	})
}

func TestSignTakesOnlyTheKeyFromARequest(t *testing.T) {
	root := newRoot(t, "c1")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root of all", OrganizationalUnit: []string{string(RoleManager)}},
		DNSNames: []string{"manager.example"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	id := Identity{NodeID: "n1", Role: RoleWorker, ClusterID: "c1", Since: 1234}
	certPEM, err := root.Sign(csr, id, DefaultNodeValidity, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	got, err := CertificateIdentity(certs[0])
	if err != nil || got != id || len(certs[0].DNSNames) != 0 {
		t.Fatalf("%+v, %v, names %v", got, err, certs[0].DNSNames)
	}

	for _, since := range []string{"-1", "0x7", "late", "18446744073709551616"} {
		cert := *certs[0]
		cert.Subject.SerialNumber = since
		if id, err := CertificateIdentity(&cert); !errdefs.IsUnauthorized(err) {
			t.Errorf("issued at %q: %+v, %v", since, id, err)
		}
	}

	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak); err != nil {
		t.Fatal(err)
	}
	csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if _, err := root.Sign(csr, id, time.Hour, time.Now()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another kind of key: %v", err)
	}
	if _, err := root.Sign(csr, Identity{NodeID: "n1", Role: "admin", ClusterID: "c1"}, time.Hour, time.Now()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown role: %v", err)
	}
}

func TestRootRoundTripAndLimits(t *testing.T) {
	root := newRoot(t, "c1")
	key, err := root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRoot(root.CertPEM(), key)
	if err != nil || !again.Cert.Equal(root.Cert) {
		t.Fatalf("%v", err)
	}
	otherKey, err := newRoot(t, "c1").KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRoot(root.CertPEM(), otherKey); err == nil {
		t.Error("another root's key was accepted")
	}
	b := issue(t, again, Identity{NodeID: "n1", Role: RoleManager, ClusterID: "c1"}, root.Cert.NotAfter.Add(-time.Hour))
	certs, err := ParseCertificates(b.CertPEM)
	if err != nil || certs[0].NotAfter.After(root.Cert.NotAfter) {
		t.Errorf("a certificate outlives its root (%v)", err)
	}
}

func TestBundlesMustFitTogether(t *testing.T) {
	root := newRoot(t, "c1")
	id := Identity{NodeID: "n1", Role: RoleManager, ClusterID: "c1"}
	a, b := issue(t, root, id, time.Now()), issue(t, root, id, time.Now())
	if _, err := NewCredentials(Bundle{a.CAPEM, a.CertPEM, b.KeyPEM}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another key: %v", err)
	}
	if _, err := NewCredentials(Bundle{newRoot(t, "c1").CertPEM(), a.CertPEM, a.KeyPEM}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another root: %v", err)
	}
	creds, err := NewCredentials(a)
	if err != nil || creds.Identity() != id {
		t.Fatalf("%v", err)
	}
	worker := id
	worker.Role = RoleWorker
	if err := creds.Replace(issue(t, root, worker, time.Now())); err != nil || creds.Identity() != worker {
		t.Errorf("a new role: %v", err)
	}
	stranger := id
	stranger.NodeID = "n2"
	if err := creds.Replace(issue(t, root, stranger, time.Now())); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another node's: %v", err)
	}
	// One that ran out is still the node's own, and can be renewed with.
	if _, err := NewCredentials(issue(t, root, id, time.Now().Add(-2*DefaultNodeValidity))); err == nil {
		t.Error("a certificate from before its root was accepted")
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Run("in the clear", func(t *testing.T) { saveAndLoad(t, nil) })
	t.Run("sealed", func(t *testing.T) {
		saveAndLoad(t, seal.NewKey(seal.Owner{ClusterID: "c1", NodeID: "n1"}))
	})
}

func saveAndLoad(t *testing.T, key *seal.Key) {
	dir := filepath.Join(t.TempDir(), "tls")
	root := newRoot(t, "c1")
	id := Identity{NodeID: "n1", Role: RoleManager, ClusterID: "c1"}
	if _, err := Load(dir, key); !errdefs.IsNotFound(err) {
		t.Fatalf("load nothing: %v", err)
	}
	old, renewed := issue(t, root, id, time.Now()), issue(t, root, id, time.Now())
	for _, b := range []Bundle{old, renewed} {
		if err := Save(dir, b, key); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
	creds, err := Load(dir, key)
	if err != nil || creds.Identity() != id {
		t.Fatal(err)
	}

	if key != nil {
		raw, err := os.ReadFile(filepath.Join(dir, keyFile))
		if err != nil {
			t.Fatal(err)
		}
		if plain, _ := pem.Decode(renewed.KeyPEM); bytes.Contains(raw, renewed.KeyPEM[40:80]) || bytes.Contains(raw, plain.Bytes[:20]) {
			t.Error("the key is legible")
		}
		if _, err := Load(dir, nil); !errors.Is(err, ErrKeySealed) {
			t.Errorf("load without the data key: %v", err)
		}
		if _, err := Load(dir, seal.NewKey(seal.Owner{ClusterID: "c1", NodeID: "n2"})); !errors.Is(err, seal.ErrSealed) {
			t.Errorf("load with another data key: %v", err)
		}
	}

	// A crash at each step of a renewal.
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := issue(t, root, id, time.Now())
	if key != nil {
		next.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: sealedKeyBlock, Bytes: key.Seal(keyPlace, next.KeyPEM)})
	}
	write(nextKeyFile, next.KeyPEM)
	if _, err := Load(dir, key); err != nil {
		t.Errorf("after the key was written: %v", err)
	}
	write(certFile, next.CertPEM)
	for range 2 {
		if _, err := Load(dir, key); err != nil {
			t.Errorf("after the certificate was replaced: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, nextKeyFile)); err == nil {
		t.Error("load did not finish what the crash interrupted")
	}

	write(certFile, next.CertPEM[:len(next.CertPEM)/2])
	if _, err := Load(dir, key); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "join again") {
		t.Errorf("a damaged certificate: %v", err)
	}
}

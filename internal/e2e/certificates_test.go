package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/testbed"
)

// TestCertificatesLive is the life of certificates on three hosts, two managers
// and a worker: the root is rotated under load, also to one that the user
// brings, and nodes come back after theirs have expired.
func TestCertificatesLive(t *testing.T) {
	bed := testbed.Start(t, 3, testbed.WithoutImages())
	first, second, worker := bed.Host(0), bed.Host(1), bed.Host(2)
	testbed.Must(t, first.Shoal("swarm", "init"))
	addr := first.IP.String() + ":2377"
	testbed.Must(t, second.Shoal("swarm", "join", "--token", joinToken(t, first, "manager"), addr))
	testbed.Must(t, worker.Shoal("swarm", "join", "--token", joinToken(t, first, "worker"), addr))
	old := joinToken(t, first, "worker")

	root, certFile, keyFile := ownRoot(t)
	stop := writes(t, first, second)
	testbed.Must(t, first.Shoal("swarm", "ca", "--rotate", "--quiet"))
	between := testbed.Must(t, second.Shoal("swarm", "ca"))
	testbed.Must(t, second.Shoal("swarm", "ca", "--rotate", "--quiet", "--ca-cert", certFile, "--ca-key", keyFile))
	stop()
	if got := testbed.Must(t, first.Shoal("swarm", "ca")); got == between || got != string(root.CertPEM()) {
		t.Fatalf("the root is not the one that was brought:\n%s", got)
	}
	converged(t, first, 3)

	// Tokens from before are refused, and say so.
	testbed.Must(t, worker.Shoal("swarm", "leave"))
	refused(t, worker.Shoal("swarm", "join", "--token", old, addr), "rotated", "join-token")
	testbed.Must(t, worker.Shoal("swarm", "join", "--token", joinToken(t, first, "worker"), addr))
	converged(t, first, 4) // the one that left is still listed, as it was

	// A worker whose certificate has expired comes back by proof of its key, and
	// one whose key is not the one that the cluster knows does not.
	key := expire(t, worker, root, nil)
	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	expire(t, worker, root, another)
	start(t, worker)
	testbed.Eventually(t, patience, func() error { return logged(worker, "its key is not the node's any more") })
	expire(t, worker, root, key)
	start(t, worker)
	testbed.Eventually(t, patience, valid(t, worker, first))

	// All have expired, as after a hundred days without power.
	for _, h := range bed.Hosts() {
		expire(t, h, root, nil)
	}
	for _, h := range bed.Hosts() {
		start(t, h)
	}
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, valid(t, h, first))
	}

	// A node that was removed does not come back, expired or not.
	id := strings.TrimSpace(testbed.Must(t, worker.Shoal("info", "--format", "{{.Swarm.NodeID}}")))
	testbed.Must(t, first.Shoal("node", "rm", "--force", id))
	testbed.Eventually(t, patience, func() error { return logged(worker, "was removed from the cluster") })
	expire(t, worker, root, nil)
	start(t, worker)
	testbed.Eventually(t, patience, func() error {
		return logged(worker, "node "+id+" was removed from the cluster")
	})
}

func joinToken(t *testing.T, h *testbed.Host, role string) string {
	t.Helper()
	return strings.TrimSpace(testbed.Must(t, h.Shoal("swarm", "join-token", "-q", role)))
}

// writes makes API writes on each of the hosts until stop, which fails the test
// if one of them failed.
func writes(t *testing.T, hosts ...*testbed.Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, h := range hosts {
		c, err := h.API()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			n := 0
			for ; ctx.Err() == nil; n++ {
				spec := swarm.ServiceSpec{
					Annotations:  swarm.Annotations{Name: fmt.Sprintf("%s-%d", h.Name, n)},
					TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "127.0.0.1:9/none"}},
					Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: new(uint64(0))}},
				}
				// A write that has begun is seen through: its end is what counts.
				if _, err := c.ServiceCreate(context.WithoutCancel(ctx), spec, swarm.ServiceCreateOptions{}); err != nil {
					t.Errorf("write %d on %s: %v", n, h.Name, err)
					return
				}
			}
			if n < 10 {
				t.Errorf("%s: only %d writes in the whole rotation", h.Name, n)
			}
			t.Logf("%s: %d writes", h.Name, n)
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// ownRoot makes a root as a user would bring it.
func ownRoot(t *testing.T) (root *ca.Root, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Example Root"},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	// The hosts share this machine's /var/lib but for their own parts of it.
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "root.crt"), filepath.Join(dir, "root.key")
	for file, data := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if root, err = ca.ParseRoot(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return root, certFile, keyFile
}

// expire stops a host's daemon and gives its node a certificate that expired
// nine hours ago, for another key if one is given. It returns the key that was
// there.
func expire(t *testing.T, h *testbed.Host, root *ca.Root, key *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	if err := h.StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, sealed := filepath.Join(h.DataDir(), "tls"), dataKey(t, h)
	creds, err := ca.Load(dir, sealed)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(creds.Bundle().KeyPEM)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	had := parsed.(*ecdsa.PrivateKey)
	if key == nil {
		key = had
	}
	id := creds.Identity()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := root.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), id, time.Hour, time.Now().Add(-10*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(dir, ca.Bundle{
		CAPEM: root.CertPEM(), CertPEM: expired,
		KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, sealed); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(h.LogDir(), "shoal.log"), 0); err != nil {
		t.Fatal(err)
	}
	return had
}

func start(t *testing.T, h *testbed.Host) {
	t.Helper()
	if err := h.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func logged(h *testbed.Host, words string) error {
	log, err := os.ReadFile(filepath.Join(h.LogDir(), "shoal.log"))
	if err == nil && !strings.Contains(string(log), words) {
		err = fmt.Errorf("%s has not logged %q", h.Name, words)
	}
	return err
}

// dataKey is what a manager's disk is sealed with; nil on a worker.
func dataKey(t *testing.T, h *testbed.Host) *seal.Key {
	t.Helper()
	id, err := ca.Whose(cluster.TLSDir(h.DataDir()))
	if err != nil {
		t.Fatal(err)
	}
	if id.Role != ca.RoleManager {
		return nil
	}
	file, err := seal.Load(cluster.KeyFile(h.DataDir()), seal.Owner{ClusterID: id.ClusterID, NodeID: id.NodeID})
	if err != nil {
		t.Fatal(err)
	}
	key, err := file.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// valid is met when a host's node has a certificate that has not expired, and
// is READY.
func valid(t *testing.T, h, manager *testbed.Host) func() error {
	return func() error {
		creds, err := ca.Load(filepath.Join(h.DataDir(), "tls"), dataKey(t, h))
		if err != nil {
			return err
		}
		if creds.Expired(time.Now()) {
			return fmt.Errorf("%s: still expired", h.Name)
		}
		r := manager.Shoal("node", "inspect", creds.Identity().NodeID, "--format", "{{.Status.State}}")
		if err := r.Err(); err != nil {
			return err
		}
		if state := strings.TrimSpace(r.Stdout); state != "ready" {
			return fmt.Errorf("%s is %s", h.Name, state)
		}
		return nil
	}
}

// converged waits until no node needs another certificate or root.
func converged(t *testing.T, h *testbed.Host, nodes int) {
	t.Helper()
	c, err := h.API()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	testbed.Eventually(t, patience, func() error {
		cluster, err := c.SwarmInspect(t.Context())
		if err != nil {
			return err
		}
		list, err := c.NodeList(t.Context(), swarm.NodeListOptions{})
		if err != nil {
			return err
		}
		if cluster.RootRotationInProgress || len(list) != nodes {
			return fmt.Errorf("rotating %v, %d nodes", cluster.RootRotationInProgress, len(list))
		}
		for _, n := range list {
			if n.Description.TLSInfo.TrustRoot != cluster.TLSInfo.TrustRoot {
				return fmt.Errorf("%s trusts another root", n.Description.Hostname)
			}
		}
		return nil
	})
}

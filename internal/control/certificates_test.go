package control

import (
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/store"
)

func request(t testing.TB) (csr, key []byte) {
	t.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return csr, key
}

// proven makes a node's proof on a connection to a manager, and gives the
// manager's end of it.
func proven(t testing.TB, node, manager *ca.Credentials, csr []byte) (*tls.ConnectionState, *ca.Proof) {
	t.Helper()
	a, b := net.Pipe()
	server, client := tls.Server(a, manager.ServerConfig("h2")), tls.Client(b, node.StrangerConfig("h2", ca.Peer{}))
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(t.Context()) }()
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	here, there := client.ConnectionState(), server.ConnectionState()
	proof, err := node.Prove(&here, csr)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	_ = b.Close()
	return &there, proof
}

// TestASleeperComesBack: the clock is the test's, and days pass in it.
func TestASleeperComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		root := withRoot(t, w.Control)
		ctx := t.Context()
		spec := w.View().Cluster().Spec
		spec.CAConfig.NodeCertExpiry = 24 * time.Hour
		if err := w.UpdateCluster(ctx, w.View().Cluster().Version, spec, swarm.UpdateFlags{}); err != nil {
			t.Fatal(err)
		}
		// A manager that never sleeps, to speak with.
		csr, key := request(t)
		cert, err := root.Sign(csr, ca.Identity{NodeID: "node1", Role: ca.RoleManager, ClusterID: "cluster"}, 1000*24*time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		manager, err := ca.NewCredentials(ca.Bundle{CAPEM: root.CertPEM(), CertPEM: cert, KeyPEM: key})
		if err != nil {
			t.Fatal(err)
		}
		take := func(adm *Admission, key []byte) *ca.Credentials {
			t.Helper()
			creds, err := ca.NewCredentials(ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key})
			if err != nil {
				t.Fatal(err)
			}
			return creds
		}
		csr, key = request(t)
		adm, err := w.Admit(ctx, Applicant{Token: w.View().Cluster().JoinTokens.Worker, Request: csr, Addr: "10.0.0.2:2377"})
		if err != nil {
			t.Fatal(err)
		}
		first := take(adm, key)
		w.members = fakeRaft{} // a certificate says how far the log was
		renew := func(node *ca.Credentials) (*ca.Credentials, error) {
			csr, key := request(t)
			cs, proof := proven(t, node, manager, csr)
			adm, err := w.RenewExpired(ctx, cs, proof)
			if err != nil {
				return nil, err
			}
			return take(adm, key), nil
		}

		_, err = renew(first)
		wantError(t, err, errdefs.IsFailedPrecondition, "is valid until")
		time.Sleep(3 * 24 * time.Hour) // of the bubble's clock
		second, err := renew(first)
		if err != nil || second.Expired(time.Now()) || second.Identity() != (ca.Identity{NodeID: first.Identity().NodeID, Role: ca.RoleWorker, ClusterID: "cluster", Since: 7}) {
			t.Fatalf("%+v, %v", second.Identity(), err)
		}
		// The answer may have been lost: the key that was proven is good once more.
		third, err := renew(first)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		_, err = renew(second)
		wantError(t, err, errdefs.IsPermissionDenied, "has been replaced since")
		fourth, err := renew(third)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		_, err = renew(first)
		wantError(t, err, errdefs.IsPermissionDenied, "has been replaced since")

		if err := w.store.Update(ctx, func(tx *store.Tx) error { return tx.Delete(api.KindNode, adm.NodeID) }); err != nil {
			t.Fatal(err)
		}
		_, err = renew(fourth)
		wantError(t, err, errdefs.IsPermissionDenied, "was removed from the cluster")
	})
}

func TestRenewal(t *testing.T) {
	w := newWorld(t)
	withRoot(t, w.Control)
	ctx := t.Context()
	csr, _ := request(t)
	adm, err := w.Admit(ctx, Applicant{Token: w.View().Cluster().JoinTokens.Worker, Request: csr, Addr: "10.0.0.2:2377"})
	if err != nil {
		t.Fatal(err)
	}
	joined, _ := w.View().Nodes.Get(adm.NodeID)
	if len(joined.Keys) != 1 {
		t.Fatalf("keys %v", joined.Keys)
	}
	promoted := api.Clone(joined)
	promoted.Spec.Role = swarm.NodeRoleManager
	w.put(promoted)
	csr, _ = request(t)
	next, err := w.Renew(ctx, adm.NodeID, joined.Keys[0], csr)
	if err != nil || next.Role != swarm.NodeRoleManager || string(next.Roots) != string(w.View().Cluster().RootCA.Cert) {
		t.Fatalf("%+v, %v", next, err)
	}
	if n, _ := w.View().Nodes.Get(adm.NodeID); n.Role != swarm.NodeRoleManager || len(n.Keys) != 2 || n.Keys[0] != joined.Keys[0] {
		t.Fatalf("%+v", n)
	}
	_, err = w.Renew(ctx, "stranger", "k", csr)
	wantError(t, err, errdefs.IsPermissionDenied, "was removed from the cluster")
	_, err = w.Renew(ctx, adm.NodeID, "k", []byte("nonsense"))
	wantError(t, err, errdefs.IsInvalidArgument, "not one PEM certificate request")
}

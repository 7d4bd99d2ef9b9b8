package control

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/store"
)

// withRoot gives the world's cluster a root of its own.
func withRoot(t testing.TB, c *Control) *ca.Root {
	t.Helper()
	root, err := ca.NewRoot("cluster", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	token := func() string { return ca.Token{Digest: ca.Digest(root.Cert), Secret: ca.NewSecret()}.String() }
	if err := c.store.Update(context.Background(), func(tx *store.Tx) error {
		cl := api.Clone(tx.Cluster())
		cl.RootCA = api.RootCA{Cert: root.CertPEM(), Key: key}
		cl.JoinTokens = swarm.JoinTokens{Worker: token(), Manager: token()}
		return tx.Put(cl)
	}); err != nil {
		t.Fatal(err)
	}
	return root
}

func tlsNode(id string, roots []byte, issuer []byte) *api.Node {
	info := tlsInfo(issuer)
	info.TrustRoot = string(roots)
	return &api.Node{
		Meta: api.Meta{ID: id}, Keys: []string{"k"}, Description: swarm.NodeDescription{TLSInfo: info},
		Status: swarm.NodeStatus{State: swarm.NodeStateReady},
	}
}

func TestNextRotation(t *testing.T) {
	pemOf := func() []byte {
		root, err := ca.NewRoot("c1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return root.CertPEM()
	}
	old, next, third := pemOf(), pemOf(), pemOf()
	both := slices.Concat(old, next)
	down := func(n *api.Node, keys ...string) *api.Node {
		n.Status.State, n.Keys = swarm.NodeStateDown, keys
		return n
	}
	for _, c := range []struct {
		name  string
		stage api.RotationStage // "" for none
		nodes []*api.Node
		want  api.RotationStage // "" for done
		wait  string
	}{
		{"nothing to do", "", []*api.Node{tlsNode("a", old, old)}, "", ""},
		{"nobody has heard", api.RotationTrust, []*api.Node{tlsNode("a", old, old), tlsNode("b", old, old)}, "", "a b"},
		{"one has", api.RotationTrust, []*api.Node{tlsNode("a", both, old), tlsNode("b", old, old)}, "", "b"},
		{"one trusts what an abandoned rotation began", api.RotationTrust, []*api.Node{tlsNode("a", slices.Concat(old, third), old)}, "", "a"},
		{"a new one has not said yet", api.RotationTrust, []*api.Node{tlsNode("a", both, old), {Meta: api.Meta{ID: "b"}}}, "", "b"},
		{"one is down", api.RotationTrust, []*api.Node{tlsNode("a", both, old), down(tlsNode("b", old, old), "k")}, "", "b"},
		{"one has left for good", api.RotationTrust, []*api.Node{tlsNode("a", both, old), down(tlsNode("b", old, old))}, api.RotationIssue, ""},
		{"all have", api.RotationTrust, []*api.Node{tlsNode("a", both, old), tlsNode("b", both, old)}, api.RotationIssue, ""},
		{"no certificate yet", api.RotationIssue, []*api.Node{tlsNode("a", both, old), tlsNode("b", both, next)}, "", "a"},
		{"of a third root", api.RotationIssue, []*api.Node{tlsNode("a", both, third)}, "", "a"},
		{"all certificates", api.RotationIssue, []*api.Node{tlsNode("a", both, next), tlsNode("b", both, next)}, "", ""},
	} {
		cl := &api.Cluster{RootCA: api.RootCA{Cert: old, Key: []byte("old key"), Epoch: 4}}
		if c.stage != "" {
			cl.RootCA.Rotation = &api.RootRotation{Cert: next, Key: []byte("next key"), Stage: c.stage}
		}
		got, waiting := nextRotation(cl, c.nodes)
		if strings.Join(waiting, " ") != c.wait {
			t.Errorf("%s: waits for %q", c.name, waiting)
		}
		switch {
		case c.stage == "" || c.wait != "":
			if got != nil {
				t.Errorf("%s: %+v", c.name, got.RootCA)
			}
		case c.want == "":
			if r := got.RootCA; r.Rotation != nil || !bytes.Equal(r.Cert, next) || string(r.Key) != "next key" || r.Epoch != 5 {
				t.Errorf("%s: %+v", c.name, r)
			}
		case got == nil || got.RootCA.Rotation == nil || got.RootCA.Rotation.Stage != c.want || cl.RootCA.Rotation.Stage != c.stage:
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// simNode is a node of the simulation below: real key material, and what it has
// told the managers.
type simNode struct {
	id    string
	creds *ca.Credentials
}

// TestRotationKeepsEveryPairTogether plays rotations with real certificates in
// any order of events: nodes hear, renew, report, join and leave when chance
// wants, rotations are begun, replaced and taken back in the middle. At every
// moment each node can verify each other, and a machine can join with the
// cluster's token; and when the events stop, the rotation comes to its end.
func TestRotationKeepsEveryPairTogether(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		c := New(Config{Store: store.New(), Log: zap.NewNop()})
		first, err := Bootstrap(Founding{ClusterID: "cluster", NodeID: "node1", IngressID: "i", Addr: "10.0.0.1:2377"})
		if err != nil {
			rt.Fatal(err)
		}
		if err := c.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(first.Cluster) }); err != nil {
			rt.Fatal(err)
		}
		founding := withRoot(t, c)
		foundingKey, err := founding.KeyPEM()
		if err != nil {
			rt.Fatal(err)
		}
		var nodes []*simNode
		join := func() {
			csr, key, err := ca.NewRequest()
			if err != nil {
				rt.Fatal(err)
			}
			cl := c.View().Cluster()
			adm, err := c.Admit(ctx, Applicant{Token: cl.JoinTokens.Manager, Request: csr, Addr: "10.0.0.2:2377"})
			if err != nil {
				rt.Fatalf("join: %v", err)
			}
			creds, err := ca.NewCredentials(ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key})
			if err != nil {
				rt.Fatalf("join: %v", err)
			}
			nodes = append(nodes, &simNode{adm.NodeID, creds})
		}
		// act is what a node's keeper does with what is wanted now.
		act := func(n *simNode) {
			w := c.View().Cluster().Trust()
			a := n.creds.Next(ca.Wanted{Roots: w.Roots, Issuer: w.Issuer, Validity: w.Validity}, time.Now())
			if a.Trust {
				b := n.creds.Bundle()
				b.CAPEM = w.Roots
				if err := n.creds.Replace(b); err != nil {
					a.Renew = true
				}
			}
			if a.Renew {
				csr, key, err := ca.NewRequest()
				if err != nil {
					rt.Fatal(err)
				}
				adm, err := c.Renew(ctx, n.id, "held", csr)
				if err != nil {
					rt.Fatalf("renew: %v", err)
				}
				if err := n.creds.Replace(ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key}); err != nil {
					rt.Fatalf("renew: %v", err)
				}
			}
		}
		report := func(n *simNode) {
			if err := c.store.Update(ctx, func(tx *store.Tx) error {
				o, _ := tx.Nodes.Get(n.id)
				o = api.Clone(o)
				o.Description.TLSInfo = swarm.TLSInfo{
					TrustRoot:           string(slices.Concat(pemsOf(n.creds)...)),
					CertIssuerPublicKey: n.creds.Issuer().RawSubjectPublicKeyInfo,
				}
				return tx.Put(o)
			}); err != nil {
				rt.Fatal(err)
			}
		}
		rotate := func(change func(*swarm.CAConfig)) {
			cl := c.View().Cluster()
			spec := cl.Spec
			change(&spec.CAConfig)
			if err := c.UpdateCluster(ctx, cl.Version, spec, swarm.UpdateFlags{}); err != nil {
				rt.Fatal(err)
			}
		}
		step := func() {
			if _, err := c.rotateRoot(ctx); err != nil {
				rt.Fatal(err)
			}
		}
		check := func() {
			for _, a := range nodes {
				for _, b := range nodes {
					if err := believes(a.creds, b.creds); err != nil {
						rt.Fatalf("%s does not believe %s: %v", a.id, b.id, err)
					}
				}
			}
		}
		join()
		for range rapid.IntRange(1, 60).Draw(rt, "events") {
			n := nodes[rapid.IntRange(0, len(nodes)-1).Draw(rt, "node")]
			switch rapid.SampledFrom([]string{"act", "act", "act", "report", "report", "step", "step", "join", "rotate", "back"}).Draw(rt, "event") {
			case "act":
				act(n)
			case "report":
				report(n)
			case "step":
				step()
			case "join":
				if len(nodes) < 4 {
					join()
				}
			case "rotate":
				rotate(func(conf *swarm.CAConfig) { conf.ForceRotate++ })
			case "back":
				rotate(func(conf *swarm.CAConfig) {
					conf.SigningCACert, conf.SigningCAKey = string(founding.CertPEM()), string(foundingKey)
				})
			}
			check()
		}
		for range 4 {
			for _, n := range nodes {
				act(n)
				report(n)
			}
			step()
			check()
		}
		cl := c.View().Cluster()
		if cl.RootCA.Rotation != nil {
			rt.Fatal("the rotation does not come to its end")
		}
		for _, n := range nodes {
			act(n)
			if roots := n.creds.Roots(); len(roots) != 1 || !bytes.Equal(pemsOf(n.creds)[0], cl.RootCA.Cert) {
				rt.Fatalf("%s trusts %d roots in the end", n.id, len(roots))
			}
		}
		if token, err := ca.ParseToken(cl.JoinTokens.Worker); err != nil || !token.Pins(nodes[0].creds.Roots()[0]) {
			rt.Fatalf("the token does not pin the root: %v", err)
		}
	})
}

func TestRotationGoesOnUnderAnotherLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		withRoot(t, w.Control)
		before := w.View().Cluster()
		spec := before.Spec
		spec.CAConfig.ForceRotate++
		if err := w.UpdateCluster(t.Context(), before.Version, spec, swarm.UpdateFlags{}); err != nil {
			t.Fatal(err)
		}
		if shown, err := w.Cluster(); err != nil || !shown.RootRotationInProgress || shown.TLSInfo.TrustRoot != string(before.RootCA.Cert) ||
			!bytes.Equal(shown.TLSInfo.CertIssuerPublicKey, tlsInfo(w.View().Cluster().RootCA.Rotation.Cert).CertIssuerPublicKey) {
			t.Fatalf("%+v, %v", shown.TLSInfo, err)
		}
		say := func(roots, issuer []byte) {
			n, _ := w.View().Nodes.Get("node1")
			n = api.Clone(n)
			n.Description.TLSInfo = tlsNode("", roots, issuer).Description.TLSInfo
			w.put(n)
		}
		// lead is one leader's term, in which the node says one thing.
		lead := func(roots, issuer []byte) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.RotateRoot(ctx) }()
			synctest.Wait()
			say(roots, issuer)
			synctest.Wait()
			cancel()
			<-ended
		}
		r := w.View().Cluster().RootCA.Rotation
		both := slices.Concat(before.RootCA.Cert, r.Cert)
		lead(before.RootCA.Cert, before.RootCA.Cert)
		if got := w.View().Cluster().RootCA.Rotation; got == nil || got.Stage != api.RotationTrust {
			t.Fatalf("%+v", got)
		}
		lead(both, before.RootCA.Cert)
		if got := w.View().Cluster().RootCA.Rotation; got == nil || got.Stage != api.RotationIssue || !bytes.Equal(got.Cert, r.Cert) {
			t.Fatalf("%+v", got)
		}
		lead(both, r.Cert)
		after := w.View().Cluster()
		if after.RootCA.Rotation != nil || !bytes.Equal(after.RootCA.Cert, r.Cert) || after.JoinTokens.Worker == before.JoinTokens.Worker ||
			after.JoinTokens.Manager == before.JoinTokens.Manager || after.JoinTokens.Worker == after.JoinTokens.Manager {
			t.Fatalf("%+v", after.JoinTokens)
		}
		csr, _ := request(t)
		_, err := w.Admit(t.Context(), Applicant{Token: before.JoinTokens.Worker, Request: csr})
		wantError(t, err, errdefs.IsPermissionDenied, "not valid any more")
	})
}

// TestTheRootsKeyIsShownToNobody: neither one that was made nor one that was
// brought.
func TestTheRootsKeyIsShownToNobody(t *testing.T) {
	w := newWorld(t)
	withRoot(t, w.Control)
	own, err := ca.NewRoot("mine", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := own.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	cl := w.View().Cluster()
	spec := cl.Spec
	spec.CAConfig.SigningCACert = string(own.CertPEM())
	wantError(t, w.UpdateCluster(t.Context(), cl.Version, spec, swarm.UpdateFlags{}), errdefs.IsInvalidArgument, "both the certificate and its key")
	spec.CAConfig.SigningCAKey = string(key)
	if err := w.UpdateCluster(t.Context(), cl.Version, spec, swarm.UpdateFlags{}); err != nil {
		t.Fatal(err)
	}
	shown, err := w.Cluster()
	if err != nil || !shown.RootRotationInProgress || strings.Contains(fmt.Sprintf("%+v", shown), "PRIVATE KEY") {
		t.Fatalf("%+v, %v", shown, err)
	}
	// The same again changes nothing, and the present root ends the rotation.
	again := shown.Spec
	again.CAConfig.SigningCACert, again.CAConfig.SigningCAKey = string(own.CertPEM()), string(key)
	crossSigned := w.View().Cluster().RootCA.Rotation.CrossSigned
	if err := w.UpdateCluster(t.Context(), shown.Version.Index, again, swarm.UpdateFlags{}); err != nil {
		t.Fatal(err)
	}
	if now := w.View().Cluster().RootCA.Rotation; now == nil || !bytes.Equal(now.CrossSigned, crossSigned) {
		t.Fatal("asking for the same root began again")
	}
	back := shown.Spec
	back.CAConfig.SigningCACert, back.CAConfig.SigningCAKey = string(cl.RootCA.Cert), string(cl.RootCA.Key)
	if err := w.UpdateCluster(t.Context(), w.View().Cluster().Version, back, swarm.UpdateFlags{}); err != nil {
		t.Fatal(err)
	}
	if w.View().Cluster().RootCA.Rotation != nil {
		t.Fatal("going back to the present root did not end the rotation")
	}
}

func pemsOf(c *ca.Credentials) [][]byte {
	var out [][]byte
	for _, r := range c.Roots() {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw}))
	}
	return out
}

// believes tells whether a, as it is, accepts what b shows in a handshake.
func believes(a, b *ca.Credentials) error {
	chain, err := ca.ParseCertificates(b.Bundle().CertPEM)
	if err != nil {
		return err
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	for _, r := range a.Roots() {
		opts.Roots.AddCert(r)
	}
	for _, c := range append(chain[1:], b.Roots()...) {
		opts.Intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(opts)
	return err
}

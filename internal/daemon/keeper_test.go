//go:build linux

package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
)

// office stands for the managers: it signs, or does not answer.
type office struct {
	t       *testing.T
	mu      sync.Mutex // for what a test changes while the keeper runs
	root    *ca.Root
	next    *ca.Root // signs, if there is one
	life    time.Duration
	role    swarm.NodeRole
	err     error // of a renewal by certificate
	proof   error // of one by proof of the key
	renewed int
	proven  int
}

func newRoot(t *testing.T) *ca.Root {
	t.Helper()
	root, err := ca.NewRoot("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newOffice(t *testing.T) *office {
	return &office{t: t, root: newRoot(t), life: 90 * day, role: swarm.NodeRoleWorker}
}

func (o *office) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *office) count(n *int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return *n
}

func (o *office) sign(request []byte) (*control.Admission, error) {
	who := ca.Identity{NodeID: "n1", Role: ca.RoleWorker, ClusterID: "c1"}
	if o.role == swarm.NodeRoleManager {
		who.Role = ca.RoleManager
	}
	signer := o.root
	if o.next != nil {
		signer = o.next
	}
	cert, err := signer.Sign(request, who, o.life, time.Now())
	return &control.Admission{NodeID: "n1", ClusterID: "c1", Role: o.role, Cert: cert, Roots: o.trust().Roots}, err
}

func (o *office) trust() *api.Trust {
	t := &api.Trust{Roots: o.root.CertPEM(), Issuer: o.root.CertPEM(), Validity: o.life}
	if o.next != nil {
		t.Roots, t.Issuer = slices.Concat(o.root.CertPEM(), o.next.CertPEM()), o.next.CertPEM()
	}
	return t
}

// keeper makes one for a node that has just joined.
func (o *office) keeper() *keeper {
	o.t.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		o.t.Fatal(err)
	}
	adm, err := o.sign(csr)
	if err != nil {
		o.t.Fatal(err)
	}
	creds, err := ca.NewCredentials(ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key})
	if err != nil {
		o.t.Fatal(err)
	}
	k := newKeeper(o.t.TempDir(), creds, nil, zap.NewNop())
	k.renew = func(_ context.Context, request []byte) (*control.Admission, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.renewed++; o.err != nil {
			return nil, o.err
		}
		return o.sign(request)
	}
	k.prove = func(_ context.Context, request []byte) (*control.Admission, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.proven++; o.proof != nil {
			return nil, o.proof
		}
		return o.sign(request)
	}
	k.want(o.trust())
	return k
}

// life runs a test with a clock of its own, and the keeper in it.
func life(t *testing.T, test func(t *testing.T, o *office, k *keeper)) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		k := o.keeper()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait()
		test(t, o, k)
	})
}

// day is short: certificates here live for 90 of them, and the keeper looks at
// the clock once a minute all the while.
const day = 20 * time.Minute

// pass lets the bubble's clock go on.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestKeeperRenewsInTime(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		for range 5 {
			before := o.count(&o.renewed)
			pass(44 * day)
			if o.count(&o.renewed) != before {
				t.Fatal("renewed before half of its life")
			}
			pass(29 * day)
			if o.count(&o.renewed) != before+1 || time.Until(k.creds.Expiry()) < 60*day {
				t.Fatalf("%d renewals, expires %s", o.count(&o.renewed), k.creds.Expiry())
			}
			// From here, so that each turn begins with a fresh one.
			next := newRoot(t)
			o.set(func() { o.root, o.next = next, nil })
			before = o.count(&o.renewed)
			k.want(o.trust()) // rotated: the certificate fits no root, and comes with them
			synctest.Wait()
			if o.count(&o.renewed) != before+1 || !k.creds.Trusts(next.Cert) {
				t.Fatal("did not follow to another root")
			}
		}
		if o.count(&o.proven) != 0 {
			t.Errorf("%d proofs, and nothing had expired", o.count(&o.proven))
		}
		// What is on disk is what is in use.
		saved, err := ca.Load(k.dir, nil)
		if err != nil || !saved.Expiry().Equal(k.creds.Expiry()) {
			t.Errorf("%v, %v", saved, err)
		}
	})
}

func TestKeeperFollowsAShorterLife(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		pass(10 * day)
		o.set(func() { o.life = time.Hour })
		k.want(o.trust())
		synctest.Wait()
		if o.count(&o.renewed) != 1 || time.Until(k.creds.Expiry()) > time.Hour {
			t.Fatalf("%d renewals, expires in %s", o.count(&o.renewed), time.Until(k.creds.Expiry()))
		}
		pass(10 * time.Hour)
		if k.creds.Expired(time.Now()) || o.count(&o.renewed) < 11 {
			t.Errorf("%d renewals in ten hours", o.count(&o.renewed))
		}
	})
}

func TestKeeperRotates(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		next := newRoot(t)
		trust := o.trust()
		trust.Roots = slices.Concat(trust.Roots, next.CertPEM())
		k.want(trust)
		synctest.Wait()
		if !k.creds.Trusts(next.Cert) || o.count(&o.renewed) != 0 || k.info().TrustRoot != string(trust.Roots) {
			t.Fatalf("trusts %d roots after %d renewals", len(k.creds.Roots()), o.count(&o.renewed))
		}
		select {
		case <-k.changed:
		default:
			t.Error("the change was not told")
		}
		o.set(func() { o.next = next })
		k.want(o.trust())
		synctest.Wait()
		if o.count(&o.renewed) != 1 || string(k.info().CertIssuerPublicKey) != string(next.Cert.RawSubjectPublicKeyInfo) {
			t.Fatal("has no certificate of the new root")
		}
		o.set(func() { o.root, o.next = next, nil })
		k.want(o.trust())
		synctest.Wait()
		if o.count(&o.renewed) != 1 || len(k.creds.Roots()) != 1 || !k.creds.Trusts(next.Cert) {
			t.Fatalf("trusts %d roots after %d renewals", len(k.creds.Roots()), o.count(&o.renewed))
		}
	})
}

func TestKeeperTriesUntilItHears(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		o.set(func() { o.err, o.proof = errdefs.ErrUnavailable, errdefs.ErrUnavailable })
		pass(80 * day)
		if o.count(&o.renewed) < 100 || o.count(&o.proven) != 0 {
			t.Fatalf("%d attempts, %d proofs", o.count(&o.renewed), o.count(&o.proven))
		}
		pass(20 * day)
		if !k.creds.Expired(time.Now()) || o.count(&o.proven) == 0 {
			t.Fatalf("%d proofs", o.count(&o.proven))
		}
		o.set(func() { o.proof = nil })
		pass(2 * maxRenewPause)
		if k.creds.Expired(time.Now()) {
			t.Error("still expired, and managers answer proofs")
		}
	})
}

// TestKeeperAsksTheOtherWayToo: the clocks of node and managers may differ about
// what has expired.
func TestKeeperAsksTheOtherWayToo(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		o.set(func() { o.err = errdefs.ErrUnauthenticated.WithMessage("expired, says the manager") })
		pass(75 * day)
		if o.count(&o.proven) != 1 || time.Until(k.creds.Expiry()) < 60*day {
			t.Errorf("%d proofs", o.count(&o.proven))
		}
	})
}

// TestKeeperLeavesRolesAlone: a certificate of another role is for a node that
// runs in that.
func TestKeeperLeavesRolesAlone(t *testing.T) {
	life(t, func(t *testing.T, o *office, k *keeper) {
		o.set(func() { o.role = swarm.NodeRoleManager })
		pass(75 * day)
		if o.count(&o.renewed) == 0 || k.creds.Identity().Role != ca.RoleWorker {
			t.Errorf("%d renewals, role %s", o.count(&o.renewed), k.creds.Identity().Role)
		}
	})
}

func TestAManagerSignsForItselfOnlyAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t)
		o.role = swarm.NodeRoleManager
		k := o.keeper()
		key, err := o.root.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		k.own = func() (*api.Cluster, error) {
			asked++
			return &api.Cluster{
				Spec:   swarm.Spec{CAConfig: swarm.CAConfig{NodeCertExpiry: o.life}},
				RootCA: api.RootCA{Cert: o.root.CertPEM(), Key: key},
			}, nil
		}
		o.err, o.proof = errdefs.ErrUnavailable, errdefs.ErrUnavailable
		<-time.After(80 * day)
		if _, err := k.step(t.Context()); err == nil || asked != 0 {
			t.Fatalf("signed before it had expired: %v", err)
		}
		<-time.After(20 * day)
		if _, err := k.step(t.Context()); err != nil || k.creds.Expired(time.Now()) {
			t.Fatalf("%v, expires %s", err, k.creds.Expiry())
		}
		// By a root that it does not trust it can not.
		o.root = newRoot(t)
		if key, err = o.root.KeyPEM(); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * day)
		if _, err := k.step(t.Context()); !errdefs.IsFailedPrecondition(err) {
			t.Fatalf("%v", err)
		}
	})
}

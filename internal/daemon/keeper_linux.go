package daemon

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/store"
	"shoal/internal/wake"
)

const (
	// checkEvery bounds how long the keeper relies on a timer, which stands
	// still while the machine sleeps.
	checkEvery = time.Minute
	// The pause after a renewal that failed, growing from the first to the last.
	minRenewPause = time.Second
	maxRenewPause = time.Minute
	// askTimeout bounds one attempt to renew. A manager whose certificate has
	// expired goes on to sign its own after that.
	askTimeout = 10 * time.Second
)

// keeper keeps this node's certificate good, and its trust what the managers
// want it to be. Connections that are open stay open: they were verified when
// they were made.
type keeper struct {
	dir   string // of the key material
	creds *ca.Credentials
	key   *seal.Key // of a manager's disk; nil on a worker
	log   *zap.Logger

	// renew asks the managers by the certificate, and prove by proof of the key
	// of one that has expired.
	renew, prove func(ctx context.Context, request []byte) (*control.Admission, error)
	// own gives the cluster's state to a manager, which can sign for itself if
	// there is nobody to ask; nil on a worker.
	own func() (*api.Cluster, error)

	changed wake.Bell // receives after the key material was replaced
	news    wake.Bell
	mu      sync.Mutex
	wanted  ca.Wanted
}

func newKeeper(dir string, creds *ca.Credentials, key *seal.Key, log *zap.Logger) *keeper {
	return &keeper{dir: dir, creds: creds, key: key, log: log.Named("certificate"), changed: wake.NewBell(), news: wake.NewBell()}
}

// want takes in what the managers say.
func (k *keeper) want(t *api.Trust) {
	if t == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = ca.Wanted{Roots: t.Roots, Issuer: t.Issuer, Validity: t.Validity}
	k.news.Ring()
}

// run acts when it is time, until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	pause := minRenewPause
	for {
		wait, err := k.step(ctx)
		if err != nil && ctx.Err() == nil {
			expiry := k.creds.Expiry()
			k.log.Warn("can not renew this node's certificate now; it is tried again", zap.Error(err), zap.Time("expires", expiry), zap.Duration("pause", pause))
			wait, pause = pause, min(2*pause, maxRenewPause)
		} else {
			pause = minRenewPause
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-k.news:
		case <-again.C:
		}
		again.Stop()
	}
}

// step does what is due and says when to look again.
func (k *keeper) step(ctx context.Context) (time.Duration, error) {
	k.mu.Lock()
	wanted := k.wanted
	k.mu.Unlock()
	now := time.Now()
	a := k.creds.Next(wanted, now)
	if a.Trust {
		b := k.creds.Bundle()
		b.CAPEM = wanted.Roots
		if err := k.use(b); err != nil {
			// The present certificate does not fit them: a new one comes with
			// the roots that it fits.
			k.log.Warn("can not take over the cluster's roots with the present certificate", zap.Error(err))
			a.Renew = true
		} else {
			k.log.Info("this node's trust has changed", zap.Int("roots", len(k.creds.Roots())))
		}
	}
	if a.Renew {
		if err := k.replace(ctx); err != nil {
			return 0, err
		}
		a = k.creds.Next(wanted, now)
	}
	return max(min(a.At.Sub(now), checkEvery), minRenewPause), nil
}

// replace gets a new certificate, by the way that fits the present one.
func (k *keeper) replace(ctx context.Context) error {
	request, key, err := ca.NewRequest()
	if err != nil {
		return err
	}
	expired := k.creds.Expired(time.Now())
	adm, err := k.ask(ctx, request, expired)
	if err != nil {
		if expired && k.own != nil && ctx.Err() == nil {
			if own := k.sign(k.own); own != nil {
				return errors.Join(err, own)
			}
			return nil
		}
		return err
	}
	role := ca.RoleWorker
	if adm.Role == swarm.NodeRoleManager {
		role = ca.RoleManager
	}
	if role != k.creds.Identity().Role {
		return nil // the state that says so leads to a change of role, and that to a certificate
	}
	if err := k.use(ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key}); err != nil {
		return err
	}
	k.log.Info("this node's certificate was renewed", zap.Time("expires", k.creds.Expiry()))
	return nil
}

// ask tries both ways, as this node's clock and the managers' may differ about
// what has expired.
func (k *keeper) ask(ctx context.Context, request []byte, expired bool) (*control.Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	first, second := k.renew, k.prove
	if expired {
		first, second = second, first
	}
	adm, err := first(ctx, request)
	if err == nil || !expired && !errdefs.IsUnauthorized(err) {
		return adm, err
	}
	adm, again := second(ctx, request)
	if again != nil {
		return nil, errors.Join(err, again)
	}
	return adm, nil
}

// sign is the last resort of a manager whose certificate has expired, and that
// of all others may have, too: after months in which no manager ran. It holds
// the root's key, as any manager does, and signs for itself, with the same key
// and role. Whether it is still wanted the others decide as ever: by whom the
// cluster knows.
func (k *keeper) sign(own func() (*api.Cluster, error)) error {
	cl, err := own()
	if err != nil {
		return fmt.Errorf("sign this manager's own certificate: %w", err)
	}
	held := []api.RootCA{cl.RootCA}
	if r := cl.RootCA.Rotation; r != nil {
		held = append(held, api.RootCA{Cert: r.Cert, Key: r.Key})
	}
	for _, h := range held {
		root, err := ca.ParseRoot(h.Cert, h.Key)
		if err != nil {
			return fmt.Errorf("read the cluster's root: %w", err)
		}
		if !k.creds.Trusts(root.Cert) {
			continue
		}
		b, err := k.creds.Refresh(root, cl.Spec.CAConfig.NodeCertExpiry, time.Now())
		if err != nil {
			return err
		}
		if err := k.use(b); err != nil {
			return err
		}
		k.log.Warn("this manager's certificate had expired and nobody could renew it: it has signed its own", zap.Time("expires", k.creds.Expiry()))
		return nil
	}
	return errdefs.ErrFailedPrecondition.WithMessage("this manager's certificate has expired, and it does not hold the key of a root that it trusts: move the data directory away and join again")
}

// use puts new key material on disk and to use.
func (k *keeper) use(b ca.Bundle) error {
	if err := ca.Save(k.dir, b, k.key); err != nil {
		return err
	}
	if err := k.creds.Replace(b); err != nil {
		return err
	}
	k.changed.Ring()
	return nil
}

// info says what the key material is, the way Docker's clients compare it.
func (k *keeper) info() swarm.TLSInfo {
	var roots []byte
	for _, r := range k.creds.Roots() {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})...)
	}
	issuer := k.creds.Issuer()
	return swarm.TLSInfo{TrustRoot: string(roots), CertIssuerSubject: issuer.RawSubject, CertIssuerPublicKey: issuer.RawSubjectPublicKeyInfo}
}

// awake lets a manager that slept past its certificate's end sign for itself
// before anything else, from what its own disk holds: the members can not agree
// on anything before they can speak with each other.
func (m *member) awake() error {
	if m.manager == nil || !m.keeper.creds.Expired(time.Now()) {
		return nil
	}
	state := store.New()
	if err := m.cluster.Raft.ReadBack(state); err != nil {
		if errdefs.IsNotFound(err) {
			return nil // it had only begun to join: the others may know it
		}
		return err
	}
	if err := m.keeper.sign(func() (*api.Cluster, error) { return clusterOf(state) }); err != nil {
		m.log.Error("this manager's certificate has expired", zap.Error(err))
	}
	return nil
}

func clusterOf(s *store.Store) (*api.Cluster, error) {
	if cl := s.View().Cluster(); cl != nil {
		return cl, nil
	}
	return nil, errdefs.ErrUnavailable.WithMessage("the cluster's state is not known yet")
}

// askRenewal asks the leader for a certificate by the present one.
func (m *member) askRenewal(ctx context.Context, request []byte) (*control.Admission, error) {
	var adm control.Admission
	return &adm, m.askLeader(ctx, pathRenew, request, &adm)
}

// askExpired asks the leader for a certificate by proof of the present one's
// key. The proof is made for one connection, so the connection comes first.
func (m *member) askExpired(ctx context.Context, request []byte) (*control.Admission, error) {
	var adm control.Admission
	return &adm, m.eachLeader(ctx, func(p swarm.Peer) error {
		conn, err := m.cluster.Port.DialExpired(ctx, p.Addr, ca.Peer{NodeID: p.NodeID, Role: ca.RoleManager})
		if err != nil {
			return err
		}
		defer conn.Close()
		cs := conn.ConnectionState()
		proof, err := m.keeper.creds.Prove(&cs, request)
		if err != nil {
			return err
		}
		t := overConnection(conn) // which the proof is for
		defer t.CloseIdleConnections()
		return ask(ctx, t, http.MethodPost, "https://"+p.Addr+pathExpired, proof, &adm)
	})
}

package control

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/store"
)

// The root is rotated in three steps, each begun when every node has confirmed
// the one before: nodes trust the new root beside the old one; nodes get
// certificates of the new root; the old root is forgotten. So at no moment are
// there two nodes that do not trust each other. The new root is cross-signed by
// the old one, for machines that join with a token which pins the old.
//
// All of it is in the cluster object and in what nodes say of themselves: there
// are no timers, and another leader goes on where the last one was.

// changeRoot carries out what a new spec asks of the root: another one, one that
// the user brings, or, if that is the present one, the end of a rotation. The
// user's key is kept with the root and not in the spec, which everybody who may
// read the cluster is shown.
func (c *Control) changeRoot(cl *api.Cluster, old swarm.CAConfig) error {
	conf := &cl.Spec.CAConfig
	own := conf.SigningCACert != "" || conf.SigningCAKey != ""
	if !own && conf.ForceRotate == old.ForceRotate {
		return nil
	}
	current, err := ca.ParseRoot(cl.RootCA.Cert, cl.RootCA.Key)
	if err != nil {
		return fmt.Errorf("read the cluster's root: %w", err)
	}
	var next *ca.Root
	if own {
		if conf.SigningCACert == "" || conf.SigningCAKey == "" {
			return invalid("a root certificate of your own needs both the certificate and its key")
		}
		if next, err = ca.ParseOwnRoot([]byte(conf.SigningCACert), []byte(conf.SigningCAKey), conf.NodeCertExpiry, c.now()); err != nil {
			return err
		}
		conf.SigningCACert, conf.SigningCAKey = "", ""
		switch r := cl.RootCA.Rotation; {
		case next.Cert.Equal(current.Cert):
			cl.RootCA.Rotation = nil // back to what is; nodes that have a certificate of the other get one of this
			return nil
		case r != nil && bytes.Equal(r.Cert, next.CertPEM()):
			return nil // on the way there already
		}
	} else if next, err = ca.NewRoot(cl.ID, c.now()); err != nil {
		return err
	}
	key, err := next.KeyPEM()
	if err != nil {
		return err
	}
	crossSigned, err := current.CrossSign(next.Cert)
	if err != nil {
		return err
	}
	cl.RootCA.Rotation = &api.RootRotation{Cert: next.CertPEM(), Key: key, CrossSigned: crossSigned, Stage: api.RotationTrust}
	return nil
}

// nextRotation gives the cluster as the rotation's next step makes it, or nil
// and the nodes that it waits for. A node counts for as long as the cluster
// knows it, unless it has left by its own will: one that is down would find
// itself locked out when it is back.
func nextRotation(cl *api.Cluster, nodes []*api.Node) (next *api.Cluster, waiting []string) {
	r := cl.RootCA.Rotation
	if r == nil {
		return nil, nil
	}
	ready := func(info swarm.TLSInfo) bool { return info.TrustRoot == string(cl.Trust().Roots) }
	if r.Stage == api.RotationIssue {
		issuer := tlsInfo(r.Cert).CertIssuerPublicKey
		ready = func(info swarm.TLSInfo) bool { return bytes.Equal(info.CertIssuerPublicKey, issuer) }
	}
	for _, n := range nodes {
		left := n.Status.State == swarm.NodeStateDown && len(n.Keys) == 0
		if !left && !ready(n.Description.TLSInfo) {
			waiting = append(waiting, n.ID)
		}
	}
	if len(waiting) > 0 {
		return nil, waiting
	}
	next = cl.Tended()
	if r.Stage == api.RotationTrust {
		r = api.Clone(r)
		r.Stage = api.RotationIssue
		next.RootCA.Rotation = r
		return next, nil
	}
	next.RootCA = api.RootCA{Cert: r.Cert, Key: r.Key, Epoch: cl.RootCA.Epoch + 1}
	return next, nil
}

// RotateRoot takes rotations of the root to their end, while ctx lasts: on the
// leader alone.
func (c *Control) RotateRoot(ctx context.Context) error {
	var named []string // whom the log has said is waited for
	return c.store.Tend(ctx, func() (again time.Duration) {
		cl := c.View().Cluster()
		if cl == nil || cl.RootCA.Rotation == nil {
			named = nil
			return 0
		}
		waiting, err := c.rotateRoot(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("can not go on with the rotation of the root now; it is tried again", zap.Error(err))
			return rotateAgain
		}
		if len(waiting) > 0 && !slices.Equal(waiting, named) {
			c.log.Info("root rotation waits for nodes; one that will not come back has to be removed",
				zap.String("stage", string(cl.RootCA.Rotation.Stage)), zap.Strings("nodes", waiting))
			named = waiting
		}
		return 0
	}, api.KindCluster, api.KindNode)
}

// rotateAgain is the pause after a step that failed: a quorum may be away.
const rotateAgain = time.Second

func (c *Control) rotateRoot(ctx context.Context) (waiting []string, err error) {
	var done *api.Cluster
	err = c.store.Update(ctx, func(tx *store.Tx) error {
		done = nil
		cl := tx.Cluster()
		if cl == nil {
			return nil
		}
		done, waiting = nextRotation(cl, slices.Collect(tx.Nodes.All()))
		if done == nil {
			return nil
		}
		if done.RootCA.Rotation == nil {
			root, err := x509Root(done.RootCA.Cert)
			if err != nil {
				return err
			}
			// Tokens that pin the old root are of no use any more, and a root
			// is often rotated because something leaked.
			token := func() string { return ca.Token{Digest: ca.Digest(root), Secret: ca.NewSecret()}.String() }
			done.JoinTokens = swarm.JoinTokens{Worker: token(), Manager: token()}
		}
		return tx.Put(done)
	})
	if err == nil && done != nil {
		if r := done.RootCA.Rotation; r != nil {
			c.log.Info("every node trusts the new root; certificates are signed by it from now on")
		} else {
			c.log.Info("the root certificate was rotated, and the join tokens with it", zap.Uint64("epoch", done.RootCA.Epoch))
		}
	}
	return waiting, err
}

func x509Root(certPEM []byte) (*x509.Certificate, error) {
	certs, err := ca.ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's root: %w", err)
	}
	return certs[0], nil
}

package control

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/ca"
	"shoal/cluster/seal"
	"shoal/internal/api"
	"shoal/internal/store"
)

// clusterName is the one name a cluster can have, as in Swarm.
const clusterName = "default"

const (
	// minCertExpiry is Swarm's shortest life of a node's certificate.
	minCertExpiry = time.Hour
	// minHeartbeat is the shortest time after which nodes may be asked for a
	// sign of life: below it, a busy node would be taken for a dead one.
	minHeartbeat = time.Second
)

// The ticks that every cluster shows are Swarm's. Raft here measures time in
// milliseconds, by values that belong together and were measured together.
const (
	electionTick  = 10
	heartbeatTick = 1
)

var errNoCluster = errdefs.ErrUnavailable.WithMessage("This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.")

// Cluster describes the cluster, with the tokens to join it.
func (c *Control) Cluster() (swarm.Swarm, error) {
	cl := c.View().Cluster()
	if cl == nil {
		return swarm.Swarm{}, errNoCluster
	}
	return swarm.Swarm{
		ClusterInfo: swarm.ClusterInfo{
			ID:                     cl.ID,
			Meta:                   cl.Docker(),
			Spec:                   cl.Spec,
			TLSInfo:                clusterTLS(&cl.RootCA),
			RootRotationInProgress: cl.RootCA.Rotation != nil,
			DefaultAddrPool:        cl.DefaultAddrPool,
			SubnetSize:             cl.SubnetSize,
			DataPathPort:           cl.DataPathPort,
		},
		JoinTokens: cl.JoinTokens,
	}, nil
}

// UpdateCluster replaces the cluster's spec and makes new join tokens if asked.
func (c *Control) UpdateCluster(ctx context.Context, version uint64, spec swarm.Spec, flags swarm.UpdateFlags) error {
	if spec.Name == "" {
		spec.Name = clusterName
	}
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	fillRaft(&spec.Raft)
	spec.Dispatcher.HeartbeatPeriod = cmp.Or(spec.Dispatcher.HeartbeatPeriod, defaultHeartbeat)
	if err := validateCluster(&spec); err != nil {
		return err
	}
	spec.CAConfig.NodeCertExpiry = cmp.Or(spec.CAConfig.NodeCertExpiry, ca.DefaultNodeValidity)
	key := seal.NewUnlockKey().String()
	worker, manager := ca.NewSecret(), ca.NewSecret()
	return c.update(ctx, func(tx *store.Tx) error {
		cl := tx.Cluster()
		if cl == nil {
			return errNoCluster
		}
		if version > cl.Version || version < cl.Version && (cl.Since == 0 || version < cl.Since) {
			return ErrOutOfSequence
		}
		before := cl.Spec.CAConfig
		cl = api.Clone(cl)
		cl.Spec, cl.Since = spec, 0
		if err := c.changeRoot(cl, before); err != nil {
			return err
		}
		if flags.RotateWorkerToken {
			cl.JoinTokens.Worker = rotated(cl.JoinTokens.Worker, worker)
		}
		if flags.RotateManagerToken {
			cl.JoinTokens.Manager = rotated(cl.JoinTokens.Manager, manager)
		}
		cl.Lock = nextLock(cl.Lock, spec.EncryptionConfig.AutoLockManagers, flags.RotateManagerUnlockKey, key)
		if cl.Lock.Pending != "" && len(cl.Lock.Previous) >= maxPreviousKeys {
			return tooManyKeys()
		}
		return tx.Put(cl)
	})
}

// fillRaft gives fields that a client left out the values that they always have,
// or that raft can not do without.
func fillRaft(r *swarm.RaftConfig) {
	r.ElectionTick = cmp.Or(r.ElectionTick, electionTick)
	r.HeartbeatTick = cmp.Or(r.HeartbeatTick, heartbeatTick)
	r.SnapshotInterval = cmp.Or(r.SnapshotInterval, defaultSnapshotInterval)
}

// defaultHeartbeat is Swarm's; 0 means it.
const defaultHeartbeat = 5 * time.Second

// rotated replaces the secret of a token, SWMTKN-1-<digest of the CA>-<secret>.
func rotated(token, secret string) string {
	return token[:strings.LastIndexByte(token, '-')+1] + secret
}

// validateCluster refuses what can not be honoured.
func validateCluster(s *swarm.Spec) error {
	certs := s.CAConfig
	switch {
	case s.Name != clusterName:
		return invalid(`swarm spec must be named "default", not %q`, s.Name)
	case certs.NodeCertExpiry != 0 && certs.NodeCertExpiry < minCertExpiry:
		return invalid("minimum certificate expiry time is: %s: --cert-expiry %s is shorter", minCertExpiry, certs.NodeCertExpiry)
	case s.Dispatcher.HeartbeatPeriod < 0:
		return invalid("heartbeat time period cannot be a negative duration: %s (--dispatcher-heartbeat)", s.Dispatcher.HeartbeatPeriod)
	case s.Dispatcher.HeartbeatPeriod < minHeartbeat:
		return invalid("minimum heartbeat time period is: %s: --dispatcher-heartbeat %s is shorter", minHeartbeat, s.Dispatcher.HeartbeatPeriod)
	case s.Raft.ElectionTick != electionTick || s.Raft.HeartbeatTick != heartbeatTick:
		return invalid("raft ticks are fixed in shoal: ElectionTick %d, HeartbeatTick %d", electionTick, heartbeatTick)
	case len(certs.ExternalCAs) > 0:
		return unsupported("external certificate authorities are")
	case s.TaskDefaults.LogDriver != nil:
		return unsupported("a default log driver is")
	}
	if l := s.Orchestration.TaskHistoryRetentionLimit; l != nil && *l > api.MaxHistory {
		return invalid("task-history-limit %d is too many: at most %d are kept; a negative number keeps as many", *l, api.MaxHistory)
	}
	return validateClusterLabels(s.Labels)
}

// clusterTLS is the root as Docker's clients look at it: whom nodes trust when
// all is done, and who signs. While the root is rotated the first is the old
// one and the second already the new one.
func clusterTLS(r *api.RootCA) swarm.TLSInfo {
	info := tlsInfo(r.Cert)
	if r.Rotation != nil {
		next := tlsInfo(r.Rotation.Cert)
		info.CertIssuerSubject, info.CertIssuerPublicKey = next.CertIssuerSubject, next.CertIssuerPublicKey
	}
	return info
}

// tlsInfo tells what a root certificate is, as far as it can be read.
func tlsInfo(root []byte) swarm.TLSInfo {
	info := swarm.TLSInfo{TrustRoot: string(root)}
	block, _ := pem.Decode(root)
	if block == nil {
		return info
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return info
	}
	info.CertIssuerSubject = cert.RawSubject
	info.CertIssuerPublicKey = cert.RawSubjectPublicKeyInfo
	return info
}

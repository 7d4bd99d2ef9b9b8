package daemon

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster"
	"shoal/cluster/ca"
)

// admit refuses nodes that are no members any more, and managers of yesterday
// where only managers have any business.
func (m *manager) admit(id ca.Identity, protocol string) error {
	if protocol == cluster.ProtocolRaft {
		return m.admitToRaft(id)
	}
	v := m.store.View()
	if v.Cluster() == nil {
		return nil // it has not received the state yet, and can not tell
	}
	if _, known := v.Nodes.Get(id.NodeID); known {
		return nil
	}
	// Until a leader is known the state is that of the last snapshot, which may
	// be older than another manager. Raft's own list is up to date.
	if id.Role == ca.RoleManager && serves(m.cluster.Raft.Stats(), id.NodeID) {
		return nil
	}
	return errRemoved
}

var (
	errRemoved = fmt.Errorf("it was removed from the cluster: %w", errdefs.ErrPermissionDenied)
	errDemoted = fmt.Errorf("it is not a manager any more: %w", errdefs.ErrPermissionDenied)
)

// noRaft is a worker's door. Whom it answers over HTTP its endpoints' rules say,
// and for gossip the members that it knows; see mayCall and known.
func noRaft(_ ca.Identity, protocol string) error {
	if protocol == cluster.ProtocolRaft {
		return fmt.Errorf("this node is not a manager: %w", errdefs.ErrPermissionDenied)
	}
	return nil
}

// admitToRaft says whom raft hears. Raft itself asks nobody who he is: it takes
// anybody who claims a higher term for its leader, and gives up its own log for
// his.
func (m *manager) admitToRaft(id ca.Identity) error {
	n, known := m.store.View().Nodes.Get(id.NodeID)
	if known && n.Role == swarm.NodeRoleManager && m.cluster.Raft.Replayed() {
		return nil // that it is no server may be news that raft has not received
	}
	st := m.cluster.Raft.Stats()
	if serves(st, id.NodeID) {
		return nil
	}
	// While this manager was away all the others may have been replaced by ones
	// that it has never heard of. Refused, their leader could not bring it up to
	// date for ever. What tells them from a manager of yesterday is that they
	// were let in after all that this one has in its log. Who was let in before
	// that, and is neither a server nor a manager, was removed.
	if led := st.LeaderID != "" && st.LeaderID != id.NodeID; !led && id.Since >= st.LastIndex {
		return nil
	}
	if known {
		return errDemoted
	}
	return errRemoved
}

// serves tells whether a node is one of raft's servers.
func serves(st cluster.Stats, nodeID string) bool {
	return slices.ContainsFunc(st.Servers, func(s cluster.Server) bool { return s.NodeID == nodeID })
}

package daemon

import (
	"context"
	"net/http"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
)

// lockRetry is the pause before a disk that could not be written is tried
// again, and before managers that have not taken a new lock are asked again.
const lockRetry = time.Second

// keepLocked puts this manager's data key under each lock that the managers
// agree on, until ctx ends.
func (m *manager) keepLocked(ctx context.Context) error {
	return m.store.Tend(ctx, func() (again time.Duration) {
		c := m.store.View().Cluster()
		if c == nil {
			return 0
		}
		changed, err := m.vault.take(c.Lock)
		if err != nil {
			m.log.Error("can not write this manager's data key: after a restart it takes the lock of before", zap.Error(err))
			return lockRetry
		}
		if changed {
			m.log.Info("the data key has another lock", zap.Bool("locked", c.Lock.Key != ""), zap.Uint64("epoch", c.Lock.Epoch))
		}
		return 0
	}, api.KindCluster)
}

// retireKeys forgets unlock keys that no manager's disk needs any more, while
// this manager leads.
func (m *manager) retireKeys(ctx context.Context) error {
	return m.store.Tend(ctx, func() (again time.Duration) {
		c := m.store.View().Cluster()
		if c == nil || len(c.Lock.Previous) == 0 {
			return 0
		}
		if !m.allTook(ctx, c.Lock.Epoch) {
			return lockRetry
		}
		if err := m.control.RetireUnlockKeys(ctx, c.Lock.Epoch); err != nil && ctx.Err() == nil {
			m.log.Warn("can not forget unlock keys that are not needed any more; it is tried again", zap.Error(err))
			return lockRetry
		}
		return 0
	}, api.KindCluster, api.KindNode)
}

// allTook tells whether the disk of every manager is under this lock.
func (m *manager) allTook(ctx context.Context, epoch uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for n := range m.store.View().Nodes.All() {
		if n.Role != swarm.NodeRoleManager {
			continue
		}
		took := m.vault.epoch()
		if n.ID != m.id.NodeID {
			if err := m.askManager(ctx, n, pathLock, &took); err != nil {
				return false
			}
		}
		if took < epoch {
			return false
		}
	}
	return true
}

func (m *manager) answerLock(*http.Request) (any, error) {
	return m.vault.epoch(), nil
}

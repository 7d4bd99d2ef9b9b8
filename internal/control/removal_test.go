package control

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// TestRemovalWaitsForADemotion that is under way, and not for ever.
func TestRemovalWaitsForADemotion(t *testing.T) {
	for name, takes := range map[string]time.Duration{"raft lets go in time": 3 * time.Second, "raft does not let go": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				node := &api.Node{
					Meta: api.Meta{ID: "node9"}, Role: swarm.NodeRoleManager, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker},
					Description: swarm.NodeDescription{Hostname: "n9"},
				}
				w.put(node)
				released := time.AfterFunc(takes, func() {
					now, _ := w.View().Nodes.Get("node9")
					now = api.Clone(now)
					now.Role = swarm.NodeRoleWorker
					w.put(now)
				})
				defer released.Stop()
				begin := time.Now()
				err := w.RemoveNode(t.Context(), "node9", true)
				if took := time.Since(begin); took != min(takes, demotionTime) {
					t.Errorf("it took %s", took)
				}
				if takes > demotionTime {
					wantError(t, err, errdefs.IsFailedPrecondition, "must be demoted to worker before removal")
				} else if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

package service

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestRemovedOnDeadNode: a task that is removed while its node is thought dead may
// run there still, so that it keeps its address until the node says that it does
// not, or is given up.
func TestRemovedOnDeadNode(t *testing.T) {
	for name, back := range map[string]bool{"the node returns": true, "it never does": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(w *world) {
				w.create(2, "v1", published)
				w.wait(time.Second)
				lost := w.tasks(func(t *api.Task) bool { return t.NodeID == "n1" })[0]
				w.down("n1")
				w.wait(time.Second)
				w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
				w.wait(time.Minute)
				all := w.tasks(nil)
				if len(all) != 1 || all[0].ID != lost.ID || all[0].DesiredState != swarm.TaskStateRemove || len(taskLeases(all[0])) == 0 {
					t.Fatalf("what may still run is forgotten%s", w.dump())
				}
				w.expectQuiet()
				w.create(40, "v1", published)
				w.wait(5 * time.Second)
				for _, task := range w.tasks(func(t *api.Task) bool { return t.ID != lost.ID }) {
					if task.Networks[0].Addr == lost.Networks[0].Addr {
						t.Errorf("its address was given away%s", w.dump())
					}
				}
				w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
				if back {
					w.setNode("n1", func(n *api.Node) { n.SetStatus(swarm.NodeStatus{State: swarm.NodeStateReady}, time.Now()) })
					w.wait(time.Minute)
				} else {
					w.wait(orphanAfter)
				}
				if v := w.store.View(); v.Tasks.Len() != 0 || v.Revisions.Len() != 0 {
					t.Errorf("%d tasks and %d revisions are left%s", v.Tasks.Len(), v.Revisions.Len(), w.dump())
				}
			})
		})
	}
}

// TestLongHistory: any amount of history goes with its service, and does not keep
// what runs from being stopped first.
func TestLongHistory(t *testing.T) {
	const ended = 7000
	inWorld(t, 1, func(w *world) {
		w.create(1, "v1")
		w.wait(time.Second)
		w.depose()
		for i := 0; i < ended; i += 500 {
			w.update(func(tx *store.Tx) error {
				for j := range 500 {
					task := &api.Task{
						Meta: api.Meta{ID: fmt.Sprint("old", i+j)}, ServiceID: "web", Revision: "web-1", Slot: 1, NodeID: "n1",
						DesiredState: swarm.TaskStateShutdown,
						Status:       swarm.TaskStatus{State: swarm.TaskStateFailed, Err: strings.Repeat("x", 300)},
					}
					if err := tx.Put(task); err != nil {
						return err
					}
				}
				return tx.Delete(api.KindService, "none")
			})
		}
		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindService, "web") })
		w.lead()
		w.wait(stops + time.Second)
		if n := w.store.View().Tasks.Len(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// TestRollbackToWhatIsGone: what the version before needs was removed since. The
// update is paused and says so, instead of going back to what can not run.
func TestRollbackToWhatIsGone(t *testing.T) {
	for says, needs := range map[string]option{
		"network gone not found": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "gone"}}
		},
		"secret key not found": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: "gone", SecretName: "key"}}
		},
		"config conf not found": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{{ConfigID: "gone", ConfigName: "conf"}}
		},
	} {
		t.Run(says, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				w.fate = badV2("crash 1s")
				w.create(1, "v1", updating(swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}))
				w.wait(time.Second)
				w.update(func(tx *store.Tx) error { // as if it had been there until now
					s, _ := tx.Services.Get("web")
					s = api.Clone(s)
					c := *s.Spec.TaskTemplate.ContainerSpec
					s.Spec.TaskTemplate.ContainerSpec = &c
					needs(&s.Spec)
					return tx.Put(s)
				})
				w.change("v2", func(s *swarm.ServiceSpec) { s.TaskTemplate.Networks = nil })
				w.wait(time.Minute)
				w.expectUpdate(swarm.UpdateStatePaused, "rolling back is not possible: "+says)
				w.expectQuiet()
			})
		})
	}
}

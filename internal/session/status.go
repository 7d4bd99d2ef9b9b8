package session

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/internal/wake"
)

const (
	// maxStatuses bounds one transaction of statuses.
	maxStatuses = 200
	// maxStatusText bounds what a node may say in a status, in bytes. It is for
	// people, in one line of a table.
	maxStatusText = 1 << 10
)

// statusWriter brings what nodes report into the store. While one transaction
// is on its way, reports gather for the next: batches grow under load and
// vanish when idle, without a timer.
type statusWriter struct {
	store *store.Store
	log   *zap.Logger

	mu     sync.Mutex
	queued map[string]reported // by task ID: the newest word on it
	ready  wake.Bell
}

type reported struct {
	nodeID string
	api.TaskReport
}

func newStatusWriter(s *store.Store, log *zap.Logger) *statusWriter {
	return &statusWriter{store: s, log: log, queued: map[string]reported{}, ready: wake.NewBell()}
}

func (w *statusWriter) add(nodeID string, r api.TaskReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Status.Err, r.Status.Message = brief(r.Status.Err), brief(r.Status.Message)
	w.queued[r.TaskID] = reported{nodeID, r}
	w.ready.Ring()
}

func (w *statusWriter) take() []report {
	w.mu.Lock()
	defer w.mu.Unlock()
	var batch []report
	for id, r := range w.queued {
		if len(batch) == maxStatuses {
			w.ready.Ring()
			break
		}
		batch = append(batch, report{id, r})
		delete(w.queued, id)
	}
	return batch
}

type report struct {
	taskID string
	reported
}

// brief cuts a text that is longer than a person wants to read.
func brief(s string) string {
	if len(s) <= maxStatusText {
		return s
	}
	return strings.ToValidUTF8(s[:maxStatusText], "") + "..."
}

// run writes until ctx ends. A write that fails ends it, and with it all
// sessions: nodes connect again and say everything again, so nothing is lost.
func (w *statusWriter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ready:
		}
		if err := w.write(ctx, w.take()); err != nil {
			return err
		}
	}
}

// write puts a batch into the store, in halves where it is too much for one
// entry. One that is too much alone is no status that any node of ours reports:
// it is left out, or it would keep every other from being written.
func (w *statusWriter) write(ctx context.Context, batch []report) error {
	err := w.store.Update(ctx, func(tx *store.Tx) error {
		for _, r := range batch {
			if t := withStatus(tx, r.taskID, r.reported); t != nil {
				if err := tx.Put(t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if !errors.Is(err, store.ErrTooLarge) {
		return err
	}
	if len(batch) == 1 {
		w.log.Error("a task's status is too large and is left out", zap.String("task", batch[0].taskID), zap.String("node", batch[0].nodeID))
		return nil
	}
	half := len(batch) / 2
	if err := w.write(ctx, batch[:half]); err != nil {
		return err
	}
	return w.write(ctx, batch[half:])
}

// withStatus gives the task with its new status, or nil if there is nothing to
// write: it is gone, belongs to another node, or would go backwards.
func withStatus(tx *store.Tx, id string, r reported) *api.Task {
	t, ok := tx.Tasks.Get(id)
	if !ok || t.NodeID != r.nodeID {
		return nil
	}
	same := t.Unhealthy == r.Unhealthy && sameStatus(t.Status, r.Status)
	if same || api.Terminal(t.Status.State) || api.Before(r.Status.State, t.Status.State) {
		return nil
	}
	n := api.Clone(t)
	n.Status, n.Unhealthy = r.Status, r.Unhealthy
	return n
}

// sameStatus leaves the time out: saying the same again is no news.
func sameStatus(a, b swarm.TaskStatus) bool {
	a.Timestamp = b.Timestamp
	return reflect.DeepEqual(a, b)
}

package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/atomicfile"
)

// stateFile is the name of the file that holds the last wanted state.
const stateFile = "tasks.json"

// record is what is kept on disk, so that a daemon that starts without any
// manager knows whose containers it sees. Endpoints and peers are not the
// tasks' business, and credentials never touch a worker's disk.
type record struct {
	Index     uint64
	ClusterID string
	AddrPools []netip.Prefix
	Node      *api.Node
	Tasks     []*api.Task
	Revisions map[string]*api.Revision // stored once, however many tasks have it
	Networks  map[string]*api.Network
	Status    map[string]status // by task ID, as last seen here
}

func newRecord(s *api.NodeState, status map[string]status) *record {
	r := &record{
		Index: s.Index, ClusterID: s.ClusterID, AddrPools: s.AddrPools, Node: s.Node,
		Revisions: map[string]*api.Revision{}, Networks: s.Networks, Status: status,
	}
	for _, a := range s.Tasks {
		r.Tasks = append(r.Tasks, a.Task)
		if a.Revision != nil {
			r.Revisions[a.Revision.ID] = a.Revision
		}
	}
	return r
}

func (r *record) state() *api.NodeState {
	s := &api.NodeState{
		Index: r.Index, ClusterID: r.ClusterID, AddrPools: r.AddrPools, Node: r.Node,
		Tasks: map[string]*api.Assignment{}, Networks: r.Networks,
	}
	for _, t := range r.Tasks {
		s.Tasks[t.ID] = &api.Assignment{Task: t, Revision: r.Revisions[t.Revision]}
	}
	return s
}

// load reads the last record; nil when there is none. One that can not be read
// is not worth refusing to work for: the managers have all of it.
func (w *Worker) load() *record {
	if w.cfg.StateDir == "" {
		return nil
	}
	path := filepath.Join(w.cfg.StateDir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		w.log.Warn("the last known tasks can not be read; the managers will tell them again",
			zap.String("file", path), zap.Error(err))
		return nil
	}
	return &r
}

// save keeps the file up to date until ctx ends. When it can not be written the
// tasks go on: the last good file stays, and the next change tries again.
func (w *Worker) save(ctx context.Context) {
	failing := false
	write := func() {
		err := w.write()
		if err != nil && !failing {
			w.log.Error("the wanted tasks can not be saved; a restart without managers would use older ones", zap.Error(err))
		}
		failing = err != nil
	}
	for {
		select {
		case <-w.ledger.save:
			write()
		case <-ctx.Done():
			select {
			case <-w.ledger.save:
				write()
			default:
			}
			return
		}
	}
}

func (w *Worker) write() error {
	if w.cfg.StateDir == "" {
		return nil
	}
	w.ledger.mu.Lock()
	state, status := w.ledger.state, maps.Clone(w.ledger.status)
	w.ledger.mu.Unlock()
	if state == nil {
		return nil
	}
	b, err := json.Marshal(newRecord(state, status))
	if err != nil {
		return fmt.Errorf("encode tasks: %w", err)
	}
	if err := os.MkdirAll(w.cfg.StateDir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(w.cfg.StateDir, stateFile), b, 0o600)
}

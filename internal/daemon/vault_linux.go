package daemon

import (
	"fmt"
	"sync"

	"shoal/cluster"
	"shoal/cluster/seal"
	"shoal/internal/api"
)

// vault is a manager's data key, and the file that it lies in.
type vault struct {
	key *seal.Key

	mu   sync.Mutex
	file *seal.File
}

// newVault makes the data key of a new manager. It is locked from the start if
// the managers are: it never lies on the disk in the clear.
func newVault(dataDir string, id identity, l api.Lock) (*vault, error) {
	lock, err := sealLock(l)
	if err != nil {
		return nil, err
	}
	key := seal.NewKey(id.owner())
	file, err := seal.Create(cluster.KeyFile(dataDir), key, lock)
	if err != nil {
		return nil, err
	}
	return &vault{key: key, file: file}, nil
}

// dataKey is what the node's key material is sealed with: nothing on a worker.
func (v *vault) dataKey() *seal.Key {
	if v == nil {
		return nil
	}
	return v.key
}

func (id identity) owner() seal.Owner { return seal.Owner{ClusterID: id.ClusterID, NodeID: id.NodeID} }

func sealLock(l api.Lock) (seal.Lock, error) {
	lock := seal.Lock{Epoch: l.Epoch}
	if l.Key == "" {
		return lock, nil
	}
	key, err := seal.ParseUnlockKey(l.Key)
	if err != nil {
		return lock, fmt.Errorf("read the cluster's unlock key: %w", err)
	}
	lock.Key = &key
	return lock, nil
}

// take puts the data key under the lock that the managers have agreed on. An
// older one is passed over: a manager that starts meets it again in its log.
func (v *vault) take(l api.Lock) (changed bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.Epoch <= v.file.Epoch() {
		return false, nil
	}
	lock, err := sealLock(l)
	if err != nil {
		return false, err
	}
	return true, v.file.Rewrap(v.key, lock)
}

// epoch is that of the lock on disk.
func (v *vault) epoch() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.file.Epoch()
}

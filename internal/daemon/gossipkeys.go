package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"shoal/cluster"
	"shoal/cluster/gossip"
	"shoal/cluster/seal"
	"shoal/internal/atomicfile"
)

// The keys of gossip are kept so that nodes that start at new addresses, all at
// once, find each other before there is a leader to say where anybody is. A
// manager seals them like its own key. A worker, which has nobody to unlock it,
// keeps them beside its own key and as that one is: whoever reads the disk of a
// worker is that worker anyway, and these keys let him do less.

func gossipKeysFile(dataDir string) string {
	return filepath.Join(cluster.TLSDir(dataDir), "gossip.keys")
}

var gossipKeysPlace = seal.Place{Kind: seal.KindGossipKeys}

// saveGossipKeys writes the keys, sealed where there is a data key.
func saveGossipKeys(dataDir string, keys []gossip.Key, key *seal.Key) error {
	raw, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	if key != nil {
		raw = key.Seal(gossipKeysPlace, raw)
	}
	if err := atomicfile.Write(gossipKeysFile(dataDir), raw, 0o600); err != nil {
		return fmt.Errorf("keep the gossip keys: %w", err)
	}
	return nil
}

// loadGossipKeys reads what saveGossipKeys wrote; nothing if it never did.
func loadGossipKeys(dataDir string, key *seal.Key) ([]gossip.Key, error) {
	raw, err := os.ReadFile(gossipKeysFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && key != nil {
		raw, err = key.Open(gossipKeysPlace, raw)
	}
	var keys []gossip.Key
	if err == nil {
		err = json.Unmarshal(raw, &keys)
	}
	for _, k := range keys {
		if err == nil && len(k) != gossip.KeySize {
			err = errdefs.ErrDataLoss
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the gossip keys that were kept: %w", err)
	}
	return keys, nil
}

// forgetGossipKeys removes them, for a node that changes between the two ways to
// keep them.
func forgetGossipKeys(dataDir string) error {
	if err := os.Remove(gossipKeysFile(dataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the gossip keys that were kept: %w", err)
	}
	return nil
}

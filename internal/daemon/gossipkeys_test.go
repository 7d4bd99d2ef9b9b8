package daemon

import (
	"bytes"
	"encoding/base64"
	"os"
	"testing"

	"shoal/cluster"
	"shoal/cluster/gossip"
	"shoal/cluster/seal"
)

func TestGossipKeysAreKept(t *testing.T) {
	own := seal.NewKey(seal.Owner{ClusterID: "c", NodeID: "n"})
	keys := []gossip.Key{gossip.NewKey(), gossip.NewKey()}
	for name, key := range map[string]*seal.Key{"manager": own, "worker": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if got, err := loadGossipKeys(dir, key); got != nil || err != nil {
				t.Fatalf("before any were kept: %v, %v", got, err)
			}
			if err := os.Mkdir(cluster.TLSDir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := saveGossipKeys(dir, keys, key); err != nil {
				t.Fatal(err)
			}
			got, err := loadGossipKeys(dir, key)
			if err != nil || len(got) != 2 || !bytes.Equal(got[0], keys[0]) || !bytes.Equal(got[1], keys[1]) {
				t.Fatalf("got %v, %v", got, err)
			}
			raw, err := os.ReadFile(gossipKeysFile(dir))
			if err != nil {
				t.Fatal(err)
			}
			if readable := bytes.Contains(raw, []byte(base64.StdEncoding.EncodeToString(keys[0]))); readable != (key == nil) {
				t.Errorf("readable on disk: %v", readable)
			}
			if info, err := os.Stat(gossipKeysFile(dir)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if err := os.WriteFile(gossipKeysFile(dir), append([]byte(`["AAAA"]`), raw[8:]...), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := loadGossipKeys(dir, key); err == nil || got != nil {
				t.Errorf("damaged keys were read: %v", got)
			}
			if err := forgetGossipKeys(dir); err != nil {
				t.Fatal(err)
			}
			if err := forgetGossipKeys(dir); err != nil {
				t.Errorf("the second time: %v", err)
			}
		})
	}
}

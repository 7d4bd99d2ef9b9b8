package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	if _, ok, err := loadIdentity(dir); ok || err != nil {
		t.Fatalf("no file: %v, %v; want a node in no cluster", ok, err)
	}
	whole := identity{
		NodeID: "n", ClusterID: "c", ListenAddr: "0.0.0.0:2377", AdvertiseAddr: "192.0.2.1:2377",
		DataPathAddr: "192.0.2.1", DataPathPort: 4789,
	}
	if err := whole.save(dir); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := loadIdentity(dir); !ok || err != nil || !reflect.DeepEqual(got, whole) {
		t.Fatalf("got %+v, %v, %v; want %+v", got, ok, err, whole)
	}
	for name, change := range map[string]func(*identity){
		"node":      func(id *identity) { id.NodeID = "" },
		"cluster":   func(id *identity) { id.ClusterID = "" },
		"listen":    func(id *identity) { id.ListenAddr = "" },
		"advertise": func(id *identity) { id.AdvertiseAddr = "192.0.2.1" },
		"data path": func(id *identity) { id.DataPathAddr = "eth0" },
		"port":      func(id *identity) { id.DataPathPort = 0 },
	} {
		part := whole
		change(&part)
		if err := part.save(dir); err != nil {
			t.Fatal(err)
		}
		if _, _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, identityFile)+" is damaged") {
			t.Errorf("without its %s: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadIdentity(dir); err == nil {
		t.Error("half a file was read")
	}
}

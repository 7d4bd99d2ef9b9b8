package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/atomicfile"
)

// identity is what a node remembers of itself between runs, in node.json. Its
// presence says that the node is in a cluster. What proves the identity is the
// certificate beside it.
type identity struct {
	NodeID        string
	ClusterID     string
	ListenAddr    string // host:port of the one TLS port
	AdvertiseAddr string // host:port that others reach it by
	DataPathAddr  string // where tunnels to this node end
	DataPathPort  uint32
	On            interfaces // where these addresses were last: see moved
	// Managers is where the managers were when this node last heard of them:
	// how a worker finds them after a restart.
	Managers []swarm.Peer
	// Joining is set until a new manager has its raft log on disk: only then is
	// a missing one a fault.
	Joining bool `json:",omitempty"`
	// Forced is set while this manager is to go on without the others.
	Forced bool `json:",omitempty"`
}

const identityFile = "node.json"

// loadIdentity reads node.json; ok is false if the node is in no cluster.
func loadIdentity(dir string) (id identity, ok bool, err error) {
	path := filepath.Join(dir, identityFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, false, nil
	}
	if err != nil {
		return identity{}, false, err
	}
	if err := json.Unmarshal(raw, &id); err != nil || !id.complete() {
		return identity{}, false, fmt.Errorf("%s is damaged: move %s away and initialise or join again, or restore a backup", path, dir)
	}
	return id, true, nil
}

// complete tells whether an identity is one that a node could run with.
func (id identity) complete() bool {
	_, listen := netip.ParseAddrPort(id.ListenAddr)
	_, advertise := netip.ParseAddrPort(id.AdvertiseAddr)
	_, path := netip.ParseAddr(id.DataPathAddr)
	return id.NodeID != "" && id.ClusterID != "" && id.DataPathPort != 0 && errors.Join(listen, advertise, path) == nil
}

// save writes node.json whole or not at all.
func (id identity) save(dir string) error {
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, identityFile), append(raw, '\n'), 0o600)
}

// host is the address that others know this node by, without the port.
func (id identity) host() string {
	host, _, err := net.SplitHostPort(id.AdvertiseAddr)
	if err != nil {
		return id.AdvertiseAddr
	}
	return host
}

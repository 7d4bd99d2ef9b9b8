package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"

	"shoal/internal/atomicfile"
	"shoal/internal/netkit"
)

// Network is a network as the engine made it. The engine never tells us of it
// a second time, so it is written down.
type Network struct {
	ID string // in the cluster
	// Pools are where the engine thinks that its addresses are.
	Pools    []netip.Prefix `json:",omitempty"`
	MTU      int            `json:",omitempty"` // 0 for what fits between nodes
	Internal bool           `json:",omitempty"`
	// Encrypted says that less fits.
	Encrypted bool `json:",omitempty"`
}

// Endpoint is one container's place on a network.
type Endpoint struct {
	NetworkID string // on the engine
	Addr      netip.Prefix
	MAC       string
	Sandbox   string `json:",omitempty"` // the container's namespace, once it joined
}

// content is the record on disk, by the engine's IDs.
type content struct {
	Networks  map[string]Network
	Endpoints map[string]Endpoint
	Subnets   map[string][]netip.Prefix // of networks by the cluster's ID, as the managers said last
}

// records survive a restart of the daemon. They are a cache of what the engine
// said: without them containers run on, and what they hold is found out again
// from the engine's next calls and from the kernel.
type records struct {
	path string
	log  *zap.Logger

	load func() // reads the file, once
	mu   sync.Mutex
	content
}

func newRecords(path string, log *zap.Logger) *records {
	r := &records{path: path, log: log}
	r.Networks, r.Endpoints = map[string]Network{}, map[string]Endpoint{}
	r.load = sync.OnceFunc(r.read)
	return r
}

func (r *records) read() {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var c content
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		// Refusing to serve would keep every container on this host from
		// starting and stopping, over something that can be rebuilt.
		r.log.Error("network driver's record is damaged; going on without it", zap.String("file", r.path), zap.Error(err))
		return
	}
	for id, n := range c.Networks {
		r.Networks[id] = n
	}
	r.Subnets = c.Subnets
	for id, e := range c.Endpoints {
		// A container that was up when the host went down left no interface;
		// its record would otherwise stay for ever.
		if e.Sandbox != "" && !linkExists(netkit.HostIface(id)) {
			continue
		}
		r.Endpoints[id] = e
	}
}

func (r *records) network(id string) (Network, bool) {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.Networks[id]
	return n, ok
}

func (r *records) endpoint(id string) (Endpoint, bool) {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.Endpoints[id]
	return e, ok
}

// endpoints gives a copy of all of them.
func (r *records) endpoints() map[string]Endpoint {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]Endpoint, len(r.Endpoints))
	for id, e := range r.Endpoints {
		out[id] = e
	}
	return out
}

// subnets gives those of all networks; nobody changes them.
func (r *records) subnets() map[string][]netip.Prefix {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Subnets
}

// takes tells whether the engine takes an address for one of a network, by the
// cluster's ID, that it was told to have a pool.
func (r *records) takes(networkID string, pool netip.Prefix, a netip.Addr) bool {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.Networks {
		if n.ID == networkID && slices.ContainsFunc(n.Pools, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return true
		}
	}
	return pool.Contains(a)
}

// change alters the record and writes it. Nothing is answered from a record, or
// to the engine, before it is on disk.
func (r *records) change(f func(*content)) error {
	r.load()
	r.mu.Lock()
	defer r.mu.Unlock()
	next := content{Networks: maps.Clone(r.Networks), Endpoints: maps.Clone(r.Endpoints), Subnets: r.Subnets}
	f(&next)
	b, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode network driver's record: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return fmt.Errorf("write network driver's record: %w", err)
	}
	if err := atomicfile.Write(r.path, b, 0o600); err != nil {
		return fmt.Errorf("write network driver's record: %w", err)
	}
	r.content = next
	return nil
}

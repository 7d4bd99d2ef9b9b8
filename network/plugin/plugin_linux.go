package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// Driver is the name that networks are created with on the engine, for
	// the network and for IPAM. The engine finds us by the socket's file name.
	Driver = "shoal"
	// DefaultSocket is where engines look for a driver of that name.
	DefaultSocket = "/run/docker/plugins/" + Driver + ".sock"
	// DefaultSpec is where engines look for a driver whose socket is missing.
	DefaultSpec = "/etc/docker/plugins/" + Driver + ".json"
	// OptionNetworkID is the option, of the network and of its IPAM, that
	// holds the cluster's ID of the network.
	OptionNetworkID = "com.shoal.network.id"
	// OptionInternal marks a network without a way out. The engine is not told by
	// its own word: engines from 25 on pass no question for a name on then.
	OptionInternal = "com.shoal.network.internal"
	// OptionMTU is Docker's own option for the MTU of a network.
	OptionMTU = "com.docker.network.driver.mtu"
	// OptionEncrypted is "true" for a network whose packets between nodes are
	// encrypted, and thus have to be smaller.
	OptionEncrypted = "com.shoal.network.encrypted"
)

// Config is what a plugin needs.
type Config struct {
	Socket   string // DefaultSocket if empty
	Spec     string // DefaultSpec if empty
	StateDir string // made if missing
	Log      *zap.Logger
	// Addresses are the managers'. Nil: containers can have those alone that
	// they name.
	Addresses Addresses
}

// Addresses gives containers their addresses.
type Addresses interface {
	// Ask is called for a container that is being connected to a network, by
	// the cluster's ID. want is the address that it names, if any: its own if
	// it is a task, and a wish if not. Where its subnet is not known the answer is
	// the address alone.
	Ask(ctx context.Context, networkID string, want netip.Addr) (netip.Prefix, error)
	// Release is called when a container is gone. It does not wait.
	Release(networkID string, addr netip.Addr)
	// Joined is called when a container has joined a network. It does not wait.
	Joined(networkID string, addr netip.Addr)
	// WayOut tells whether a container that has an address leaves its networks by
	// that one's; known is false where that does not matter to anybody.
	WayOut(networkID string, addr netip.Addr) (yes, known bool)
	// Stranger tells whether a container that has an address is known to be no
	// task, whose ports the mesh publishes.
	Stranger(networkID string, addr netip.Addr) bool
}

// Plugin serves the drivers to the engine.
type Plugin struct {
	socket  string
	spec    string
	log     *zap.Logger
	records *records
	addrs   Addresses
	grown   chan struct{} // networks have other subnets than before
	mu      sync.Mutex    // one change of an interface at a time
	ln      net.Listener
}

// New wires a plugin; nothing is read or listened on before Listen.
func New(cfg Config) *Plugin {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Spec == "" {
		cfg.Spec = DefaultSpec
	}
	return &Plugin{
		socket:  cfg.Socket,
		spec:    cfg.Spec,
		log:     cfg.Log,
		addrs:   cfg.Addresses,
		grown:   make(chan struct{}, 1),
		records: newRecords(filepath.Join(cfg.StateDir, "plugin.json"), cfg.Log),
	}
}

// Listen opens the socket, so that an engine that asks from now on waits for
// Run rather than giving up on us. It also leaves word for an engine that starts
// when we are not there; see writeSpec.
func (p *Plugin) Listen() error {
	if err := os.MkdirAll(filepath.Dir(p.socket), 0o755); err != nil {
		return fmt.Errorf("make plugin directory: %w", err)
	}
	if c, err := net.DialTimeout("unix", p.socket, time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("network driver socket %s is served by another process; is another shoal daemon running?", p.socket)
	}
	if err := os.Remove(p.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale plugin socket: %w", err)
	}
	ln, err := net.Listen("unix", p.socket)
	if err != nil {
		return fmt.Errorf("listen for the engine: %w", err)
	}
	p.ln = ln
	if err := p.writeSpec(); err != nil {
		p.log.Warn("an engine that starts while shoal is down will wait for it", zap.String("file", p.spec), zap.Error(err))
	}
	return nil
}

// Run serves the engine until ctx ends, and keeps the interfaces of known
// containers as they should be.
func (p *Plugin) Run(ctx context.Context) error {
	if p.ln == nil {
		if err := p.Listen(); err != nil {
			return err
		}
	}
	p.records.load()
	srv := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(p.ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the engine: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		// Calls last milliseconds; let those under way finish.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			return srv.Close()
		}
		return nil
	})
	g.Go(func() error { return p.keep(ctx) })
	return g.Wait()
}

// Package testbed makes several hosts on one machine: each has its own network
// address, processes, file system view and Docker engine, and can run a shoal
// daemon. It works on Linux, as root.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Root is where beds live. Sockets are below it, so it is short: their paths
// may have no more than 107 bytes.
const Root = "/var/lib/shoal-testbed"

// EngineEnv names a directory with another engine than the machine's own:
// dockerd, containerd and its shim, and whatever else of theirs differs.
const EngineEnv = "SHOAL_TESTBED_ENGINE"

// upTimeout is enough for twenty engines on two busy cores.
const upTimeout = 2 * time.Minute

// Config says which bed to make.
type Config struct {
	Name  string // distinguishes beds; also their directory's name below Root
	Hosts int
	Shoal string // path of the shoal binary; may be empty if no host will run it
	Owner int    // process whose end makes the bed garbage; 0 for none
	Log   *zap.Logger
}

// Bed is a set of hosts on one network.
type Bed struct {
	state  State
	log    *zap.Logger
	hosts  []*Host
	client *Host
	ground *Host // the switch's network namespace, see network.go
}

// names end up in interface names, paths and cgroups.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// New describes a bed; Up makes it.
func New(cfg Config) (*Bed, error) {
	if !validName.MatchString(cfg.Name) {
		return nil, fmt.Errorf("bed name %q: use up to 31 of a-z, 0-9 and -", cfg.Name)
	}
	if cfg.Hosts < 1 || cfg.Hosts > maxHosts {
		return nil, fmt.Errorf("a bed has 1 to %d hosts, not %d", maxHosts, cfg.Hosts)
	}
	shoal := cfg.Shoal
	if shoal != "" {
		abs, err := filepath.Abs(shoal)
		if err != nil {
			return nil, fmt.Errorf("locate %s: %w", shoal, err)
		}
		shoal = abs
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return build(State{
		Name: cfg.Name, Hosts: cfg.Hosts, Shoal: shoal, Engine: os.Getenv(EngineEnv), Owner: ownerOf(cfg.Owner),
	}, cfg.Log), nil
}

// Open returns a bed that another process made.
func Open(name string, log *zap.Logger) (*Bed, error) {
	state, err := readState(name)
	if err != nil {
		return nil, err
	}
	b := build(state, log)
	holders, err := findHolders(b.Dir())
	if err != nil {
		return nil, err
	}
	for _, h := range b.all() {
		h.pid = holders[h.Name]
	}
	return b, nil
}

func build(state State, log *zap.Logger) *Bed {
	b := &Bed{state: state, log: log.Named("testbed")}
	b.ground = &Host{bed: b, Name: groundName}
	b.client = &Host{bed: b, Name: clientName}
	for i := range state.Hosts {
		b.hosts = append(b.hosts, &Host{bed: b, Name: fmt.Sprintf("h%d", i+1), index: i})
	}
	b.number()
	return b
}

// number gives every host its address, once the bed's subnet is known.
func (b *Bed) number() {
	if !b.state.Subnet.IsValid() {
		return
	}
	b.ground.IP = b.state.address(gatewayNumber)
	b.client.IP = b.state.address(clientNumber)
	for i, h := range b.hosts {
		h.IP = b.state.address(firstHostNumber + i)
	}
}

// Name is the bed's name.
func (b *Bed) Name() string { return b.state.Name }

// Dir holds everything of the bed that is in the file system.
func (b *Bed) Dir() string { return filepath.Join(Root, b.state.Name) }

// Hosts are the machines that have an engine.
func (b *Bed) Hosts() []*Host { return b.hosts }

// Host is Hosts()[i].
func (b *Bed) Host(i int) *Host { return b.hosts[i] }

// Client is a machine of its own on the same network without an engine: the
// outside world, whose address a published service must see.
func (b *Bed) Client() *Host { return b.client }

// Lookup finds a host by name, the client included.
func (b *Bed) Lookup(name string) (*Host, error) {
	for _, h := range append([]*Host{b.client}, b.hosts...) {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("bed %s has no host %q", b.Name(), name)
}

func (b *Bed) all() []*Host {
	return append([]*Host{b.ground, b.client}, b.hosts...)
}

// Up makes the hosts and starts their engines. If it fails, nothing is left
// but the logs' directory, which Down removes.
func (b *Bed) Up(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a testbed needs root: it makes network namespaces and runs Docker engines")
	}
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	begin := time.Now()
	if err := b.claim(); err != nil {
		return err
	}
	b.number()
	defer func() {
		if err != nil {
			err = errors.Join(err, b.endHosts(context.WithoutCancel(ctx)))
		}
	}()
	if err := b.makeGround(); err != nil {
		return fmt.Errorf("make the network: %w", err)
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, h := range append([]*Host{b.client}, b.hosts...) {
		group.Go(func() error {
			if err := h.make(gctx); err != nil {
				return fmt.Errorf("make %s: %w", h.Name, err)
			}
			if h == b.client {
				return nil
			}
			return h.StartEngine(gctx)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b.log.Info("bed is up", zap.String("bed", b.Name()), zap.Int("hosts", b.state.Hosts), zap.Duration("took", time.Since(begin)))
	return nil
}

package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/network/wireguard"
)

// verifyEvery is how often everything is checked although nothing said that it
// changed. It bounds how long a host with legacy iptables, which tells nobody
// of changes, can stay closed after the engine rewrote its rules.
const verifyEvery = 10 * time.Second

// Overlay keeps a host's routes and firewall as the cluster's networks need.
type Overlay struct {
	log   *zap.Logger
	table *netkit.Table
	zones *netkit.Table
	ask   func(context.Context) ([]string, error) // for bridges of the engine
	wire  wire
	keys  keys

	mu       sync.Mutex // orders Set, reconciling and Clear
	want     *State
	done     bool     // want was reached
	zoneless bool     // it was said that the kernel has no zones
	named    []string // bridges that the engine named last
	// broken is why the encrypted part of it was not.
	broken atomic.Pointer[error]
}

// New wires an overlay; the kernel is not touched before Set.
func New(log *zap.Logger) *Overlay {
	return &Overlay{log: log, table: netkit.NewTable(tableName, log), zones: netkit.NewTable(zonesName, log)}
}

// wire is what the encrypted tunnel's packets leave by.
type wire interface {
	Set(wireguard.Config) (index int, err error)
	Remove() error
}

// keys are the node's own, which change.
type keys interface {
	// Keys are the private key to use, zero if there is none, and the public keys
	// that others may know, its own first.
	Keys() (used wireguard.Key, own []wireguard.Key)
}

// Encrypt gives the overlay what encrypted networks need. Without it their
// packets stay on the node. It comes before everything else.
func (o *Overlay) Encrypt(w wire, k keys) { o.wire, o.keys = w, k }

// Set makes the kernel serve the networks of a node state.
func (o *Overlay) Set(ctx context.Context, state *api.NodeState) error {
	s := Compile(state)
	o.mu.Lock()
	defer o.mu.Unlock()
	s.Keys = o.own()
	return o.set(ctx, s)
}

// Rekey makes the kernel use the keys that the node has now.
func (o *Overlay) Rekey(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want == nil {
		return nil
	}
	s := *o.want
	s.Keys = o.own()
	return o.set(ctx, s)
}

func (o *Overlay) own() Keys {
	if o.keys == nil {
		return Keys{}
	}
	used, own := o.keys.Keys()
	return Keys{used, own}
}

// Broken says what keeps encrypted networks from other nodes now; nil if nothing
// does.
func (o *Overlay) Broken() error {
	if err := o.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Bar lets nothing of containers out of a host whose firewall was not set since
// it started: their networks, and who may reach whom, are not known yet.
func (o *Overlay) Bar() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	there, err := o.table.Exists()
	if err != nil || there {
		return err
	}
	if err := o.table.Set(ruleset(State{}, nil)); err != nil {
		return fmt.Errorf("close the overlay firewall: %w", err)
	}
	return nil
}

// SetState makes the kernel equal to a state, whatever it was before.
func (o *Overlay) SetState(ctx context.Context, s State) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.set(ctx, s)
}

func (o *Overlay) set(ctx context.Context, s State) error {
	same := o.done && equal(*o.want, s)
	if same && slices.Equal(o.want.Tunnel.Remotes, s.Tunnel.Remotes) {
		return nil // Run sees to what others change
	}
	o.want = &s
	if same { // tasks come and go all the time
		o.done = false
		if err := o.reach(); err != nil {
			return err
		}
		o.done = true
		return nil
	}
	return o.converge(ctx)
}

// converge sets the firewall before routes, so that no address is reachable
// before it is known who may reach it.
func (o *Overlay) converge(ctx context.Context) error {
	o.done = false
	bridges, err := o.bridges(ctx)
	if err != nil {
		return err
	}
	if err := o.table.Set(ruleset(*o.want, bridges)); err != nil {
		return fmt.Errorf("set overlay firewall: %w", err)
	}
	if err := o.setZones(); err != nil {
		return err
	}
	if err := netkit.Sysctl("1", "net", "ipv4", "ip_forward"); err != nil {
		return err
	}
	if err := netkit.EnsureGateway(); err != nil {
		return err
	}
	if err := holdSubnets(o.want.subnets(all)); err != nil {
		return err
	}
	// Containers of plain networks get out of the host also where encryption, or
	// the whole way to other nodes, is broken.
	err = o.reach()
	if err := errors.Join(err, openForward(ctx, len(o.want.Tunnel.Peers) > 0, o.want.encrypts())); err != nil {
		return err
	}
	o.done = true
	return nil
}

// reach makes the way to other nodes and their tasks. That of encrypted networks
// must not keep the others from theirs.
func (o *Overlay) reach() error {
	s := *o.want
	var err error
	if s.Tunnel, err = s.Tunnel.reachable(); err != nil {
		return err
	}
	if err := o.reachPlain(s); err != nil {
		return err
	}
	if err := o.reachEncrypted(s); err != nil {
		o.broken.Store(&err)
		return fmt.Errorf("encrypted networks are cut off from other nodes: %w", err)
	}
	o.broken.Store(nil)
	return nil
}

func (o *Overlay) reachPlain(s State) error {
	end, err := s.plainEnd()
	if err != nil {
		return err
	}
	device, err := setEnd(netkit.Tunnel, end)
	if err != nil {
		return err
	}
	if err := setWays(s.traffic(false), device); err != nil {
		return err
	}
	return setRules(returnRules(s))
}

// Run restores what others change, until ctx ends.
func (o *Overlay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return netkit.OnFirewallChange(ctx, o.log, verifyEvery, func() { o.reconcile(ctx) })
	})
	g.Go(func() error { return o.watch(ctx) })
	return g.Wait()
}

func (o *Overlay) reconcile(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want == nil {
		return
	}
	repaired, err := o.table.Verify()
	if err == nil && !o.zoneless {
		var zones bool
		zones, err = o.zones.Verify()
		repaired = repaired || zones
	}
	if err == nil {
		err = o.converge(ctx)
	}
	if ctx.Err() != nil {
		return // cut short by the end of Run: the next run looks again
	}
	if err != nil {
		o.log.Error("can not restore the overlay", zap.Error(err))
	} else if repaired {
		o.log.Warn("somebody changed the overlay's firewall tables; restored")
	}
}

// Clear takes everything of the overlay out of the kernel. Forwarding stays
// on: the engine needs it too.
func (o *Overlay) Clear(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.want, o.done = nil, false
	// Each is tried, whatever became of the others.
	_, err := setEnd(netkit.Tunnel, nil)
	return errors.Join(closeForward(ctx), holdSubnets(nil), err, o.reachEncrypted(State{}), setRules(nil), netkit.RemoveGateway(), o.table.Clear(), o.zones.Clear())
}

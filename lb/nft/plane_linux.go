package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb"
)

// verifyEvery is how often the whole table is read back although nothing said
// that it changed.
const verifyEvery = time.Minute

// Plane serves the mesh from the kernel.
type Plane struct {
	log   *zap.Logger
	table *netkit.Table
	takes func(lb.Port) bool

	mu    sync.Mutex // orders Set, Mute and Clear
	state *api.NodeState
	muted map[string]bool
	// whole says that the kernel has what state asks for, and no service
	// another's port: then the next state can be applied by its difference.
	whole bool
	// tracked says that connection tracking has nothing that contradicts state,
	// so that the next one has only to forget what it changes.
	tracked bool
	sizes   content // numbers of backends that have their chain
	// remember is how long connections are remembered. What the kernel can do is
	// tried once.
	remember []netkit.Timeouts
	tried    bool

	forget    func(stale) error // flush, but for tests
	conntrack *netkit.Conntrack // nil until needed
}

// New wires a plane that serves every port; the kernel is not touched before Set.
func New(log *zap.Logger) *Plane { return NewFor(log, func(lb.Port) bool { return true }) }

// NewFor wires a plane that leaves some ports to another. Virtual addresses are
// its own in any case.
func NewFor(log *zap.Logger, takes func(lb.Port) bool) *Plane {
	p := &Plane{log: log, table: netkit.NewTable(tableName, log), takes: takes, muted: map[string]bool{}}
	p.forget = p.flush
	return p
}

func (p *Plane) compile(s *api.NodeState, muted map[string]bool) lb.Table {
	return lb.Compile(s, muted).WithPorts(p.takes)
}

// Set serves the services of a node state. When it returns, no new connection
// goes to a task that the state does not list.
func (p *Plane) Set(ctx context.Context, state *api.NodeState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.whole {
		if before, after, ok := difference(p.state, state); ok {
			old, now := p.compile(before, p.muted), p.compile(after, p.muted)
			// Ranges are not patched. Few services have any.
			if slices.Equal(old.Kin, now.Kin) {
				if err := p.patch(old, now); !errors.Is(err, netkit.ErrTaken) {
					if err == nil {
						err = p.forget(staleness(old, now).with(departed(p.state, state)))
					}
					p.state, p.whole, p.tracked = state, err == nil, err == nil
					return err
				}
			}
		}
	}
	return p.load(state, p.muted)
}

// Mute stops or resumes giving new connections to the tasks of a node.
func (p *Plane) Mute(ctx context.Context, nodeID string, mute bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.muted[nodeID] == mute {
		return nil
	}
	muted := maps.Clone(p.muted)
	delete(muted, nodeID)
	if mute {
		muted[nodeID] = true
	}
	if p.state == nil {
		p.muted = muted
		return nil
	}
	return p.load(p.state, muted)
}

// load applies a whole state.
func (p *Plane) load(state *api.NodeState, muted map[string]bool) error {
	t := p.compile(state, muted)
	var s stale
	if p.tracked {
		s = staleness(p.compile(p.state, p.muted), t).with(departed(p.state, state))
	} else {
		s = leftovers(t, living(state)) // of the daemon's last run, or of a change that failed
	}
	if !p.tried {
		p.try()
	}
	p.state, p.muted, p.whole, p.tracked = state, muted, false, false
	if err := p.table.Set(ruleset(t, p.remember)); err != nil {
		return fmt.Errorf("set routing mesh: %w", err)
	}
	p.sizes = contentOf(lb.Table{Ports: t.Ports, VIPs: t.VIPs})
	p.sizes.elements = nil
	if err := p.forget(s); err != nil {
		return err
	}
	p.whole, p.tracked = !t.Contested, true
	return nil
}

// try finds out whether the kernel can forget connections with their reset.
func (p *Plane) try() {
	p.tried = true
	timeouts, err := netkit.ForgetResets()
	if err != nil {
		p.log.Warn("a client whose connection was reset, and that comes again from the same port within ten seconds, may be sent to a task that has left",
			zap.NamedError("why", err))
		return
	}
	p.remember = []netkit.Timeouts{timeouts}
}

// sweep lets go of what contradicts the table and was not made by it: the daemon
// was away while backends left, or the table was.
func (p *Plane) sweep() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return nil
	}
	return p.forget(leftovers(p.compile(p.state, p.muted), living(p.state)))
}

// Run keeps the kernel's table as it was set, until ctx ends: at once when
// somebody changed the firewall, and now and then in any case.
func (p *Plane) Run(ctx context.Context) error {
	return netkit.OnFirewallChange(ctx, p.log, verifyEvery, func() {
		repaired, err := p.table.Verify()
		if err != nil {
			p.log.Error("can not verify the routing mesh", zap.Error(err))
		} else if repaired {
			p.log.Warn("somebody changed the routing mesh's firewall table; restored")
			if err := p.sweep(); err != nil {
				p.log.Error("connections of the time without the table may go on astray", zap.Error(err))
			}
		}
	})
}

// Clear takes the mesh out of the kernel. Open connections live on.
func (p *Plane) Clear(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.whole, p.tracked = nil, false, false
	if p.conntrack != nil {
		p.conntrack.Close()
		p.conntrack = nil
	}
	return p.table.Clear()
}

// Differs says how the kernel's table differs from what was set, or "". It
// repairs nothing: Run does.
func (p *Plane) Differs() (string, error) { return p.table.Differs() }

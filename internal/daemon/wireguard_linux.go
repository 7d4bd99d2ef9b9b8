package daemon

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/network/wireguard"
)

// ServeWireGuard is the device in a process of its own; see wireguard.Serve. The
// daemon starts it with wireguardCommand and the device's name.
func ServeWireGuard(ctx context.Context, name string) error {
	return wireguard.Serve(ctx, name, func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "wireguard: "+format+"\n", args...)
	})
}

var wireguardCommand = []string{"system", "wireguard"}

// stepEvery is how often a node looks whether its keys are to change.
const stepEvery = 2 * time.Second

// cipher is a member's part in encrypted networks: its keys, and the change of
// them.
type cipher struct {
	m      *member
	device *wireguard.Device

	mu   sync.Mutex
	ring *wireguard.Ring // nil: it can not encrypt, or was not begun
	why  string          // it can not

	told    api.WireGuard // what the managers were told last
	changed chan struct{} // receives when they have to be told something else
}

func newCipher(m *member) *cipher {
	c := &cipher{m: m, changed: make(chan struct{}, 1)}
	var command []string
	if exe, err := os.Executable(); err == nil {
		command = append([]string{exe}, wireguardCommand...)
	}
	c.device = wireguard.New(netkit.WireGuard, command...)
	return c
}

// begin finds out what this node can do, and takes up the key of a device that
// is there already.
func (c *cipher) begin() {
	if c.m.mesh.networkless != "" {
		return // there is nothing to encrypt
	}
	err := wireguard.Capable()
	var key wireguard.Key
	if err == nil {
		key, err = c.device.Private()
	}
	var ring *wireguard.Ring
	if err == nil {
		ring, err = wireguard.NewRing(wireguard.Daily, key)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ring = ring; err != nil {
		c.why = err.Error()
		c.m.log.Warn("no tasks on encrypted networks here", zap.Error(err))
	}
}

func (c *cipher) current() *wireguard.Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ring
}

// Keys are the node's private key, zero if it can not encrypt, and its public
// ones.
func (c *cipher) Keys() (used wireguard.Key, own []wireguard.Key) {
	if r := c.current(); r != nil {
		return r.Keys()
	}
	return wireguard.Key{}, nil
}

// public is what others have to know.
func (c *cipher) public() api.WireGuard {
	c.mu.Lock()
	ring, why := c.ring, c.why
	c.mu.Unlock()
	if ring == nil {
		return api.WireGuard{Error: why}
	}
	w := ring.Public()
	if err := c.m.net.Broken(); err != nil {
		w.Error = err.Error()
	}
	return w
}

// run changes keys when it is time, until ctx ends.
func (c *cipher) run(ctx context.Context) error {
	tick := time.NewTicker(stepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		c.step(ctx)
		if now := c.public(); now != c.told {
			c.told = now
			select {
			case c.changed <- struct{}{}:
			default:
			}
		}
	}
}

func (c *cipher) step(ctx context.Context) {
	s, ring := c.m.state.Load(), c.current()
	if s == nil || ring == nil {
		return
	}
	changed, err := ring.Step(changeOfKeys(s, time.Now()))
	if err == nil && changed {
		err = c.m.net.Rekey(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.m.log.Error("can not change the key for encrypted networks; it is tried again", zap.Error(err))
	}
}

// changeOfKeys is what the managers' word means for this node's keys. Nodes take
// turns by their IDs.
func changeOfKeys(s *api.NodeState, now time.Time) wireguard.Facts {
	f := wireguard.Facts{Now: now, Known: s.Node.WireGuard, Since: s.Node.WireGuardSince, Older: s.WireGuardFrom, AllUp: true}
	f.Known.Error = ""
	for id, p := range s.Peers {
		f.AllUp = f.AllUp && !p.Down
		f.Wait = f.Wait || p.WireGuard.Next != "" && id < s.Node.ID
	}
	return f
}

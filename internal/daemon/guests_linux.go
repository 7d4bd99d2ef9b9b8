package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/api"
)

// guests looks after containers on the cluster's networks that are no tasks: that
// who is connected has an address of the managers', and that they get back what
// nobody has any more. That attachable networks are there on the engine is the
// worker's matter.
type guests struct {
	member  *member
	release chan place
	joined  chan place
	idle    map[place]time.Time // since when an address of ours has no container
}

// place is an address on a network.
type place struct {
	NetworkID string
	Addr      netip.Addr
}

func newGuests(m *member) *guests {
	return &guests{member: m, release: make(chan place, releases), joined: make(chan place, releases), idle: map[place]time.Time{}}
}

const (
	// releases is how many addresses may wait to be given back, or to be named.
	// What does not fit, or does not arrive, is found by the next look.
	releases = 256
	// guestsEvery is how often this node looks for addresses without a container.
	guestsEvery = 15 * time.Second
	// nameEvery is how often the engine is asked for the name of a container that
	// it is starting: it lists it when that is done.
	nameEvery = 100 * time.Millisecond
	// guestPatience is how long an address may be without one: the engine asks
	// for it some time before the container has it.
	guestPatience = time.Minute
	// known is how long a container waits for this node to hear what its
	// network needs. It may go without: the rest comes a moment later.
	known = 2 * time.Second
)

// Ask implements plugin.Addresses. A task names the address that it has; the driver
// has seen to it that no container here has it already. Until
// the managers have been heard of, which address is a task's is not known here,
// and whoever names one is believed: containers start again while there is no
// manager.
func (g *guests) Ask(ctx context.Context, networkID string, want netip.Addr) (netip.Prefix, error) {
	if want.IsValid() {
		s := g.member.state.Load()
		if s == nil {
			return netip.PrefixFrom(want, want.BitLen()), nil
		}
		// A task that is over does not start again. Whether its address is free
		// is the managers' to say.
		if t := taskAt(s, place{networkID, want}); t != nil && !api.Terminal(t.Status.State) {
			for _, at := range t.Networks {
				if at.NetworkID == networkID {
					return at.Addr, nil
				}
			}
		}
	}
	if g.member.locked != nil {
		return netip.Prefix{}, errdefs.ErrUnavailable.WithMessage("this manager is locked: no address can be had for the container before \"shoal swarm unlock\"")
	}
	body, err := json.Marshal(place{networkID, want})
	if err != nil {
		return netip.Prefix{}, err
	}
	var given netip.Prefix
	if err := g.member.askLeader(ctx, pathAttach, body, &given); err != nil {
		return netip.Prefix{}, fmt.Errorf("no address for the container: %w", err)
	}
	g.settle(ctx, given.Addr())
	return given, nil
}

// settle waits until this node knows that it has a guest at an address.
func (g *guests) settle(ctx context.Context, addr netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, known)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if s := g.member.state.Load(); s != nil {
			for p := range guestsOf(s) {
				if p.Addr == addr {
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Release implements plugin.Addresses.
func (g *guests) Release(networkID string, addr netip.Addr) {
	select {
	case g.release <- place{networkID, addr}:
	default:
	}
}

// Joined implements plugin.Addresses.
func (g *guests) Joined(networkID string, addr netip.Addr) {
	select {
	case g.joined <- place{networkID, addr}:
	default:
	}
}

// WayOut implements plugin.Addresses. A task leaves by the first of its networks
// that has a way out: the ingress network, if it publishes ports. That is where
// clients of published ports are sent to, and where answers have to come from.
func (g *guests) WayOut(networkID string, addr netip.Addr) (yes, known bool) {
	s := g.member.state.Load()
	if s == nil {
		return false, false
	}
	t := taskAt(s, place{networkID, addr})
	if t == nil {
		return false, false
	}
	for _, at := range t.Networks {
		if n := s.Networks[at.NetworkID]; n != nil && !n.Spec.Internal {
			return at.NetworkID == networkID, true
		}
	}
	return t.Networks[0].NetworkID == networkID, true // to the host alone
}

// Stranger tells whether a container that has an address is none of this node's
// tasks. Before the managers are heard nobody is taken for one.
func (g *guests) Stranger(networkID string, addr netip.Addr) bool {
	s := g.member.state.Load()
	return s != nil && taskAt(s, place{networkID, addr}) == nil
}

// taskAt gives the task of this node that has an address, or if none has, one
// that had it and is over; nil if there is neither.
func taskAt(s *api.NodeState, p place) (had *api.Task) {
	for _, a := range s.Tasks {
		for _, at := range a.Task.Networks {
			if at.NetworkID != p.NetworkID || at.Addr.Addr() != p.Addr {
				continue
			}
			if !api.Terminal(a.Task.Status.State) {
				return a.Task
			}
			had = a.Task
		}
	}
	return had
}

// guestsOf gives the places that this node holds for containers that are no
// tasks, and what these are called.
func guestsOf(s *api.NodeState) map[place]*api.Remote {
	own := map[place]*api.Remote{}
	if s.Node == nil {
		return own
	}
	for _, r := range s.Remotes {
		for _, at := range r.Networks {
			if r.NodeID == s.Node.ID {
				own[place{at.NetworkID, at.Addr.Addr()}] = r
			}
		}
	}
	return own
}

// run keeps things so until ctx ends.
func (g *guests) run(ctx context.Context) error {
	tick := time.NewTicker(guestsEvery)
	defer tick.Stop()
	fresh := map[place]time.Time{} // who has joined since then, and has no name yet
	for {
		var soon <-chan time.Time
		if len(fresh) > 0 {
			soon = time.After(nameEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case p := <-g.release:
			if s := g.member.state.Load(); s != nil && guestsOf(s)[p] != nil {
				g.giveBack(ctx, p)
			}
		case p := <-g.joined:
			if s := g.member.state.Load(); s != nil && taskAt(s, p) == nil {
				fresh[p] = time.Now()
			}
		case <-soon:
			for p, since := range fresh {
				if g.name(ctx, p, nil) || time.Since(since) > guestsEvery {
					delete(fresh, p)
				}
			}
		case <-tick.C:
			g.collect(ctx)
		}
	}
}

// collect gives back addresses that no container has: it went while no manager
// could be told, or never came.
func (g *guests) collect(ctx context.Context) {
	s := g.member.state.Load()
	if s == nil {
		return
	}
	used, err := g.member.plugin.InUse()
	if err != nil {
		g.member.log.Warn("can not see which addresses containers have; none is given back now", zap.Error(err))
		return
	}
	now := time.Now()
	held := guestsOf(s)
	maps.DeleteFunc(g.idle, func(p place, _ time.Time) bool { return held[p] == nil || used[p.Addr] })
	for p, r := range held {
		since, ok := g.idle[p]
		switch {
		case used[p.Addr]:
			g.name(ctx, p, r.Names) // it may have another by now
		case !ok:
			g.idle[p] = now
		case now.Sub(since) >= guestPatience:
			g.giveBack(ctx, p)
		}
	}
}

func (g *guests) giveBack(ctx context.Context, p place) {
	body, err := json.Marshal(p)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		err = g.member.askLeader(ctx, pathDetach, body, &struct{}{})
	}
	if err != nil && ctx.Err() == nil {
		g.member.log.Warn("can not give an address back now; it is tried again", zap.Stringer("address", p.Addr), zap.Error(err))
	}
}

// name tells the managers what a guest is called, where they know it otherwise,
// and whether that is done.
func (g *guests) name(ctx context.Context, p place, known []string) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	names, err := g.member.engine.NamesAt(ctx, p.NetworkID, p.Addr)
	if err == nil && len(names) > 0 && !slices.Equal(names, known) {
		var body []byte
		if body, err = json.Marshal(named{p, names}); err == nil {
			err = g.member.askLeader(ctx, pathName, body, &struct{}{})
		}
	}
	if err != nil {
		g.member.log.Debug("can not tell a container's name now; it is tried again", zap.Stringer("address", p.Addr), zap.Error(err))
	}
	return err == nil && len(names) > 0
}

// named is a place and what its container is called.
type named struct {
	place
	Names []string
}

// callTime bounds one word to the leader.
const callTime = 5 * time.Second

func (m *manager) answerAttach(r *http.Request) (any, error) {
	nodeID, p, err := placeOf(r)
	if err != nil {
		return nil, err
	}
	return m.control.Attach(r.Context(), nodeID, p.NetworkID, p.Addr)
}

func (m *manager) answerDetach(r *http.Request) (any, error) {
	nodeID, p, err := placeOf(r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, m.control.Detach(r.Context(), nodeID, p.NetworkID, p.Addr)
}

func (m *manager) answerName(r *http.Request) (any, error) {
	nodeID, err := identify(r)
	if err != nil {
		return nil, err
	}
	var n named
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		return nil, invalid("unreadable name of a container: %v", err)
	}
	return struct{}{}, m.control.NameGuest(r.Context(), nodeID, n.NetworkID, n.Addr, n.Names)
}

func placeOf(r *http.Request) (nodeID string, p place, err error) {
	if nodeID, err = identify(r); err != nil {
		return "", p, err
	}
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return "", p, invalid("unreadable request for an address: %v", err)
	}
	return nodeID, p, nil
}

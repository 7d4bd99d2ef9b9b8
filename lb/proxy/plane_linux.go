// Package proxy serves the published ports of an lb.Table in userspace: where
// the kernel's table is not wanted, and for services that ask for something the
// kernel can not do.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb"
)

// retryEvery is how often a port is tried again that another process holds.
const retryEvery = time.Second

// Plane serves published ports. It lives as long as the process does: a state
// may come and go, and what is open stays open.
type Plane struct {
	log     *zap.Logger
	compile func(*api.NodeState, map[string]bool) lb.Table
	serve   func(lb.Port) bool

	mu      sync.Mutex // orders Set, Mute and Clear
	state   *api.NodeState
	muted   map[string]bool
	ports   map[key]server
	refused map[key]error // why a port is not served
	closed  bool

	loops   *loops         // carry TCP; none before the first port
	buffers sync.Pool      // of maxDatagram bytes
	work    sync.WaitGroup // every other goroutine of the plane
}

type key struct {
	protocol string
	port     uint16
}

func (k key) String() string { return fmt.Sprintf("%s port %d", k.protocol, k.port) }

// server is one open port.
type server interface {
	// set replaces the backends. When it returns, nobody is connected any more
	// to one that left; those who are already stay.
	set(p lb.Port, from netip.Addr)
	// close takes no more clients. TCP connections that are open stay.
	close()
}

// New wires a plane that serves some of the ports of a table, which compile makes
// of a state and of the nodes that are muted. Nothing is opened before Set.
func New(log *zap.Logger, compile func(*api.NodeState, map[string]bool) lb.Table, serve func(lb.Port) bool) *Plane {
	return &Plane{log: log, compile: compile, serve: serve, muted: map[string]bool{}, ports: map[key]server{}, refused: map[key]error{}, buffers: sync.Pool{New: func() any { return new([maxDatagram]byte) }}}
}

// Set serves the services of a node state. When it returns, no new connection
// goes to a task that the state does not list. A port that can not be opened is
// tried again by Run, and named by Differs.
func (p *Plane) Set(_ context.Context, state *api.NodeState) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	p.apply()
	return nil
}

// Mute stops or resumes giving new connections to the tasks of a node.
func (p *Plane) Mute(_ context.Context, nodeID string, mute bool) error {
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
	p.muted = muted
	if p.state != nil {
		p.apply()
	}
	return nil
}

// apply makes the open ports those of the state. One with nothing behind it is
// closed, so that clients are refused at once.
func (p *Plane) apply() {
	if p.closed {
		return
	}
	table := p.compile(p.state, p.muted)
	from := ownAddr(table.NodeAddr)
	wanted := map[key]bool{}
	for _, port := range table.Ports {
		if len(port.Backends) == 0 || !p.serve(port) {
			continue
		}
		k := key{port.Protocol, port.Published}
		wanted[k] = true
		s := p.ports[k]
		if s == nil {
			var err error
			if s, err = p.open(k, port, from); err != nil {
				if was := p.refused[k]; was == nil || was.Error() != err.Error() {
					p.log.Error("can not serve a published port; it is tried again", zap.Stringer("port", k), zap.Error(err))
				}
				p.refused[k] = err
				continue
			}
			p.ports[k] = s
		}
		delete(p.refused, k)
		s.set(port, from)
	}
	for k, s := range p.ports {
		if !wanted[k] {
			s.close()
			delete(p.ports, k)
		}
	}
	maps.DeleteFunc(p.refused, func(k key, _ error) bool { return !wanted[k] })
}

// Holds tells whether this plane listens on a port.
func (p *Plane) Holds(protocol string, port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports[key{protocol, port}] != nil
}

// open listens on every address of the host. The one port that can not be had
// there is that of the node's own server for names: whoever is first would keep the
// other out.
func (p *Plane) open(k key, port lb.Port, from netip.Addr) (server, error) {
	if k.port == netkit.NamesPort {
		return nil, fmt.Errorf("containers ask for names on %s:%d, and a port served in userspace takes every address; "+
			"publish another port, or let the node serve it with nftables", netkit.Gateway, k.port)
	}
	switch k.protocol {
	case "tcp":
		return p.openTCP(port, from)
	case "udp":
		return p.openUDP(port, from)
	}
	return nil, errors.New("only tcp and udp can be served in userspace")
}

// Run tries again what could not be opened, until ctx ends. Then it lets go of
// everything: clients of this plane can not outlive the process.
func (p *Plane) Run(ctx context.Context) error {
	again := time.NewTicker(retryEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.closed = true
			p.drop()
			if p.loops != nil {
				p.loops.stop()
				p.loops = nil
			}
			p.mu.Unlock()
			p.work.Wait()
			return ctx.Err()
		case <-again.C:
			p.mu.Lock()
			if len(p.refused) > 0 {
				p.apply()
			}
			p.mu.Unlock()
		}
	}
}

// Clear ends serving, with all that is open.
func (p *Plane) Clear(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.muted, p.refused = nil, map[string]bool{}, map[key]error{}
	p.drop()
	return nil
}

func (p *Plane) drop() {
	for k, s := range p.ports {
		s.close()
		delete(p.ports, k)
	}
	if p.loops != nil {
		p.loops.each((*loop).cut)
	}
}

// Differs says which ports are not served and why, or "".
func (p *Plane) Differs() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for k, err := range p.refused {
		out = append(out, k.String()+": "+err.Error())
	}
	slices.Sort(out)
	return strings.Join(out, "; "), nil
}

// ownAddr is the address that tasks see this node by, if the host has it: one
// that the other node can not take for its own. The zero value leaves the choice
// to the kernel.
func ownAddr(node netip.Addr) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == node {
				return node
			}
		}
	}
	return netip.Addr{}
}

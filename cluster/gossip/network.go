package gossip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"shoal/cluster"
	"shoal/cluster/ca"
)

// Port is what gossip needs of cluster.Port.
type Port interface {
	Ready() <-chan struct{}
	Addr() net.Addr
	Listener(protocol string) net.Listener
	Dial(ctx context.Context, addr, protocol string, expect ca.Peer) (*tls.Conn, error)
}

// network is what reaches other hosts; the tests have one that loses things.
type network interface {
	// Read waits for a packet.
	Read(buf []byte) (int, netip.AddrPort, error)
	// Write sends one.
	Write(packet []byte, to netip.AddrPort) error
	// Shout sends one to everybody on the segments this host is on.
	Shout(packet []byte)
	// Accept waits for a stream from a node of the cluster.
	Accept() (net.Conn, error)
	// Dial opens one to the node of that ID.
	Dial(ctx context.Context, addr netip.AddrPort, nodeID string) (net.Conn, error)
	// Knock reports whether a host's kernel answers at an address at all,
	// whatever has become of the daemon.
	Knock(ctx context.Context, addr netip.AddrPort) bool
	// Close ends Read and Accept.
	Close() error
}

// socketBuffer holds the packets of a moment in which the daemon gets no
// processor, so that starvation does not look like loss.
const socketBuffer = 2 << 20

// portNetwork puts packets on UDP beside the cluster's TCP port, same number.
type portNetwork struct {
	port     Port
	listener net.Listener
	udp      *net.UDPConn
	number   uint16
	once     sync.Once
}

func openPort(ctx context.Context, port Port) (network, error) {
	select {
	case <-port.Ready():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tcp, err := netip.ParseAddrPort(port.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("find the number of the cluster's port: %w", err)
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp", tcp.String())
	if err != nil {
		return nil, fmt.Errorf("listen for gossip: %w", err)
	}
	udp := conn.(*net.UDPConn)
	_ = udp.SetReadBuffer(socketBuffer) // the kernel's limit may be lower: fine
	return &portNetwork{port: port, listener: port.Listener(cluster.ProtocolGossip), udp: udp, number: tcp.Port()}, nil
}

func (n *portNetwork) Read(buf []byte) (int, netip.AddrPort, error) {
	size, from, err := n.udp.ReadFromUDPAddrPort(buf)
	return size, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

func (n *portNetwork) Write(packet []byte, to netip.AddrPort) error {
	_, err := n.udp.WriteToUDPAddrPort(packet, to)
	return err
}

// Shout uses every broadcast address of this host and, in IPv6, the group of
// all nodes of each link. A daemon bound to one address does not hear others'
// shouts; but then its address is in its settings and does not move by itself.
func (n *portNetwork) Shout(packet []byte) {
	links, err := net.Interfaces()
	if err != nil {
		return
	}
	for _, link := range links {
		if link.Flags&net.FlagUp == 0 || link.Flags&(net.FlagBroadcast|net.FlagMulticast) == 0 {
			continue
		}
		addrs, err := link.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if to, ok := everybody(a, link.Name); ok {
				_ = n.Write(packet, netip.AddrPortFrom(to, n.number))
			}
		}
	}
}

// everybody is the address of all hosts that share a network with this one.
func everybody(a net.Addr, link string) (netip.Addr, bool) {
	ipnet, ok := a.(*net.IPNet)
	if !ok {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(ipnet.IP)
	ip = ip.Unmap()
	ones, bits := ipnet.Mask.Size()
	switch {
	case !ok || ip.IsLoopback() || bits-ones < 2:
		return netip.Addr{}, false
	case ip.Is6():
		return netip.IPv6LinkLocalAllNodes().WithZone(link), ip.IsLinkLocalUnicast()
	}
	all := ip.As4()
	for i := range all {
		all[i] |= ^ipnet.Mask[len(ipnet.Mask)-4+i]
	}
	return netip.AddrFrom4(all), true
}

func (n *portNetwork) Accept() (net.Conn, error) { return n.listener.Accept() }

func (n *portNetwork) Dial(ctx context.Context, addr netip.AddrPort, nodeID string) (net.Conn, error) {
	return n.port.Dial(ctx, addr.String(), cluster.ProtocolGossip, ca.Peer{NodeID: nodeID})
}

// Knock begins a TCP connection. Accepted or refused, it was the kernel that
// answered: it accepts for a daemon that is stopped or starved, and refuses for
// one that is gone. Unlike ICMP's refusals of UDP, these are not rationed.
func (n *portNetwork) Knock(ctx context.Context, addr netip.AddrPort) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0) // leave nothing behind
		_ = conn.Close()
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

func (n *portNetwork) Close() error {
	n.once.Do(func() {
		_ = n.listener.Close()
		_ = n.udp.Close()
	})
	return nil
}

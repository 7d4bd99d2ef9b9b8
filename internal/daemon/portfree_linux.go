package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/containerd/errdefs"

	"shoal/internal/netkit"
)

// portFree refuses to make a node that could not listen, and says who is in its
// way.
func portFree(addr string) error {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return portTaken("tcp", addr, err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return portTaken("udp", addr, err)
	}
	return udp.Close()
}

func portTaken(protocol, addr string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return invalid("listen address %s: %v", addr, err)
	}
	owner := netkit.Owner{}
	if a, err := netip.ParseAddrPort(addr); err == nil {
		owner, _, _ = netkit.PortOwner(protocol, a.Port()) // who it is only makes the message better
	}
	return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf(
		"listen address %s: %s has the %s port already; end it, or choose another port with --listen-addr", addr, owner, protocol))
}

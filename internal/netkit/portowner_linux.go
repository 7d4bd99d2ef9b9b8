package netkit

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Owner is who holds a port of this host.
type Owner struct {
	Process string // name; "" when it can not be known
	PID     int
}

// String names the owner for a message: nginx (pid 123).
func (o Owner) String() string {
	if o.Process == "" {
		return "another process"
	}
	return fmt.Sprintf("%s (pid %d)", o.Process, o.PID)
}

// Socket states of /proc/net: TCP's LISTEN, and what a UDP socket without a
// peer has.
const (
	tcpListen = "0A"
	udpBound  = "07"
)

// PortOwner finds the process that receives what comes to a port of this host
// (tcp, udp or sctp); ok is false when there is none. Sockets on 127.0.0.1 count too:
// publishing takes the port on every address but the other ones of loopback.
func PortOwner(protocol string, port uint16) (o Owner, ok bool, err error) {
	inodes, err := listeners(protocol, port)
	if err != nil || len(inodes) == 0 {
		return Owner{}, false, err
	}
	return processOf(inodes), true, nil
}

// listeners gives the inodes of the sockets that hold a port.
func listeners(protocol string, port uint16) ([]string, error) {
	state := map[string]string{"tcp": tcpListen, "udp": udpBound}[protocol]
	if state == "" {
		return nil, nil // the kernel's list of SCTP endpoints depends on a module
	}
	locals, err := localAddrs()
	if err != nil {
		return nil, err
	}
	var inodes []string
	for _, file := range []string{protocol, protocol + "6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file) // a thread may be in a namespace of its own
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != state {
				continue
			}
			a, ok := socketAddr(f[1])
			if !ok || a.Port() != port {
				continue
			}
			if at := a.Addr().Unmap(); at.Is4() && at.IsLoopback() && at != Localhost {
				continue
			}
			// IPv6's own addresses are no matter: the mesh is IPv4. A wildcard
			// of IPv6 takes IPv4 as well.
			if a.Addr().IsUnspecified() || locals[a.Addr().Unmap()] {
				inodes = append(inodes, f[9])
			}
		}
	}
	return inodes, nil
}

func localAddrs() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if p, ok := Prefix(n); ok {
				out[p.Addr()] = true
			}
		}
	}
	return out, nil
}

// socketAddr reads an address as /proc/net has it: words in the machine's byte
// order, hexadecimal.
func socketAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a, uint16(p)), ok && err == nil
}

// processOf finds who has one of the sockets open.
func processOf(inodes []string) Owner {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return Owner{}
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // it ended, or closed the file
		}
		inode, ok := strings.CutPrefix(target, "socket:[")
		if !ok || !slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
		name, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		return Owner{Process: strings.TrimSpace(string(name)), PID: pid}
	}
	return Owner{}
}

package netkit

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
)

// A probe is a UDP packet that tells whether a port of another host can be
// reached, whoever has it: the daemon, or the kernel for its tunnels. The other
// host hears it on a raw socket, which gets a copy of what its firewall let in.
// To the owner of the port it is noise: VXLAN drops what has no flags, and
// gossip what it can not open.
//
// The layout is that of VXLAN's header, a magic word, the number, the way.
const (
	probeHeader = 8
	probeSize   = probeHeader + 4 + probeID + 1
	probeID     = 16
	udpHeader   = 8
)

var probeMagic = [4]byte{'s', 'h', 'l', '?'}

// ProbeID tells the probes of one examination from others'.
type ProbeID [probeID]byte

// NewProbeID draws one that nobody can guess.
func NewProbeID() (id ProbeID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// Probes sends and hears probes.
type Probes struct {
	in   *net.IPConn
	out  *net.UDPConn
	done chan struct{}

	mu    sync.Mutex
	heard map[probe]bool
}

type probe struct {
	id  ProbeID
	way byte
}

// OpenProbes begins to listen. It needs CAP_NET_RAW.
func OpenProbes(ctx context.Context) (*Probes, error) {
	in, err := new(net.ListenConfig).ListenPacket(ctx, "ip4:udp", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	out, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", "0.0.0.0:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for probes: %w", err), in.Close())
	}
	p := &Probes{in: in.(*net.IPConn), out: out.(*net.UDPConn), done: make(chan struct{}), heard: map[probe]bool{}}
	if err := p.filter(); err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	go p.listen()
	return p, nil
}

// filter keeps all other UDP of this host away from us.
func (p *Probes) filter() error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadMemShift{Off: 0}, // the length of the IP header
		bpf.LoadIndirect{Off: udpHeader + probeHeader, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(probeMagic[:]), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = ipv4.NewPacketConn(p.in).SetBPF(program)
	}
	if err != nil {
		return fmt.Errorf("filter probes: %w", err)
	}
	return nil
}

func (p *Probes) listen() {
	defer close(p.done)
	buf := make([]byte, 256)
	for {
		n, _, err := p.in.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != udpHeader+probeSize {
			continue
		}
		b := buf[udpHeader+probeHeader+len(probeMagic) : n]
		p.mu.Lock()
		if len(p.heard) < maxHeard {
			p.heard[probe{ProbeID(b), b[probeID]}] = true
		}
		p.mu.Unlock()
	}
}

// maxHeard bounds what strangers can make us remember.
const maxHeard = 4096

// Send sends one probe; way tells ports apart.
func (p *Probes) Send(to netip.AddrPort, id ProbeID, way byte) {
	b := make([]byte, probeHeader, probeSize)
	b = append(b, probeMagic[:]...)
	b = append(b, id[:]...)
	_, _ = p.out.WriteToUDPAddrPort(append(b, way), to) // lost, like any packet may be
}

// Heard tells whether a probe has come in.
func (p *Probes) Heard(id ProbeID, way byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard[probe{id, way}]
}

// Close ends listening.
func (p *Probes) Close() {
	_ = p.in.Close()
	_ = p.out.Close()
	<-p.done
}

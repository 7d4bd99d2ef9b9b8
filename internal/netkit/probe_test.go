//go:build linux

package netkit_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"shoal/internal/netkit"
)

// TestProbes sends to a port that nobody has, as that of a tunnel looks, and to
// one that somebody has.
func TestProbes(t *testing.T) {
	owner, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close() }()
	p, err := netkit.OpenProbes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	id, other := netkit.NewProbeID(), netkit.NewProbeID()
	if id == other {
		t.Fatal("two examinations have one number")
	}
	nobody := netip.MustParseAddrPort("127.0.0.1:4789")
	for way, to := range map[byte]netip.AddrPort{1: owner.LocalAddr().(*net.UDPAddr).AddrPort(), 2: nobody} {
		deadline := time.After(30 * time.Second)
		for !p.Heard(id, way) {
			p.Send(to, id, way)
			select {
			case <-deadline:
				t.Fatalf("probe to %s was not heard", to)
			case <-time.After(time.Millisecond):
			}
		}
	}
	if p.Heard(other, 1) || p.Heard(id, 3) {
		t.Error("heard what nobody sent")
	}
}

func TestProbesIgnoreStrangers(t *testing.T) {
	p, err := netkit.OpenProbes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("udp4", "127.0.0.1:4789")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, junk := range [][]byte{nil, make([]byte, 29), make([]byte, 9000), []byte("\x00\x00\x00\x00\x00\x00\x00\x00shl?short")} {
		_, _ = c.Write(junk) // nobody listens: refused or not, it is no probe
	}
	// What came before has been seen when this has.
	id := netkit.NewProbeID()
	deadline := time.Now().Add(30 * time.Second)
	for !p.Heard(id, 1) {
		if time.Now().After(deadline) {
			t.Fatal(errors.New("junk kept a probe from being heard"))
		}
		p.Send(netip.MustParseAddrPort("127.0.0.1:4789"), id, 1)
	}
	if p.Heard(netkit.ProbeID{}, 0) {
		t.Error("junk counted as a probe")
	}
}

// TestLacking runs where the kernel has everything, as other tests need it too.
func TestLacking(t *testing.T) {
	before, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	missing, err := netkit.Lacking()
	if err != nil || len(missing) > 0 {
		t.Errorf("%v, %v", missing, err)
	}
	after, err := net.Interfaces()
	if err != nil || len(after) != len(before) {
		t.Errorf("trying the kernel left something behind: %v, %v", after, err)
	}
}

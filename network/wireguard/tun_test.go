//go:build linux

package wireguard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/device"

	"shoal/internal/netkit/nettest"
)

const deviceMTU = 1420

// end is a host with a device, and a tunnel that leaves by it.
type end struct {
	*nettest.NS
	t      *testing.T
	device *tunDevice
}

func newEnd(t *testing.T, offloads, n int) *end {
	t.Helper()
	e := &end{NS: nettest.NewNS(t), t: t}
	e.Must(func() error {
		d, err := createTun("wg", deviceMTU, offloads)
		if err == nil {
			e.device = d.(*tunDevice)
		}
		return err
	})
	t.Cleanup(func() { _ = e.device.Close() })
	go func() { // the library waits for it
		for range e.device.Events() {
		}
	}()
	e.sh(fmt.Sprintf(`ip -6 addr add fe80::%d/64 dev wg nodad; ip link set wg up
		ip link add v type vxlan id 7 dstport 4789 local fe80::%d remote fe80::%d dev wg
		ip link set v mtu 1350 up; ip addr add 10.9.0.%d/24 dev v`, n, n, 3-n, n))
	return e
}

func (e *end) sh(script string) {
	e.t.Helper()
	e.Must(func() error {
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return nil
	})
}

// mean is how long packets are that the kernel passed to the device, and from it.
func (e *end) mean() (sent, received uint64) {
	e.t.Helper()
	e.Must(func() error {
		link, err := netlink.LinkByName("wg")
		if err == nil {
			s := link.Attrs().Statistics
			sent, received = s.TxBytes/max(s.TxPackets, 1), s.RxBytes/max(s.RxPackets, 1)
		}
		return err
	})
	return sent, received
}

// carry takes packets from one device to another until there is none any more,
// as WireGuard does.
func carry(from, to *tunDevice) error {
	bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, device.MaxMessageSize)
	}
	const offset = device.MessageTransportHeaderSize
	for {
		n, err := from.Read(bufs, sizes, offset)
		if err != nil {
			return err
		}
		var out [][]byte
		for i := range n {
			out = append(out, bufs[i][:offset+sizes[i]])
		}
		_, _ = to.Write(out, offset) // it fails while the other end comes or goes
	}
}

// TestTunCarries has two kernels speak through devices, with large packets and
// as kernels do that hand over none.
func TestTunCarries(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for name, offloads := range map[string][2]int{
		"large packets":       {largePackets, largePackets},
		"older kernels":       {0, 0},
		"to an older kernel":  {largePackets, 0},
		"of an older kernel":  {0, largePackets},
		"unknown to a kernel": {1 << 20, largePackets},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := newEnd(t, offloads[0], 1), newEnd(t, offloads[1], 2)
			var there, back error
			var carried sync.WaitGroup
			carried.Go(func() { there = carry(one.device, two.device) })
			carried.Go(func() { back = carry(two.device, one.device) })

			data := content(16 << 20)
			ln := two.Listen("10.9.0.2:80")
			go func() {
				var conn net.Conn
				if err := one.Do(func() (err error) { conn, err = net.Dial("tcp4", "10.9.0.2:80"); return err }); err != nil {
					_ = ln.Close()
					return
				}
				_, _ = conn.Write(data)
				_ = conn.Close()
			}()
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // or a fault is for ever
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %d arrive, or others: %v", len(got), len(data), err)
			}
			sent, _ := one.mean()
			_, received := two.mean()
			t.Logf("packets have %d bytes on the way out and %d on the way in", sent, received)
			fromLarge, toLarge := one.device.header == tunnelHeader, two.device.header == tunnelHeader
			if (sent > deviceMTU) != fromLarge {
				t.Errorf("packets have %d bytes on the way out, and the kernel has them large: %t", sent, fromLarge)
			}
			// How many come together from one that sends them small is chance.
			if received > deviceMTU != toLarge && fromLarge {
				t.Errorf("packets have %d bytes on the way in, and the kernel has them large: %t", received, toLarge)
			}

			one.sh("ip link del wg")
			_ = two.device.Close()
			carried.Wait()
			if !errors.Is(there, os.ErrClosed) || !errors.Is(back, os.ErrClosed) {
				t.Errorf("it ends with %v and %v", there, back)
			}
		})
	}
}

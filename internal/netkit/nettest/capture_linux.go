package nettest

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Capture is what goes over the interfaces of a namespace.
type Capture struct {
	t    testing.TB
	file *os.File
	done chan struct{}

	mu    sync.Mutex
	heard []byte
}

// Listen begins to listen to an interface of the namespace that the caller is
// in, or to all that are there for an empty name, until the test ends.
func Listen(t testing.TB, iface string) *Capture {
	t.Helper()
	c, err := Open(t, iface)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Open is Listen for goroutines that can not end the test.
func Open(t testing.TB, iface string) (*Capture, error) {
	at := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}
	if iface != "" {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return nil, fmt.Errorf("listen to %s: %w", iface, err)
		}
		at.Ifindex = link.Attrs().Index
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // nothing before it is bound
	if err == nil {
		err = unix.Bind(fd, at)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on the wire: %w", err)
	}
	c := &Capture{t: t, file: os.NewFile(uintptr(fd), "wire"), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 1<<17)
		for {
			n, err := c.file.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.heard = append(c.heard, buf[:n]...)
			c.mu.Unlock()
		}
	}()
	t.Cleanup(c.stop)
	return c, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (c *Capture) stop() {
	_ = c.file.Close()
	<-c.done
}

// Heard tells whether some words were on the wire so far.
func (c *Capture) Heard(words string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.heard, []byte(words))
}

// Without ends listening. It wants none of some words to have been on the wire,
// and another to have, which shows that it was listened to.
func (c *Capture) Without(present string, absent ...string) {
	c.t.Helper()
	c.stop()
	if !c.Heard(present) {
		c.t.Errorf("%q was not seen on the wire: the capture proves nothing", present)
	}
	for _, word := range absent {
		if c.Heard(word) {
			c.t.Errorf("%q is in the clear on the wire", word)
		}
	}
}

package proxy

import (
	"net"
	"sync"
)

// connections are both ends of every TCP connection of a plane that is open,
// also of ports that are closed by now.
type connections struct {
	mu   sync.Mutex
	era  int // counts cuts
	open map[*net.TCPConn]struct{}
}

// now gives the era that a port is opened in.
func (c *connections) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.era
}

// hold keeps a connection for the next cut. One of an era that has been cut
// already comes too late, and is to be closed.
func (c *connections) hold(conn *net.TCPConn, era int) (release func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if era != c.era {
		return nil, false
	}
	if c.open == nil {
		c.open = map[*net.TCPConn]struct{}{}
	}
	c.open[conn] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, conn)
	}, true
}

// cut closes everything that is open, and what was about to be.
func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.era++
	for conn := range c.open {
		_ = conn.Close()
	}
}

package cluster

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"shoal/cluster/ca"
)

// FuzzPort is everything that a stranger can send to the port: bare bytes, or
// bytes inside TLS after any list of protocols. None of it reaches raft or
// gossip, and no connection is forgotten.
func FuzzPort(f *testing.F) {
	home := newAuthority(f, "c1")
	p := NewPort(PortConfig{Credentials: home.issue("m1", ca.RoleManager, time.Now())})
	config := p.cfg.Credentials.ServerConfig(ProtocolRaft, ProtocolHTTP, ProtocolGossip)
	f.Add("", []byte{})
	f.Add("", []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add("", []byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3})
	f.Add("raft", []byte{0, 0x80})
	f.Add("gossip,raft,h2", []byte("x"))
	f.Add("h2", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, protocols string, data []byte) {
		here, there := net.Pipe()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			defer there.Close()
			_ = there.SetDeadline(time.Now().Add(time.Second))
			c := net.Conn(there)
			if protocols != "" {
				secret := tls.Client(there, &tls.Config{InsecureSkipVerify: true, NextProtos: strings.Split(protocols, ",")})
				if secret.Handshake() != nil {
					return
				}
				c = secret
			}
			go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the pipe
			_, _ = c.Write(data)
		}()
		leave := p.strangers.enter(here.RemoteAddr(), func() { _ = here.Close() })
		p.handshake(context.Background(), here, leave, config)
		for name, l := range p.listeners {
			select {
			case c := <-l.conns:
				if name != ProtocolHTTP {
					t.Errorf("a stranger speaks %s", name)
				}
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			default:
			}
		}
		<-sent
		if len(p.open) != 0 || p.strangers.all.Len() != 0 {
			t.Errorf("%d connections and %d strangers are left", len(p.open), p.strangers.all.Len())
		}
	})
}

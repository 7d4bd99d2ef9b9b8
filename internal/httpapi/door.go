package httpapi

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// door is a listener whose connections are those of clients with a certificate. It
// shows them out again when that is worth nothing any more.
type door struct {
	net.Listener
	guard  Guard
	config *tls.Config
	log    *zap.Logger
	let    chan net.Conn
	closed chan struct{}
	once   sync.Once
	inside sync.WaitGroup // whoever works for the door

	mu        sync.Mutex
	shut      bool
	strangers list.List // of net.Conn, oldest first
	guests    map[*guest]bool
}

// guest is what lies below the TLS of a connection, and so hears of its end. What
// the server gets is the bare TLS connection: it tells requests by nothing else.
type guest struct {
	net.Conn
	door    *door
	through *tls.Conn
}

// lookEvery is how often the certificates of those inside are looked at: a second
// after one has ended, or the cluster's root was rotated, whatever its client still
// had open is closed, a command in a container as well.
const lookEvery = time.Second

func newDoor(l net.Listener, g Guard, look time.Duration, log *zap.Logger) *door {
	d := &door{
		Listener: l, guard: g, log: log.Named("door"),
		let: make(chan net.Conn), closed: make(chan struct{}), guests: map[*guest]bool{},
	}
	d.config = &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: clientSuites,
		NextProtos:   []string{"http/1.1"}, // connections are taken over, for attach and exec
		ClientAuth:   tls.RequireAnyClientCert,
		// Not by the library, which would ask for roots when the daemon starts.
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := g.VerifyClient(cs.PeerCertificates)
			return err
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			var local net.IP
			if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
				local = a.IP
			}
			return g.APICertificate(hello.ServerName, local)
		},
		SessionTicketsDisabled: true, // a resumed session would bring yesterday's certificate
	}
	d.inside.Go(d.accept)
	d.inside.Go(func() { d.look(look) })
	return d
}

func (d *door) accept() {
	for {
		conn, err := d.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Warn("can not accept a connection to the API", zap.Error(err))
			select {
			case <-time.After(time.Second): // such as too many open files
				continue
			case <-d.closed:
				return
			}
		}
		d.inside.Go(func() { d.handshake(conn) })
	}
}

func (d *door) handshake(conn net.Conn) {
	leave, ok := d.enter(conn)
	if !ok {
		_ = conn.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	g := &guest{Conn: conn, door: d}
	g.through = tls.Server(g, d.config)
	err := g.through.HandshakeContext(ctx)
	leave()
	if err != nil {
		d.log.Debug("a connection to the API is refused", zap.Stringer("from", conn.RemoteAddr()), zap.Error(err))
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil {
			_ = plain.Conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(plain.Conn, plainRefusal) // for people who look at what it says
		}
		_ = conn.Close()
		return
	}
	d.mu.Lock()
	d.guests[g] = true
	d.mu.Unlock()
	select {
	case d.let <- g.through:
	case <-d.closed:
		_ = g.Close()
	}
}

const plainRefusal = "HTTP/1.0 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" +
	`{"message":"this port speaks TLS only, with a client certificate: get one with \"shoal client-cert\" on a manager"}` + "\n"

// enter notes a connection that nobody has vouched for yet; false when it is too late.
func (d *door) enter(conn net.Conn) (leave func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return nil, false
	}
	if d.strangers.Len() >= maxStrangers {
		_ = d.strangers.Remove(d.strangers.Front()).(net.Conn).Close()
	}
	place := d.strangers.PushBack(conn)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.strangers.Remove(place)
	}, true
}

// look closes the connections of those who would not be let in any more.
func (d *door) look(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.closed:
			return
		}
		for _, g := range d.present() {
			if _, err := d.guard.VerifyClient(g.through.ConnectionState().PeerCertificates); err != nil {
				d.log.Info("a client of the API is not let in any more", zap.Stringer("from", g.RemoteAddr()), zap.Error(err))
				_ = g.Close()
			}
		}
	}
}

func (d *door) present() []*guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*guest
	for g := range d.guests {
		all = append(all, g)
	}
	return all
}

// Close is called by TLS when the server is done with the connection, or by the door.
func (g *guest) Close() error {
	g.door.mu.Lock()
	delete(g.door.guests, g)
	g.door.mu.Unlock()
	return g.Conn.Close()
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.let:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close ends what is on its way in. Those inside are the server's to close.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	err := d.Listener.Close()
	d.mu.Lock()
	d.shut = true
	for e := d.strangers.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close()
	}
	d.mu.Unlock()
	d.inside.Wait()
	return err
}

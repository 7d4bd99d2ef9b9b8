package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
)

const (
	// refusalTime is how long a refused node may take to read why.
	refusalTime = 5 * time.Second
	// lingerTime is how long a connection that ended with a TLS alert stays
	// half open: closed at once, with unread data, it would be reset, and the
	// alert lost on the way.
	lingerTime = time.Second
)

// refusals answer nodes whose certificate is good and which are refused all the
// same. They are told why, and reach nothing else: no endpoint is behind this.
type refusals struct {
	listener *protocolListener
	server   *http.Server

	mu  sync.Mutex
	why map[net.Conn]error
}

type whyKey struct{}

func newRefusals(l *protocolListener) *refusals {
	r := &refusals{listener: l, why: map[net.Conn]error{}}
	r.server = &http.Server{
		ReadHeaderTimeout: refusalTime,
		ErrorLog:          log.New(io.Discard, "", 0), // what a refused node does wrong is no news
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			r.mu.Lock()
			defer r.mu.Unlock()
			return context.WithValue(ctx, whyKey{}, r.why[c])
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				r.mu.Lock()
				defer r.mu.Unlock()
				delete(r.why, c)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			err, _ := req.Context().Value(whyKey{}).(error)
			if err == nil {
				err = errdefs.ErrPermissionDenied
			}
			w.Header().Set("Connection", "close")
			http.Error(w, err.Error(), errhttp.ToHTTP(err))
		}),
	}
	return r
}

func (r *refusals) run() { _ = r.server.Serve(r.listener) } // ends with the listener

func (r *refusals) close() {
	_ = r.listener.Close()
	_ = r.server.Close()
}

// deliver hands over a connection; an error means that it was not taken.
func (r *refusals) deliver(c *tls.Conn, why error) error {
	r.mu.Lock()
	r.why[c] = why
	r.mu.Unlock()
	err := r.listener.deliver(c)
	if err != nil {
		r.mu.Lock()
		delete(r.why, c)
		r.mu.Unlock()
		return errors.Join(why, err)
	}
	return nil
}

// linger ends our half of a connection and reads for a moment what the other
// half still sends.
func linger(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c, handshakeBytes)
}

// Transport speaks HTTP/2 to one node. Its errors say why the node has refused
// the connection, which net/http forgets.
type Transport struct {
	http http.Transport
	last atomic.Pointer[tls.Conn]
}

// NewTransport speaks over the connections that dial opens.
func NewTransport(dial func(ctx context.Context) (*tls.Conn, error)) *Transport {
	t := &Transport{}
	t.http.ForceAttemptHTTP2 = true
	t.http.IdleConnTimeout = idleTimeout
	t.http.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	t.http.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		t.last.Store(conn)
		return conn, nil
	}
	return t
}

// Bounds on a connection to another node: how long it may be silent before it is
// asked whether it is there, how long it may take to say so, and how long it is
// kept unused.
const (
	pingAfter   = time.Second
	pingTimeout = 2 * time.Second
	idleTimeout = 2 * time.Minute
)

// CloseIdleConnections ends what is not in use.
func (t *Transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.http.RoundTrip(r)
	if err != nil {
		err = t.explain(r.Context(), err)
	}
	return resp, err
}

// explain finds the TLS alert that the other node has ended the connection
// with. In TLS 1.3 a client learns only after its handshake what the server
// thinks of its certificate. The connection is dead and remembers it.
func (t *Transport) explain(ctx context.Context, err error) error {
	alert := err
	if conn := t.last.Load(); conn != nil && ended(ctx, conn, strings.Contains(err.Error(), "http2: client conn")) {
		if _, dead := conn.Read(make([]byte, 1)); dead != nil {
			alert = errors.Join(err, dead)
		}
	}
	for text, words := range map[string]string{
		"tls: expired certificate":           "this node's certificate has expired",
		"tls: unknown certificate authority": "this node's certificate is of another cluster, or signed by a root that the cluster has rotated away: leave and join again",
		"tls: bad certificate":               "this node's certificate was refused",
	} {
		if strings.Contains(alert.Error(), text) {
			return fmt.Errorf("%s: %w: %w", words, err, errdefs.ErrUnauthenticated)
		}
	}
	return err
}

// closeTime is how long net/http may take to close a connection that it has
// given up.
const closeTime = 100 * time.Millisecond

// ended tells whether net/http has closed a connection. One that it has given up
// it closes within a moment, which soon says to wait for.
func ended(ctx context.Context, c *tls.Conn, soon bool) bool {
	if w, ok := c.NetConn().(*watched); ok && soon {
		ctx, cancel := context.WithTimeout(ctx, closeTime)
		defer cancel()
		select {
		case <-w.closed:
		case <-ctx.Done():
		}
	}
	return c.SetReadDeadline(time.Time{}) != nil
}

// watched is a connection that tells when it is closed.
type watched struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func watch(c net.Conn) *watched { return &watched{Conn: c, closed: make(chan struct{})} }

func (w *watched) Close() error {
	err := w.Conn.Close()
	w.once.Do(func() { close(w.closed) })
	return err
}

package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"
)

// The API over the network is for those whom the cluster has given a client's
// certificate. Nobody else gets as far as a request: the handshake is done here,
// in bounded time and number, before the server hears of a connection.

// Guard decides whom the API lets in over the network. It can while this node is
// a manager of a cluster.
type Guard interface {
	// APICertificate is for clients that call this node by a name, "" if they did
	// not say, at one of its addresses.
	APICertificate(name string, local net.IP) (*tls.Certificate, error)
	// VerifyClient tells which client this is.
	VerifyClient(chain []*x509.Certificate) (name string, err error)
}

// remote callers have a client's certificate. They may do what administrators
// may, but not let others in.
const remote caller = 3

const (
	handshakeTime = 10 * time.Second
	// maxStrangers bounds the connections whose handshake is under way. Where
	// there is no place left the oldest goes: those that wait are the idle ones.
	maxStrangers = 256
	// keepAlive notices clients that are gone from streams that say nothing.
	keepAlive = 30 * time.Second
)

// clientSuites are for clients of Docker's API that know no TLS 1.3: those of this
// API are old at times (docker-py before version 6 asks for TLS 1.2 and nothing
// else). Ephemeral keys and authenticated ciphers are what TLS 1.3 has, too; what
// 1.2 has beside is not among them. The certificates' keys are ECDSA.
var clientSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ListenTLS opens the API to the network.
func ListenTLS(addr string, g Guard, log *zap.Logger) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive / 3, Count: 3}}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newDoor(l, g, lookEvery, log), nil
}

// ServeTLS answers on a listener of ListenTLS until ctx ends, and closes it.
func ServeTLS(ctx context.Context, l net.Listener, h http.Handler, g Guard, log *zap.Logger) error {
	return Serve(ctx, l, asRemote(h, g), log)
}

// asRemote looks at the certificate again with each request: it may have expired
// since the handshake, or the cluster has another root.
func asRemote(h http.Handler, g Guard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var chain []*x509.Certificate
		if r.TLS != nil {
			chain = r.TLS.PeerCertificates
		}
		if _, err := g.VerifyClient(chain); err != nil {
			w.Header().Set("Connection", "close")
			writeError(w, errdefs.ErrUnauthenticated.WithMessage("this client is not let in any more: "+plain(err.Error())+"; get another certificate with \"shoal client-cert\" on a manager"))
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, remote)))
	})
}

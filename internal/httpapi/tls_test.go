package httpapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fakeGuard lets in who is called by the right name.
type fakeGuard struct {
	mu   sync.Mutex
	lets string
}

func (g *fakeGuard) let(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lets = name
}

func (g *fakeGuard) APICertificate(string, net.IP) (*tls.Certificate, error) {
	return selfSigned("api")
}

func (g *fakeGuard) VerifyClient(chain []*x509.Certificate) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(chain) == 0 || chain[0].Subject.CommonName != g.lets {
		return "", errors.New("who is that")
	}
	return g.lets, nil
}

func selfSigned(name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// TestOverTheNetwork: clients with a certificate are administrators who can let
// nobody else in; others do not get as far as a request.
func TestOverTheNetwork(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	g := &fakeGuard{lets: "ann"}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newDoor(tcp, g, time.Hour, zap.NewNop()) // requests are looked at by themselves
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeTLS(ctx, l, h.handler, g, zap.NewNop()) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	call := func(c *http.Client, method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "https://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	client := func(name string) *http.Client {
		config := &tls.Config{InsecureSkipVerify: true}
		if name != "" {
			cert, err := selfSigned(name)
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{*cert}
		}
		transport := &http.Transport{TLSClientConfig: config}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	ann := client("ann")
	for _, c := range []struct {
		who          *http.Client
		method, path string
		status       int
		says         string
	}{
		{ann, "GET", "/_ping", 200, "OK"},
		{ann, "GET", "/nodes", 200, "nodenode"},
		{ann, "POST", "/shoal/client-cert", 403, "not over the network"},
		{client("bob"), "GET", "/_ping", 0, "tls: bad certificate"},
		{client(""), "GET", "/_ping", 0, "tls: certificate required"},
	} {
		if status, body := call(c.who, c.method, c.path); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.says)
		}
	}
	res, err := http.Get("http://" + l.Addr().String() + "/_ping")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 400 || !strings.Contains(string(body), "shoal client-cert") {
		t.Errorf("without TLS: %d %s", res.StatusCode, body)
	}
	g.let("nobody") // as after a rotation of the root: the connection is still open
	if status, body := call(ann, "GET", "/nodes"); status != 401 || !strings.Contains(body, "not let in any more") {
		t.Errorf("ann's certificate is worth nothing any more: %d %s", status, body)
	}
}

// TestIdleStrangersKeepNobodyOut fills the door with connections that say nothing.
func TestIdleStrangersKeepNobodyOut(t *testing.T) {
	l, err := ListenTLS("127.0.0.1:0", &fakeGuard{lets: "ann"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range maxStrangers + 20 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	cert, err := selfSigned("ann")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}})
		if err == nil {
			defer c.Close()
			_, _ = c.Write([]byte("x"))
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestOldClients: TLS 1.2 is spoken with what is as good as TLS 1.3, and asks for
// the same certificate.
func TestOldClients(t *testing.T) {
	l, err := ListenTLS("127.0.0.1:0", &fakeGuard{lets: "ann"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x"))
			_ = c.Close()
		}
	}()
	for name, test := range map[string]struct {
		who    string
		most   uint16
		suites []uint16
		want   string
	}{
		"1.2":            {"ann", tls.VersionTLS12, nil, ""},
		"1.2, chacha":    {"ann", tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}, ""},
		"1.2, with CBC":  {"ann", tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, "handshake failure"},
		"1.1":            {"ann", tls.VersionTLS11, nil, "protocol version not supported"},
		"1.2, a strange": {"bob", tls.VersionTLS12, nil, "bad certificate"},
		"1.2, no one":    {"", tls.VersionTLS12, nil, "handshake failure"},
		"1.3, a strange": {"bob", tls.VersionTLS13, nil, "bad certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: test.most, CipherSuites: test.suites}
			if test.who != "" {
				cert, err := selfSigned(test.who)
				if err != nil {
					t.Fatal(err)
				}
				config.Certificates = []tls.Certificate{*cert}
			}
			c, err := tls.Dial("tcp", l.Addr().String(), config)
			if err == nil {
				defer c.Close()
				_, err = io.ReadFull(c, make([]byte, 1)) // where a client of TLS 1.3 hears of a refusal
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestShownOut: whoever is inside goes when the certificate is worth nothing any
// more, in the middle of an answer and of a connection that was taken over.
func TestShownOut(t *testing.T) {
	g := &fakeGuard{lets: "ann"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(l, g, time.Millisecond, zap.NewNop())
	endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			t.Error("the server does not know of TLS")
		}
		if r.URL.Path == "/taken" {
			conn, _, err := w.(*recorder).ResponseWriter.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(conn, conn)
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { endless(&recorder{ResponseWriter: w}, r) })
	go func() { done <- Serve(ctx, d, asRemote(wrapped, g), zap.NewNop()) }()
	cert, err := selfSigned("ann")
	if err != nil {
		t.Fatal(err)
	}
	var open []*tls.Conn
	for _, path := range []string{"/stream", "/taken"} {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1"))); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		open = append(open, c)
	}
	g.let("nobody")
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection stays open")
		}
	}
	if n := len(d.present()); n != 0 {
		t.Errorf("%d are still inside", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClosingTheDoor leaves nobody at it.
func TestClosingTheDoor(t *testing.T) {
	l, err := ListenTLS("127.0.0.1:0", &fakeGuard{lets: "ann"}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	d := l.(*door)
	eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.strangers.Len() == 1
	})
	if err := l.Close(); err != nil { // which waits for all who work for it
		t.Fatal(err)
	}
	_ = waiting.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := waiting.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("who waited at the door is not sent away: %v", err)
	}
}

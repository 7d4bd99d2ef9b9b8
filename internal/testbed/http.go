package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"shoal/internal/testbed/webapp"
)

// getTime bounds one Get. It is longer than anything that may be slow on
// purpose, and shorter than anybody's patience.
const getTime = 20 * time.Second

// Dial connects from inside the host's network. Addresses are numbers; the
// name localhost is understood too.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.pid == 0 {
		return nil, fmt.Errorf("host %s is not up", h.Name)
	}
	if rest, ok := strings.CutPrefix(address, "localhost:"); ok {
		address = "127.0.0.1:" + rest
	}
	// A name would be looked up, and a second address family tried, on other
	// threads, which are not in the host's network.
	if host, _, err := net.SplitHostPort(address); err != nil {
		return nil, err
	} else if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("dial from %s: %q is not an address", h.Name, host)
	}
	var conn net.Conn
	err := enter(h.pid, unix.CLONE_NEWNET, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens in the host's network.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := enter(h.pid, unix.CLONE_NEWNET, func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams; the socket can send as well.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var l net.PacketConn
	err := enter(h.pid, unix.CLONE_NEWNET, func() (err error) {
		l, err = net.ListenPacket(network, address)
		return err
	})
	return l, err
}

// HTTP is a client whose connections start on the host. It keeps none open, so
// that each request is balanced anew.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}

// Answer is what came back from a Get. Of a webapp, Report is filled in.
type Answer struct {
	Code int
	Body string
	webapp.Report
}

// Get fetches a page from the host over a connection of its own.
func (h *Host) Get(url string) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), getTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := h.HTTP().Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("from %s: %w", h.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("from %s: read %s: %w", h.Name, url, err)
	}
	a := Answer{Code: resp.StatusCode, Body: string(body)}
	if resp.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, &a.Report); err != nil {
			return a, fmt.Errorf("from %s: decode %s: %w", h.Name, url, err)
		}
	}
	return a, nil
}

// AskUDP sends one datagram to a webapp and returns its report. A lost
// datagram is an error after wait, as the caller may want to see just that.
func (h *Host) AskUDP(address, payload string, wait time.Duration) (webapp.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	conn, err := h.Dial(ctx, "udp4", address)
	if err != nil {
		return webapp.Report{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return webapp.Report{}, err
	}
	if _, err := io.WriteString(conn, payload); err != nil {
		return webapp.Report{}, fmt.Errorf("from %s: %w", h.Name, err)
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		return webapp.Report{}, fmt.Errorf("from %s: %w", h.Name, err)
	}
	var rep webapp.Report
	if err := json.Unmarshal(buf[:n], &rep); err != nil {
		return webapp.Report{}, fmt.Errorf("from %s: decode answer of %s: %w", h.Name, address, err)
	}
	return rep, nil
}

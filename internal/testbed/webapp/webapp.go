// Package webapp is the service that tests and demonstrations run: a web
// server that says who it is and whom it saw, and that misbehaves on request.
package webapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Report is what one task says about itself and about the request it got.
type Report struct {
	Task     string            `json:"task"`
	Hostname string            `json:"hostname"`
	Version  string            `json:"version"`
	Client   string            `json:"client"` // source address, with port, as the task's socket saw it
	Local    string            `json:"local"`  // the task's own address, with port
	Method   string            `json:"method,omitempty"`
	Path     string            `json:"path,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	Body     string            `json:"body,omitempty"` // UDP only: what was sent
	// Heard is what datagrams said, the latest last: at /heard.
	Heard []string `json:"heard,omitempty"`
}

// ClientIP is the address part of Client.
func (r Report) ClientIP() string {
	host, _, err := net.SplitHostPort(r.Client)
	if err != nil {
		return r.Client
	}
	return host
}

// Text is the report for people and for wget.
func (r Report) Text() string {
	return fmt.Sprintf("task:    %s\nversion: %s\nclient:  %s\nlocal:   %s\n", r.Task, r.Version, r.Client, r.Local)
}

// App is one instance of the server.
type App struct {
	cfg  Config
	sick atomic.Bool

	mu    sync.Mutex
	heard []string

	born time.Time
	exit func(code int)
}

// New makes an app; exit is what /crash calls.
func New(cfg Config, exit func(code int)) *App {
	a := &App{cfg: cfg, born: time.Now(), exit: exit}
	a.sick.Store(cfg.Sick)
	return a
}

// Handler serves
//
//	/                 who answered and whom it saw (JSON if Accept asks for it)
//	/slow?ms=N        the same, N milliseconds later
//	/bytes?n=N        N bytes
//	/stream?ms=N      a line every N milliseconds until the client hangs up
//	/health           200 or 503; /health/fail and /health/ok switch it
//	/crash?code=N     ends the process at once
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.report)
	mux.HandleFunc("/slow", a.slow)
	mux.HandleFunc("/bytes", a.bytes)
	mux.HandleFunc("/stream", a.stream)
	mux.HandleFunc("/health", a.health)
	mux.HandleFunc("/health/fail", func(w http.ResponseWriter, r *http.Request) { a.sick.Store(true); a.report(w, r) })
	mux.HandleFunc("/health/ok", func(w http.ResponseWriter, r *http.Request) { a.sick.Store(false); a.report(w, r) })
	mux.HandleFunc("/crash", func(_ http.ResponseWriter, r *http.Request) { a.exit(number(r, "code", 1)) })
	return mux
}

func (a *App) report(w http.ResponseWriter, r *http.Request) {
	if !pause(r.Context(), a.cfg.Slow) {
		return
	}
	rep := a.identity()
	rep.Client, rep.Method, rep.Path = r.RemoteAddr, r.Method, r.URL.RequestURI()
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		rep.Local = local.String()
	}
	w.Header().Set("X-Task", rep.Task)
	w.Header().Set("X-Version", rep.Version)
	if !strings.Contains(r.Header.Get("Accept"), "json") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprint(w, rep.Text())
		return
	}
	rep.Headers = make(map[string]string, len(r.Header))
	for k, v := range r.Header {
		rep.Headers[k] = strings.Join(v, ", ")
	}
	rep.Env = environment()
	if r.URL.Path == "/heard" {
		rep.Heard = a.said()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rep)
}

func (a *App) slow(w http.ResponseWriter, r *http.Request) {
	if pause(r.Context(), time.Duration(number(r, "ms", 1000))*time.Millisecond) {
		a.report(w, r)
	}
}

// bytes gives something to carry.
func (a *App) bytes(w http.ResponseWriter, r *http.Request) {
	left := number(r, "n", 1<<20)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(max(left, 0)))
	chunk := make([]byte, 64<<10)
	for left > 0 {
		n, err := w.Write(chunk[:min(left, len(chunk))])
		if err != nil {
			return
		}
		left -= n
	}
}

// stream keeps one connection busy, so that a test notices the moment it is cut.
func (a *App) stream(w http.ResponseWriter, r *http.Request) {
	every := time.Duration(number(r, "ms", 100)) * time.Millisecond
	out := http.NewResponseController(w)
	for i := 1; ; i++ {
		if _, err := fmt.Fprintf(w, "%d %s\n", i, a.cfg.Task); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		if !pause(r.Context(), every) {
			return
		}
	}
}

func (a *App) health(w http.ResponseWriter, _ *http.Request) {
	if a.sick.Load() || time.Since(a.born) < a.cfg.HealthyAfter {
		http.Error(w, "unhealthy", http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// EchoUDP answers every datagram with a report that carries it back, until the
// socket is closed.
func (a *App) EchoUDP(conn net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read datagram: %w", err)
		}
		rep := a.identity()
		rep.Client, rep.Local, rep.Body = from.String(), conn.LocalAddr().String(), string(buf[:n])
		a.hear(rep.Body)
		answer, err := json.Marshal(rep)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		// The sender may be gone already; that is its business, not the server's.
		_, _ = conn.WriteTo(answer, from)
	}
}

// remembered is how many datagrams are.
const remembered = 100

func (a *App) hear(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = append(a.heard[max(0, len(a.heard)-remembered+1):], text)
}

func (a *App) said() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.heard)
}

func (a *App) identity() Report {
	return Report{Task: a.cfg.Task, Hostname: a.cfg.Hostname, Version: a.cfg.Version}
}

func environment() map[string]string {
	env := make(map[string]string)
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}

func number(r *http.Request, key string, otherwise int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(key)); err == nil {
		return n
	}
	return otherwise
}

// pause waits for d; false means that nobody waits for the answer any more.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

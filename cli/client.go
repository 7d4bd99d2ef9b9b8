package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/docker/client"
)

const (
	// DefaultSocket is where the daemon listens unless told otherwise.
	DefaultSocket = "/run/shoal.sock"
	// DefaultHost is what the client talks to unless told otherwise.
	DefaultHost = "unix://" + DefaultSocket
)

// host is the daemon's address: --host, then SHOAL_HOST, then the default.
func (s *session) host() string {
	if host := s.global.Text("host"); host != "" {
		return host
	}
	return env("SHOAL_HOST", DefaultHost)
}

// api returns the connection to the daemon. No request is made before it is used.
func (s *session) api() (*client.Client, error) {
	if s.conn != nil {
		return s.conn, nil
	}
	host := s.host()
	if strings.HasPrefix(host, "/") {
		host = "unix://" + host
	}
	opts := []client.Opt{client.WithHost(host), client.WithAPIVersionNegotiation(), client.WithUserAgent("shoal/" + s.app.Build.Version), client.WithHTTPHeaders(s.headers)}
	if files, ok, err := s.certFiles(); err != nil {
		return nil, err
	} else if ok && strings.HasPrefix(host, "tcp://") {
		opts = append(opts, client.WithTLSClientConfig(files[0], files[1], files[2]))
	}
	conn, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("address of the daemon %q: %w", host, err)
	}
	s.conn = conn
	return conn, nil
}

// certFiles are what a client shows, and whom it trusts, over the network; false if none are named. A daemon answers
// nobody without them, and says so.
func (s *session) certFiles() (files [3]string, ok bool, err error) {
	dir := env("SHOAL_CERT_PATH", "")
	if dir == "" && !s.global.AnyChanged("tlscacert", "tlscert", "tlskey") {
		return files, false, nil
	}
	for i, f := range []struct{ flag, name string }{{"tlscacert", caFile}, {"tlscert", certFile}, {"tlskey", keyFile}} {
		if files[i] = s.global.Text(f.flag); files[i] == "" && dir != "" {
			files[i] = filepath.Join(dir, f.name)
		}
		if files[i] == "" {
			return files, false, fmt.Errorf("--%s is missing: name all three files, or their directory with SHOAL_CERT_PATH", f.flag)
		}
	}
	return files, true, nil
}

// ask makes a request that Docker's client has no call for.
func (s *session) ask(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	media := ""
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, media = bytes.NewReader(raw), "application/json"
	}
	response, err := s.send(ctx, method, path, media, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// send makes any request, in the way in which Docker's client makes its own. The answer is a good one; a refusal is an
// error.
func (s *session) send(ctx context.Context, method, path, media string, body io.Reader) (*http.Response, error) {
	conn, err := s.api()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Ping(ctx); err != nil {
		return nil, err // in the words that every command has for it
	}
	base := "http://shoal" // on a socket nobody looks at the name
	if host, ok := strings.CutPrefix(conn.DaemonHost(), "tcp://"); ok {
		base = "https://" + host
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, err
	}
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	for name, value := range s.headers {
		request.Header.Set(name, value)
	}
	response, err := conn.HTTPClient().Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < http.StatusBadRequest {
		return response, nil
	}
	defer response.Body.Close()
	var refusal struct{ Message string }
	if err := json.NewDecoder(response.Body).Decode(&refusal); err != nil || refusal.Message == "" {
		refusal.Message = response.Status
	}
	return nil, errors.New("Error response from daemon: " + refusal.Message)
}

func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// explain is the message for an error. That the daemon is not there is said in shoal's words, not in Docker's.
func (s *session) explain(err error) string {
	var usage exitError
	if errors.As(err, &usage) || !client.IsErrConnectionFailed(err) {
		return err.Error()
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "permission denied") {
		return fmt.Sprintf("no permission to use the shoal daemon's socket at %s: run the command as root", s.host())
	}
	if strings.HasPrefix(s.host(), "tcp://") {
		return fmt.Sprintf("cannot reach the shoal daemon at %s: %v", s.host(), err)
	}
	return fmt.Sprintf("cannot reach the shoal daemon at %s: is it running? start it with \"shoal daemon\" (or systemctl start shoal)", s.host())
}

// socketPath is the path of the daemon's socket, or false if its address is not one.
func (s *session) socketPath() (string, bool) {
	host := s.host()
	if strings.HasPrefix(host, "/") {
		return host, true
	}
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "unix" || u.Path == "" {
		return "", false
	}
	return u.Path, true
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// TestSwarmEngine: an engine that is in a swarm itself is not taken over.
func TestSwarmEngine(t *testing.T) {
	t.Parallel()
	h := testbed.Start(t, 1).Host(0)
	testbed.Must(t, h.EngineDocker("swarm", "init", "--advertise-addr", h.IP.String()))
	refused(t, h.Shoal("swarm", "init"), "this engine is in swarm mode", `run "docker swarm leave" on it first`)
	if left, err := os.ReadDir(h.DataDir()); err != nil || len(left) > 1 {
		t.Errorf("a refused init leaves %v (%v)", left, err)
	}
	if state := testbed.Must(t, h.EngineDocker("info", "--format", "{{.Swarm.LocalNodeState}}")); state != "active\n" {
		t.Errorf("the engine's swarm is %s", state)
	}
	testbed.Must(t, h.EngineDocker("swarm", "leave", "--force"))
	testbed.Must(t, h.Shoal("swarm", "init"))
	create(t, h, "--name", "web", testbed.WebV1)

	// And one that joins a swarm afterwards is noticed.
	testbed.Must(t, h.EngineDocker("swarm", "init", "--advertise-addr", h.IP.String(), "--listen-addr", "127.0.0.1:3377"))
	testbed.Eventually(t, patience, func() error {
		status := testbed.Must(t, h.Shoal("node", "inspect", "self", "--format", "{{.Status.State}} {{.Status.Message}}"))
		if !strings.Contains(status, "swarm mode") {
			return fmt.Errorf("the node is %s", status)
		}
		t.Log(status)
		return nil
	})
}

// TestBackground: where no daemon runs, swarm init starts one and says so.
func TestBackground(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 1)
	h := bed.Host(0)
	if err := h.StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, h.Shoal("service", "ls"), "/run/shoal.sock")
	r := h.Shoal("swarm", "init")
	testbed.Must(t, r)
	contains(t, r.Stdout, "Swarm initialized")
	contains(t, r.Stdout+r.Stderr, "daemon", "background", "/var/lib/shoal/daemon.log")
	if up, err := h.ShoalRunning(); err != nil || !up {
		t.Fatalf("the daemon runs: %v, %v", up, err)
	}
	if raw, err := os.ReadFile(filepath.Join(h.DataDir(), "daemon.log")); err != nil || len(raw) == 0 {
		t.Errorf("the daemon's log: %v", err)
	}
	create(t, h, "--name", "web", "--publish", "8080:80", testbed.WebV1)
	if _, err := answers(bed.Client(), url(h, "8080"), 1); err != nil {
		t.Error(err)
	}
	// A second daemon keeps its hands off the first one's data.
	second := h.Run(t.Context(), "shoal", "daemon", "--socket", "/run/second.sock")
	refused(t, second, "/var/lib/shoal")
	testbed.Must(t, h.Shoal("swarm", "leave", "--force"))
}

// TestFlags: what there is not, and what is not done, is refused by name.
func TestFlags(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 1)
	h := bed.Host(0)
	refused(t, h.Run(t.Context(), "shoal", "daemon", "--data-plane", "magic", "--data-dir", "/var/lib/other", "--socket", "/run/other.sock"), "magic")
	refused(t, h.Shoal("swarm", "join", "--token", "SWMTKN-1-a-b", "10.0.0.1:2377"), "invalid join token")
	refused(t, h.Shoal("swarm", "init", "--advertise-addr", "192.0.2.1:99999"), "99999")
	refused(t, h.Shoal("swarm", "init", "--force-new-cluster"), "no state of a cluster")
	taken, err := h.Listen("tcp4", ":2377")
	if err != nil {
		t.Fatal(err)
	}
	// Its owner is this test, which the host can not see.
	refused(t, h.Shoal("swarm", "init"), "listen address 0.0.0.0:2377: another process has the tcp port already", "--listen-addr")
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, h.Shoal("swarm", "init"))
	for _, c := range []struct{ flags, says string }{
		{"--mode magic", "magic"},
		{"--network none-such", "none-such"},
		{"--secret none-such", "secret not found: none-such"},
		{"--config none-such", "config not found: none-such"},
		{"--credential-spec file://spec.json", "credential spec"},
		{"--publish 127.0.0.1:8080:80", "127.0.0.1"},
	} {
		args := append([]string{"service", "create", "-d", "--no-resolve-image"}, strings.Fields(c.flags)...)
		refused(t, h.Shoal(append(args, testbed.WebV1)...), c.says)
	}
	if out := testbed.Must(t, h.Shoal("service", "ls", "-q")); out != "" {
		t.Errorf("a refused service is there: %s", out)
	}
}

// TestSocket speaks to the socket with no client library between.
func TestSocket(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	info, err := os.Stat(h.Socket())
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the socket is %v for everybody (%v)", info.Mode(), err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
	}}}
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/_ping", "", 200},
		{"GET", "/v1.41/services", "", 200},
		{"POST", "/v1.41/services/create", "{", 400},
		{"POST", "/v1.41/services/create", `{"Name": 7}`, 400},
		{"POST", "/v1.41/services/create", `{"Name": "a", "TaskTemplate": []}`, 400},
		{"POST", "/v1.41/services/create", "", 400},
		{"POST", "/v1.41/services/create", `{"Name": "` + strings.Repeat("a", 5<<20) + `"}`, 413},
		{"POST", "/v1.41/services/none/update?version=x", "{}", 400},
		{"GET", "/v9.99/services", "", 400},
		{"GET", "/v1.41/services?filters=%7B", "", 400},
		{"GET", "/v1.41/services/none", "", 404},
		{"GET", "/v1.41/tasks/none", "", 404},
		{"GET", "/v1.41/nodes/none", "", 404},
		{"PUT", "/v1.41/services/none", "", 404},
		{"POST", "/v1.41/swarm/init", `{"ListenAddr": "0.0.0.0:2377"}`, 503},
		{"GET", "/v1.41/containers/none/json", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://shoal"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
		if resp.StatusCode != c.code {
			t.Errorf("%s %s: %s, want %d: %s", c.method, c.path, resp.Status, c.code, raw)
		}
		var message struct{ Message string }
		if c.code >= 400 && (json.Unmarshal(raw, &message) != nil || message.Message == "") {
			t.Errorf("%s %s: no message in %q", c.method, c.path, raw)
		}
	}
}

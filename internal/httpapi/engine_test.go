package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fakeEngine is a Docker engine of some API version.
type fakeEngine struct {
	host string

	mu       sync.Mutex
	api, min string
	paths    []string // of what was asked, with query
}

func newFakeEngine(t *testing.T, api, minimum string, handle http.HandlerFunc) *fakeEngine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{host: "unix://" + path, api: api, min: minimum}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		w.Header().Set("Api-Version", e.api)
		w.Header().Set("Server", "Docker/engine (linux)")
		version := fmt.Sprintf(`{"ApiVersion":%q,"MinAPIVersion":%q,"Components":[{"Name":"Engine","Details":{"ApiVersion":%[1]q}}]}`, e.api, e.min)
		if r.URL.Path != "/_ping" && r.URL.Path != "/version" {
			e.paths = append(e.paths, r.RequestURI)
		}
		e.mu.Unlock()
		switch r.URL.Path {
		case "/_ping":
			w.Header().Set("Builder-Version", "1")
		case "/version":
			_, _ = io.WriteString(w, version)
		default:
			handle(w, r)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return e
}

func (e *fakeEngine) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.paths) == 0 {
		return ""
	}
	return e.paths[len(e.paths)-1]
}

func nothing(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// TestClusterVolumes are refused: an engine without them would make its own.
func TestClusterVolumes(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", nothing)
	h := newHarness(t, e.host)
	if status, _, body := h.call("POST", "/volumes/create", `{"Name":"v","ClusterVolumeSpec":{"Group":"g"}}`); status != 501 || e.last() != "" {
		t.Errorf("%d %s, engine was asked %q", status, body, e.last())
	}
	if status, _, body := h.call("POST", "/v1.50/volumes/create", `{"Name":"v","Driver":"local"}`); status != 204 || e.last() != "/v1.41/volumes/create" {
		t.Errorf("%d %s, engine was asked %q", status, body, e.last())
	}
	if status, _, _ := h.call("PUT", "/volumes/v?version=1", `{}`); status != 501 {
		t.Errorf("update: %d", status)
	}
}

func TestVersionIsRewrittenForTheEngine(t *testing.T) {
	for _, c := range []struct{ api, min, path, want string }{
		{"1.41", "1.12", "/v1.50/containers/json?all=1", "/v1.41/containers/json?all=1"},
		{"1.41", "1.12", "/v1.30/containers/json", "/v1.30/containers/json"},
		{"1.52", "1.44", "/v1.41/containers/json", "/v1.44/containers/json"},
		{"1.52", "1.44", "/v1.50/containers/json", "/v1.50/containers/json"},
		{"1.41", "1.12", "/containers/json", "/v1.41/containers/json"},
		{"1.52", "1.44", "/containers/json", "/v1.50/containers/json"},
		{"1.41", "1.12", "/v1.50/images/a%2Fb/json?x=%7B;&y", "/v1.41/images/a%2Fb/json?x=%7B;&y"},
		{"1.41", "1.12", "/v1.50/distribution/127.0.0.1:5000/a/b:c/json", "/v1.41/distribution/127.0.0.1:5000/a/b:c/json"},
	} {
		e := newFakeEngine(t, c.api, c.min, nothing)
		h := newHarness(t, e.host)
		status, header, _ := h.call("GET", c.path, "")
		if status != 204 || e.last() != c.want {
			t.Errorf("%s on engine %s: %d, engine was asked %q, want %q", c.path, c.api, status, e.last(), c.want)
		}
		if v, s := header.Values("Api-Version"), header.Values("Server"); len(v) != 1 || v[0] != "1.50" || len(s) != 1 || s[0] != "Docker/test (linux)" {
			t.Errorf("headers of the engine shine through: %v %v", v, s)
		}
		if _, header, _ := h.call("HEAD", "/_ping", ""); header.Get("Builder-Version") != "1" {
			t.Errorf("Builder-Version %q is not the engine's", header.Get("Builder-Version"))
		}
	}
}

// TestOwnQuestions: what is asked here for an answer of ours is asked in a version
// that the engine speaks, too. Engine 29 refuses all below 1.44.
func TestOwnQuestions(t *testing.T) {
	e := newFakeEngine(t, "1.52", "1.44", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})
	h := newHarness(t, e.host)
	for path, want := range map[string]string{
		"/v1.24/info":                   "/v1.44/info",
		"/v1.50/info":                   "/v1.50/info",
		"/info":                         "/v1.50/info",
		"/v1.41/events?since=1&until=2": "/v1.44/events?since=1.000000000&until=2.000000000",
	} {
		if status, _, body := h.call("GET", path, ""); status != 200 || e.last() != want {
			t.Errorf("%s: %d %s, engine was asked %q, want %q", path, status, body, e.last(), want)
		}
	}
}

func TestEngineUpgradeIsNoticed(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", nothing)
	h := newHarness(t, e.host)
	h.call("GET", "/v1.50/info2", "")
	e.mu.Lock()
	e.api, e.min = "1.52", "1.44"
	e.mu.Unlock()
	h.call("GET", "/v1.50/info2", "") // the answer to this one tells
	h.call("GET", "/v1.50/info2", "")
	if e.last() != "/v1.50/info2" {
		t.Errorf("asked %q after the upgrade", e.last())
	}
}

func TestClusterPathsNeverReachTheEngine(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", nothing)
	h := newHarness(t, e.host)
	for _, path := range []string{
		"/swarm/join2", "/v1.41/swarm/init/", "/swarm", "/swarm/", "/nodes/a/b/c", "/services/x", "/tasks/", "/secrets/a/b", "/configs/a/b", "/shoal/x", "/s%77arm/init",
		"/swarm%2Finit", "/v1.41%2Fswarm%2Finit", "//swarm/init", "/x/../swarm/init", "/v1.41//swarm/init", "/v1.41/./swarm/init", "/%2Fswarm/init",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD"} {
			h.call(method, path, "")
		}
	}
	if e.last() != "" {
		t.Errorf("the engine was asked %q", e.paths)
	}
}

func TestVersionOfEngineIsOverwritten(t *testing.T) {
	h := newHarness(t, newFakeEngine(t, "1.41", "1.12", nothing).host)
	v := get[struct {
		ApiVersion, MinAPIVersion string
		Components                []struct {
			Name    string
			Details map[string]string
		}
	}](h, "/version")
	if v.ApiVersion != "1.50" || v.MinAPIVersion != "1.44" || v.Components[0].Details["ApiVersion"] != "1.50" ||
		v.Components[1].Name != "shoal" || v.Components[1].Details["DataPlane"] != "nft" {
		t.Errorf("%+v", v)
	}
}

// docker run waits for the header of /wait before it starts the container.
func TestHeaderIsNotHeldBack(t *testing.T) {
	release := make(chan struct{})
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "done")
	})
	h := newHarness(t, e.host)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://shoal/v1.50/containers/x/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.client.Do(req) // returns with the header
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	close(release)
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
		t.Errorf("%q %v", body, err)
	}
}

// The end of stdin has to reach a container whose output goes on.
func TestHijackedConnectionClosesOneHalf(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		input, _ := io.ReadAll(buf) // until the client closes its half
		_, _ = io.WriteString(conn, "got "+string(input))
	})
	h := newHarness(t, e.host)
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /v1.50/containers/x/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(r); err != nil || string(out) != "got hello" {
		t.Errorf("%q %v", out, err)
	}
}

func TestSlowRegistryIsGivenUp(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	handler, err := New(Config{Node: newFakeNode(zap.NewNop()), Logs: &fakeLogs{}, DockerHost: e.host, Build: testBuild, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	handler.(*server).registryTime = 20 * time.Millisecond
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), callerKey{}, administrator), "GET", "/v1.50/distribution/a/b:c/json", nil)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if w.Code != 503 || !strings.Contains(w.Body.String(), "the registry did not answer the Docker engine within 20ms") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestInfoWithoutAnEngine(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	info := get[struct {
		Swarm    struct{ LocalNodeState, NodeID string }
		Warnings []string
	}](h, "/info")
	if info.Swarm.LocalNodeState != "active" || info.Swarm.NodeID == "" || len(info.Warnings) != 1 || !strings.Contains(info.Warnings[0], "cannot reach the Docker engine") {
		t.Errorf("%+v", info)
	}
}

func TestEngineAddress(t *testing.T) {
	for host, ok := range map[string]bool{"unix:///a": true, "tcp://1.2.3.4:2375": true, "": false, "unix://": false, "ssh://a": false, "/a": false} {
		if _, err := newEngine(host, zap.NewNop()); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}

package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

var follower = NodeStatus{State: swarm.LocalNodeStateActive, ControlAvailable: true}

func TestNoLeader(t *testing.T) {
	h := newHarness(t, noEngine)
	h.node.set(follower, nil)
	h.handler.(*server).leaderWait = 10 * time.Millisecond
	status, _, body := h.call("GET", "/nodes", "")
	if status != http.StatusInternalServerError || !strings.Contains(body, "The swarm does not have a leader") {
		t.Fatalf("%d %s", status, body)
	}
}

// TestFollowerPassesOn has a follower answer by its leader: requests for the
// cluster's state, with body and version, and nothing else.
func TestFollowerPassesOn(t *testing.T) {
	lead := newHarness(t, noEngine)
	lead.found()
	// What the leader serves on the port between nodes.
	port := httptest.NewServer(http.StripPrefix("/shoal/api", Forwarded(lead.handler)))
	t.Cleanup(port.Close)

	h := newHarness(t, noEngine)
	h.node.set(follower, nil)
	h.node.leader = Proxy(http.DefaultTransport, port.URL+"/shoal/api")
	if status, _, body := h.call("GET", "/v1.44/nodes", ""); status != 200 || !strings.Contains(body, "nodenodenode") {
		t.Errorf("nodes by a follower: %d %s", status, body)
	}
	if status, _, body := h.call("GET", "/services/nosuch", ""); status != 404 || !strings.Contains(body, "service nosuch not found") {
		t.Errorf("the leader's refusal by a follower: %d %s", status, body)
	}
	if status, _, body := h.call("GET", "/v1.99/nodes", ""); status != 400 {
		t.Errorf("wrong version: %d %s", status, body)
	}

	// A peer is let in for the cluster's state, not to this machine.
	for path, want := range map[string]int{"/nodes": 200, "/containers/json": 403, "/info": 403, "/swarm/leave": 403} {
		resp, err := http.Get(port.URL + "/shoal/api" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if path == "/swarm/leave" && resp.StatusCode == 404 {
			continue // a GET is no route of ours
		}
		if resp.StatusCode != want {
			t.Errorf("peer asks for %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// TestOneHop has two managers that each take the other for the leader.
func TestOneHop(t *testing.T) {
	a, b := newHarness(t, noEngine), newHarness(t, noEngine)
	a.node.set(follower, nil)
	a.handler.(*server).leaderWait = time.Nanosecond
	b.node.set(follower, nil)
	hops := 0
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops++
		Forwarded(b.handler).ServeHTTP(w, r)
	}))
	t.Cleanup(port.Close)
	a.node.leader = Proxy(http.DefaultTransport, port.URL)
	b.node.leader = Proxy(http.DefaultTransport, port.URL)
	status, _, body := a.call("GET", "/nodes", "")
	if status != 500 || !strings.Contains(body, "does not have a leader") || hops != 1 {
		t.Fatalf("%d %s after %d hops", status, body, hops)
	}
}

// TestWaitsForALeader has leadership pass on while a client waits: a dead
// leader, one that says it leads no more, then one that does. Nothing fails, and
// the write is done once.
func TestWaitsForALeader(t *testing.T) {
	lead := newHarness(t, noEngine)
	lead.found()
	var tries, done atomic.Int32
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) < 3 {
			w.Header().Set(undoneHeader, "true")
			writeError(w, errNoLeader)
			return
		}
		done.Add(1)
		Forwarded(lead.handler).ServeHTTP(w, r)
	}))
	t.Cleanup(port.Close)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()

	h := newHarness(t, noEngine)
	h.node.set(follower, nil)
	h.node.mu.Lock()
	h.node.leader = Proxy(http.DefaultTransport, dead.URL)
	h.node.mu.Unlock()
	next := time.AfterFunc(3*leaderLook, func() {
		h.node.mu.Lock()
		h.node.leader = Proxy(http.DefaultTransport, port.URL)
		h.node.mu.Unlock()
	})
	t.Cleanup(func() { next.Stop() })
	status, _, body := h.call("POST", "/services/create", `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}`)
	if status != http.StatusCreated || done.Load() != 1 {
		t.Fatalf("%d %s; done %d times", status, body, done.Load())
	}
}

// TestSentIsNotSentAgain breaks the connection in the middle: a write may have
// been done, and is not tried again; a read is.
func TestSentIsNotSentAgain(t *testing.T) {
	var asked atomic.Int32
	port := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(port.Close)
	h := newHarness(t, noEngine)
	h.node.set(follower, nil)
	h.handler.(*server).leaderWait = 5 * leaderLook
	h.node.leader = Proxy(&http.Transport{DisableKeepAlives: true}, port.URL)
	status, _, body := h.call("POST", "/services/create", `{"Name":"web"}`)
	if status != http.StatusServiceUnavailable || asked.Load() != 1 {
		t.Errorf("%d %s after %d tries", status, body, asked.Load())
	}
	asked.Store(0)
	if status, _, body = h.call("GET", "/services", ""); status == http.StatusOK || asked.Load() < 2 {
		t.Errorf("%d %s after %d tries", status, body, asked.Load())
	}
}

package httpapi

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestLockedManager(t *testing.T) {
	h := newHarness(t, noEngine)
	h.node.set(NodeStatus{NodeID: "n", State: swarm.LocalNodeStateLocked}, nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/services", "", 503, msgLocked},
		{"GET", "/swarm/unlockkey", "", 503, msgLocked},
		{"POST", "/swarm/leave", "", 503, msgLocked},
		{"POST", "/swarm/init", `{"ListenAddr":"0.0.0.0:2377"}`, 503, "already part of a swarm"},
		{"POST", "/swarm/join", `{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["a"]}`, 503, "already part of a swarm"},
		{"GET", "/info", "", 200, `"LocalNodeState":"locked"`},
		{"POST", "/swarm/unlock", `{"UnlockKey":"SWMKEY-1-wrong"}`, 401, "swarm could not be unlocked: invalid key provided"},
		{"POST", "/swarm/unlock", `{"UnlockKey":"SWMKEY-1-right"}`, 200, ""},
		{"GET", "/services", "", 503, msgNotReady},
		{"POST", "/swarm/unlock", `{"UnlockKey":"SWMKEY-1-right"}`, 503, msgNotReady},
	} {
		status, _, body := h.call(c.method, c.path, c.body)
		if status != c.status || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.want)
		}
	}
}

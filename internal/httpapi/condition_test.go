package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOnlyIf: a write that depends on what its author saw is refused when that is
// not so any more, whichever manager was asked, and whoever passes it on inside.
func TestOnlyIf(t *testing.T) {
	lead := newHarness(t, noEngine)
	lead.found()
	port := httptest.NewServer(http.StripPrefix("/shoal/api", Forwarded(lead.handler)))
	t.Cleanup(port.Close)
	other := newHarness(t, noEngine)
	other.node.set(follower, nil)
	other.node.leader = Proxy(http.DefaultTransport, port.URL+"/shoal/api")

	const labels = `"Labels":{"com.docker.stack.namespace":"st"}`
	for i, h := range []*harness{lead, other} {
		index := get[struct{ Index uint64 }](h, "/shoal/stacks/st").Index
		now, stale := fmt.Sprintf("st=%d", index), fmt.Sprintf("st=%d", index+1)
		for _, step := range []struct {
			method, path, body, condition string
			status                        int
			says                          string
		}{
			{"GET", "/shoal/stacks/st", "", now, 200, fmt.Sprint(index)},
			{"GET", "/shoal/stacks/st", "", stale, 400, "the cluster has moved on"},
			{"GET", "/shoal/stacks/st", "", "st", 400, "STACK=INDEX"},
			{"POST", "/networks/create", `{"Name":"n%d","Driver":"overlay",` + labels + `}`, stale, 400, "the cluster has moved on"},
			{"POST", "/secrets/create", `{"Name":"s%d","Data":"eA==",` + labels + `}`, stale, 400, "the cluster has moved on"},
			{"POST", "/secrets/create", `{"Name":"s%d","Data":"eA==",` + labels + `}`, "st=x", 400, "STACK=INDEX"},
			{"POST", "/networks/create", `{"Name":"n%d","Driver":"overlay",` + labels + `}`, now, 201, ""},
			{"POST", "/secrets/create", `{"Name":"s%d","Data":"eA==",` + labels + `}`, now, 400, "the cluster has moved on"},
		} {
			body := step.body
			if body != "" {
				body = fmt.Sprintf(body, i)
			}
			status, _, answer := h.call(step.method, step.path, body, conditionHeader, step.condition)
			if status != step.status || !strings.Contains(answer, step.says) {
				t.Errorf("manager %d: %s %s if %s: %d %s, want %d %s", i, step.method, step.path, step.condition, status, answer, step.status, step.says)
			}
		}
	}
}

package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
)

func TestRequests(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	web := h.create("web", 2, "")
	h.create("web2", 1, "")
	version := get[swarm.Service](h, "/services/web").Version.String()
	good := `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}},"Mode":{"Replicated":{"Replicas":2}}}`
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // part of the message or body
	}{
		{"GET", "/v1.99/nodes", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.50"},
		{"GET", "/v1.12/nodes", "", 400, "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"GET", "/v1.24/nodes", "", 200, "n1"},
		{"GET", "/v1.50/nodes", "", 200, "n1"},
		{"GET", "/nodes", "", 200, "n1"},
		{"GET", "/nodes/", "", 404, "page not found"},
		{"PUT", "/services/web", "", 404, "page not found"},
		{"POST", "/swarm/elsewhere", "", 404, "page not found"},
		{"GET", "/containers/json", "", 503, "cannot reach the Docker engine at " + noEngine},

		{"GET", "/shoal/doctor", "", 200, `"Todo":"set it"`},
		{"GET", "/shoal/elsewhere", "", 404, "page not found"},

		{"GET", "/services/nosuch", "", 404, "service nosuch not found"},
		{"GET", "/services/we%62", "", 200, web.ID},
		{"GET", "/services/" + web.ID, "", 200, web.ID},
		{"GET", "/services/" + web.ID[:10], "", 200, web.ID},
		{"GET", "/services/web?insertDefaults=perhaps", "", 400, "invalid value for insertDefaults: perhaps"},
		{"GET", "/tasks/nosuch", "", 404, "task nosuch not found"},
		{"GET", "/nodes/nosuch", "", 404, "node nosuch not found"},
		{"GET", "/secrets/nosuch", "", 404, "secret nosuch not found"},
		{"GET", "/configs/nosuch", "", 404, "config nosuch not found"},
		{"GET", "/secrets", "", 200, "[]"},
		{"GET", `/configs?filters={"name":["a"]}`, "", 200, "[]"},
		{"GET", `/configs?filters={"colour":["a"]}`, "", 400, "invalid filter 'colour'"},
		{"POST", "/secrets/create", `{"Name":"a"}`, 400, "secret data must be larger than 0 and less than 512000 bytes"},
		{"POST", "/secrets/create", `{"Name":"a","Driver":{"Name":"vault"}}`, 501, `secret driver "vault" is not supported`},
		{"POST", "/configs/create", `{"Name":"a b","Data":"eA=="}`, 400, `invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]: config "a b"`},
		{"POST", "/configs/create", `{"Name":"a","Data":"eA==","Templating":{"Name":"jinja"}}`, 501, `template driver "jinja" is not supported`},
		{"POST", "/configs/create", `{"Name":"a","Data":"!"}`, 400, "illegal base64 data"},

		{"POST", "/secrets/create", `{"Name":"key","Labels":{"a":"b"},"Data":"czNjcmV0"}`, 201, `"ID":`},
		{"POST", "/secrets/create", `{"Name":"key","Data":"czNjcmV0"}`, 409, "rpc error: code = AlreadyExists desc = secret key already exists"},
		{"POST", "/configs/create", `{"Name":"key","Data":"Y29uZg=="}`, 201, `"ID":`},
		{"GET", "/secrets/key", "", 200, `"Spec":{"Name":"key","Labels":{"a":"b"}}}`},
		{"GET", "/configs/key", "", 200, `"Spec":{"Name":"key","Labels":{},"Data":"Y29uZg=="}}`},
		{"GET", `/secrets?filters={"name":["ke"],"label":["a=b"]}`, "", 200, `"Name":"key"`},
		{"GET", `/secrets?filters={"names":["ke"]}`, "", 200, "[]"},
		{"GET", `/configs?filters={"names":["ke"]}`, "", 400, "invalid filter 'names'"},
		{"POST", "/secrets/key/update?version=1", `{"Name":"key"}`, 500, "update out of sequence"},
		{"POST", "/secrets/key/update", `{"Name":"key"}`, 400, "invalid secret version ''"},
		{"DELETE", "/configs/key", "", 204, ""},
		{"DELETE", "/configs/key", "", 404, "config key not found"},

		{"GET", `/services?filters={"name":{"web2":true}}`, "", 200, "web2"},
		{"GET", `/services?filters={"name":["web2"]}`, "", 200, "web2"},
		{"GET", `/services?filters={"name":["nosuch"]}`, "", 200, "[]"},
		{"GET", `/services?filters={"name":null}`, "", 200, "web2"},
		{"GET", `/services?filters=null`, "", 200, "web2"},
		{"GET", `/services?filters={"colour":["a"]}`, "", 400, "invalid filter 'colour'"},
		{"GET", `/services?filters={"name":"web"}`, "", 400, "invalid filter"},
		{"GET", `/services?filters=[`, "", 400, "invalid filter"},
		{"GET", `/tasks?filters={"service":["nosuch"]}`, "", 404, "service nosuch not found"},
		{"GET", `/tasks?filters={"node":["nosuch"]}`, "", 404, "node nosuch not found"},
		{"GET", `/tasks?filters={"service":["web"],"desired-state":["running"]}`, "", 200, `"DesiredState":"running"`},

		{"POST", "/services/web/update", good, 400, `invalid service version '': strconv.ParseUint: parsing "": invalid syntax`},
		{"POST", "/services/web/update?version=x", good, 400, `invalid service version 'x'`},
		{"POST", "/services/web/update?version=1", good, 500, "rpc error: code = Unknown desc = update out of sequence"},
		{"POST", "/services/nosuch/update?version=1", good, 404, "service nosuch not found"},
		{"POST", "/services/web/update?rollback=sideways&version=" + version, good, 400, "unrecognized rollback option sideways"},
		{"POST", "/services/web/update?rollback=previous&version=" + version, good, 400, "service web does not have a previous spec"},
		{"POST", "/services/web/update?version=" + version, good, 200, `{"Warnings":null}`},
		{"DELETE", "/services/nosuch", "", 404, "service nosuch not found"},
		{"POST", "/nodes/n1/update?version=1", `{"Role":"manager"}`, 200, ""},
		{"POST", "/nodes/n1/update?version=1", `{"Role":"manager"}`, 500, "update out of sequence"},
		{"DELETE", "/nodes/n1?force=1", "", 400, "It must be demoted to worker before removal"},

		{"POST", "/services/create", good, 409, "name conflicts with an existing object: service web already exists"},
		{"POST", "/services/create", `{"Name":"far","TaskTemplate":{"ContainerSpec":{"Image":"x"},"Placement":{"Constraints":["node.hostname==nope"]}}}`, 201, `"Warnings":["no node meets the constraint node.hostname==nope now: service far gets no new task`},
		{"POST", "/services/create", "", 400, "mismatched Runtime and *Spec fields"},
		{"POST", "/services/create", `null`, 400, "mismatched Runtime and *Spec fields"},
		{"POST", "/services/create", ` `, 400, "invalid JSON: got EOF while reading request body"},
		{"POST", "/services/create", `{"Name":`, 400, "invalid JSON"},
		{"POST", "/services/create", good + `{}`, 400, "unexpected content after JSON"},
		{"POST", "/services/create", good + ` garbage`, 400, "unexpected content after JSON"},
		{"POST", "/services/create", `[]`, 400, "invalid JSON"},
		{"POST", "/services/create", `{"TaskTemplate":{"ForceUpdate":"often"}}`, 400, "TaskTemplate.ForceUpdate"},
		{"POST", "/services/create", `{"Mode":{"Replicated":{"Replicas":-1}}}`, 400, "Replicas"},
		{"POST", "/services/create", `{"Name":"` + strings.Repeat("x", maxBody) + `"}`, 413, "request body too large"},
		{"POST", "/services/create", good + strings.Repeat(" ", maxBody), 413, "request body too large"},
		{"POST", "/services/create", `{"Name":"extra","Unheard":{"Of":1},"TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`, 501, "field Unheard is not supported"},

		{"GET", "/swarm", "", 200, `"Worker":"SWMTKN-1-digest-worker"`},
		{"GET", "/swarm/unlockkey", "", 200, `{"UnlockKey":""}`},
		{"POST", "/swarm/unlock", `{}`, 409, "swarm is not locked"},
		{"POST", "/swarm/init", `{"ListenAddr":"0.0.0.0:2377"}`, 503, msgSwarmExists},
		{"POST", "/swarm/init", `{}`, 400, `invalid ListenAddr ""`},
		{"POST", "/swarm/init", `{"ListenAddr":"0.0.0.0","Spec":{"Name":"x"}}`, 400, `swarm spec must be named "default"`},
		{"POST", "/swarm/join", `{"ListenAddr":"0.0.0.0:2377"}`, 503, msgSwarmExists},
		{"POST", "/swarm/join", `{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["a"]}`, 503, msgSwarmExists},
		{"POST", "/swarm/update?version=1&rotateWorkerToken=perhaps", `{}`, 400, "invalid value for rotateWorkerToken: perhaps"},
		{"POST", "/swarm/leave", "", 503, errLastManager.Error()},

		{"GET", "/services/web/logs", "", 500, "Bad parameters: you must choose at least one stream"},
		{"GET", "/services/web/logs?stdout=1&tail=-1", "", 500, "negative tail values not supported"},
		{"GET", "/services/web/logs?stdout=1&tail=few", "", 500, `tail value must be a positive integer or "all": "few" is neither`},
		{"GET", "/services/web/logs?stdout=1&since=yesterday", "", 400, "could not parse since timestamp"},
		{"GET", "/services/nosuch/logs?stdout=1", "", 404, "service nosuch not found"},
		{"GET", "/tasks/nosuch/logs?stdout=1", "", 404, "task nosuch not found"},
	} {
		status, header, body := h.call(c.method, strings.ReplaceAll(c.path, `"`, "%22"), c.body)
		if status != c.status {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, status, c.status, body)
			continue
		}
		if status >= 400 {
			var e struct{ Message string }
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Errorf("%s %s: not an error in Docker's shape: %s", c.method, c.path, body)
			}
			if got := header.Get("Content-Type"); got != "application/json" {
				t.Errorf("%s %s: content type %q", c.method, c.path, got)
			}
			body = e.Message
		}
		if !strings.Contains(body, c.want) {
			t.Errorf("%s %s: no %q in %s", c.method, c.path, c.want, body)
		}
		for _, name := range []string{"Api-Version", "Ostype", "Docker-Experimental", "Server"} {
			if len(header.Values(name)) != 1 {
				t.Errorf("%s %s: header %s: %v", c.method, c.path, name, header.Values(name))
			}
		}
	}
}

func TestContentType(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	status, _, body := h.call("POST", "/services/create", `{}`, "Content-Type", "text/plain")
	if status != 400 || !strings.Contains(body, "unsupported Content-Type header (text/plain): must be 'application/json'") {
		t.Errorf("%d %s", status, body)
	}
	status, _, body = h.call("POST", "/services/create", `{}`, "Content-Type", "application/json; charset=utf-8")
	if status != 400 || !strings.Contains(body, "mismatched Runtime") {
		t.Errorf("%d %s", status, body)
	}
}

func TestNotAManager(t *testing.T) {
	h := newHarness(t, noEngine)
	for _, c := range []struct {
		name   string
		status NodeStatus
		ping   string
		want   string
	}{
		{"new", NodeStatus{}, "inactive", msgNotManager},
		{"inactive", NodeStatus{State: swarm.LocalNodeStateInactive}, "inactive", msgNotManager},
		{"worker", NodeStatus{State: swarm.LocalNodeStateActive}, "active/worker", msgWorker},
		{"pending", NodeStatus{State: swarm.LocalNodeStatePending}, "pending", msgNotReady},
		{"locked", NodeStatus{State: swarm.LocalNodeStateLocked}, "locked", msgLocked},
		{"error", NodeStatus{State: swarm.LocalNodeStateError, Err: "disk full"}, "error", "disk full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.node.set(c.status, nil)
			status, _, body := h.call("GET", "/nodes", "")
			var e struct{ Message string }
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != 503 || e.Message != c.want {
				t.Errorf("%d %s", status, body)
			}
			if _, header, _ := h.call("HEAD", "/_ping", ""); header.Get("Swarm") != c.ping {
				t.Errorf("ping says %q, want %q", header.Get("Swarm"), c.ping)
			}
		})
	}
	h.node.set(NodeStatus{}, nil)
	if status, _, body := h.call("POST", "/swarm/leave", ""); status != 503 || !strings.Contains(body, msgNoSwarm) {
		t.Errorf("leave: %d %s", status, body)
	}
	for body, want := range map[string]string{`{}`: "invalid empty address", `{"ListenAddr":"0.0.0.0:2377"}`: "at least 1 RemoteAddr is required to join"} {
		if status, _, answer := h.call("POST", "/swarm/join", body); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("join with %s: %d %s", body, status, answer)
		}
	}
	if status, _, body := h.call("POST", "/swarm/join", `{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["a"]}`); status != 501 {
		t.Errorf("join: %d %s", status, body)
	}
}

func TestPing(t *testing.T) {
	h := newHarness(t, noEngine)
	status, header, body := h.call("GET", "/_ping", "")
	if status != 200 || body != "OK" {
		t.Errorf("%d %q", status, body)
	}
	for name, want := range map[string]string{
		"Api-Version": "1.50", "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "2", "Swarm": "inactive",
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Server": "Docker/test (linux)",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestStrangersAreNotServed(t *testing.T) {
	handler, err := New(Config{Node: newFakeNode(zap.NewNop()), Logs: &fakeLogs{}, Doctor: fakeDoctor{}, DockerHost: noEngine, Build: testBuild, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/info": 403, "/nodes": 403, "/containers/json": 403, "/shoal/doctor": 403, "/swarm/elsewhere": 403, "/_ping": 200} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	s := &server{log: zap.NewNop()}
	s.routes = []route{{"GET", "/boom", anybody, anyNode, func(http.ResponseWriter, *request) error { panic("boom") }}}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/boom", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "internal error while serving GET /boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRouteWithoutRuleIsRefused(t *testing.T) {
	serve := func(http.ResponseWriter, *request) error { return nil }
	for _, r := range []route{{"GET", "/a", 0, anyNode, serve}, {"GET", "/a", anybody, 0, serve}, {"GET", "/a", anybody, anyNode, nil}} {
		if r.check() == nil {
			t.Errorf("accepted %+v", r)
		}
	}
}

func TestPlain(t *testing.T) {
	for msg, want := range map[string]string{
		"node n is not a manager; join through a manager: failed precondition: unavailable": "node n is not a manager; join through a manager",
		"join token is for another cluster: permission denied":                              "join token is for another cluster",
		"open /x: permission denied by policy":                                              "open /x: permission denied by policy",
		"not found":                                                                         "not found",
	} {
		if got := plain(msg); got != want {
			t.Errorf("%q became %q, want %q", msg, got, want)
		}
	}
}

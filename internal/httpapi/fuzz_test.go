package httpapi

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/events"
	"shoal/internal/store"
)

// fuzzServer answers as a manager, without sockets. A panic is not recovered.
func fuzzServer(f *testing.F) *server {
	node := newFakeNode(zap.NewNop())
	handler, err := New(Config{Node: node, Logs: &fakeLogs{}, Doctor: fakeDoctor{}, Events: events.NewHub(), DockerHost: noEngine, Build: testBuild, Log: zap.NewNop()})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := node.Init(context.Background(), swarm.InitRequest{}); err != nil {
		f.Fatal(err)
	}
	return handler.(*server)
}

// fuzz runs a request past the recovery of panics, and checks what holds for
// every answer.
func (s *server) fuzz(t *testing.T, method, target, body string) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return
	}
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL = u
	r.Header.Set("Content-Type", "application/json")
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, administrator))
	w := httptest.NewRecorder()
	if err := s.dispatch(w, r); err != nil && statusOf(err) == 500 && !strings.Contains(err.Error(), "update out of sequence") &&
		!strings.Contains(err.Error(), "tail value") && !strings.Contains(err.Error(), "Bad parameters") {
		t.Fatalf("%s %s: %v is nobody's fault", method, target, err)
	}
}

func FuzzServiceBody(f *testing.F) {
	s := fuzzServer(f)
	for _, seed := range []string{
		``, `{}`, `null`, `{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"b","Mounts":[{}],"Ulimits":[null]}}}`,
		`{"Mode":{"Replicated":null,"Global":{}}}`, `{"EndpointSpec":{"Ports":[{"TargetPort":80}]}}`,
		`{"TaskTemplate":{"Placement":{"Constraints":["a==b"],"Preferences":[{}]},"Networks":[{}]}}`,
		`{"TaskTemplate":{"ContainerSpec":{"Image":"b"},"Resources":{"Limits":null}},"Networks":[{"Target":"ingress"}],"UpdateConfig":{}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s.fuzz(t, "POST", "/services/create", body)
		s.fuzz(t, "POST", "/swarm/update?version=1", body)
		s.fuzz(t, "POST", "/nodes/n1/update?version=1", body)
	})
}

func FuzzFilters(f *testing.F) {
	s := fuzzServer(f)
	for _, seed := range []string{``, `null`, `{}`, `[]`, `{"name":null}`, `{"label":{"a=b":true}}`, `{"label":["a"]}`, `{"service":["x"]}`, `{"role":{"manager":false}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filters string) {
		for _, path := range []string{"/services", "/tasks", "/nodes", "/secrets", "/configs"} {
			s.fuzz(t, "GET", path+"?filters="+url.QueryEscape(filters), "")
		}
	})
}

func FuzzPath(f *testing.F) {
	s := fuzzServer(f)
	for _, seed := range []string{"/", "//", "/v1.50", "/v1.50/", "/v1.41/nodes/a%2Fb", "/v99999999999.1/x", "/services/a/logs?stdout=1&tail=1", "/swarm//init", "/_ping", "/v.1/info"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if strings.Contains(path, "events") {
			return // does not end by itself: see FuzzEvents
		}
		s.fuzz(t, "GET", path, "")
	})
}

// FuzzBodies sends one body to whatever route may have one. There is one object of
// each kind that it can be about, in the version that is current.
func FuzzBodies(f *testing.F) {
	s := fuzzServer(f)
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `"x"`, `{"ListenAddr":"0.0.0.0:2377","Spec":{"Name":"x"}}`, `{"RemoteAddrs":[""],"JoinToken":"SWMTKN-1-a-b"}`,
		`{"UnlockKey":"SWMKEY-1-x"}`, `{"Name":"s","Data":"AA=="}`, `{"Name":"s","Labels":null,"Driver":{"Name":"x"},"Templating":{"Name":"golang"}}`,
		`{"Request":"-----BEGIN CERTIFICATE REQUEST-----","Name":"a","Expiry":-1}`, `{"Name":"n","Driver":"overlay","IPAM":{"Config":[{"Subnet":"::/0"}]}}`,
		`{"Role":"manager","Availability":"drain"}`, `{"CAConfig":{"ExternalCAs":[null],"SigningCACert":"x"},"Raft":{"ElectionTick":-1}}`,
		`{"Name":"x","Data":"e3suU2VydmljZS5OYW1lfX0=","Templating":{"Name":"golang"}}`, `[{"ID":"x","Spec":{"Name":"x"}},{"Spec":{}}]`,
		`{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b","Secrets":[{"SecretID":"x"}]},"RestartPolicy":{}},"Mode":{"Global":{}}}`,
		`{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"x":null}},"HostConfig":{"NetworkMode":"x"}}`, `{"Container":"c","EndpointConfig":{"IPAMConfig":null}}`,
		`{"username":"u","password":"p","serveraddress":"h"}`,
	} {
		f.Add(seed)
	}
	for path, body := range map[string]string{
		"/services/create": `{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"b"}}}`, "/networks/create": `{"Name":"x","Driver":"overlay","Attachable":true}`,
		"/secrets/create": `{"Name":"x","Data":"AA=="}`, "/configs/create": `{"Name":"x","Data":"AA=="}`,
	} {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if err := s.dispatch(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, administrator))); err != nil || w.Code != 201 {
			f.Fatalf("%s: %d %s %v", path, w.Code, w.Body, err)
		}
	}
	var routes []route
	for _, r := range s.routes {
		if r.where == managersLive || strings.Contains(r.pattern, "...") || r.method != "POST" && r.method != "PUT" {
			continue // a stream, or the engine's
		}
		routes = append(routes, r)
	}
	if len(routes) < 25 {
		f.Fatalf("only %d routes have a body: this looks in the wrong place", len(routes))
	}
	apart := fuzzServer(f) // for what ends a cluster, or begins another
	f.Fuzz(func(t *testing.T, body string) {
		for _, r := range routes {
			if strings.HasPrefix(r.pattern, "/swarm/") && r.pattern != "/swarm/update" {
				apart.fuzz(t, r.method, r.pattern, body)
				continue
			}
			path := strings.NewReplacer("{id}", "x", "{name}", "x", "{ref}", "x", "{host}", "x").Replace(r.pattern)
			if strings.HasPrefix(path, "/nodes") {
				path = strings.Replace(path, "x", "nodenode", 1)
			}
			s.fuzz(t, r.method, fmt.Sprintf("%s?version=%d", path, s.versionFor(path)), body)
		}
	})
}

// versionFor is the version of what a path is about, so that an update gets through.
func (s *server) versionFor(path string) uint64 {
	v := s.node.Control().View()
	one := func(o api.Object, ok bool) uint64 {
		if !ok {
			return 1
		}
		return o.Head().Version
	}
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/shoal"), "/"), "/"); kind {
	case "services":
		o, ok := v.Services.One(store.ByName, "x")
		return one(o, ok)
	case "secrets":
		o, ok := v.Secrets.One(store.ByName, "x")
		return one(o, ok)
	case "configs":
		o, ok := v.Configs.One(store.ByName, "x")
		return one(o, ok)
	case "swarm":
		return v.Cluster().Version
	case "nodes":
		for n := range v.Nodes.All() {
			return n.Version
		}
	}
	return 1
}

// FuzzEvents: the past alone, which ends.
func FuzzEvents(f *testing.F) {
	s := fuzzServer(f)
	f.Add("1", "2", `{"type":["node"]}`)
	f.Add("-1.5", "1.0000000001", `{"service":{"x":true}}`)
	f.Add("9223372036854775807", "0", `{`)
	f.Fuzz(func(t *testing.T, since, until, filters string) {
		at, err := parseStamp(until)
		if err != nil || at.IsZero() || at.Unix() > 1e9 {
			until = "1"
		}
		s.fuzz(t, "GET", "/events?since="+url.QueryEscape(since)+"&until="+url.QueryEscape(until)+"&filters="+url.QueryEscape(filters), "")
	})
}

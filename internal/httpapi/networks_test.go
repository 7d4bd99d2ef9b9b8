package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/api/types/network"

	"shoal/internal/api"
)

// TestOwnNetworks: networks of no cluster are the engine's, which gets what the
// client wrote. Those of one need one.
func TestOwnNetworks(t *testing.T) {
	const own = `{"Name":"own","Driver":"bridge"}`
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != own || r.ContentLength != int64(len(own)) {
			t.Errorf("the engine reads %q of %d, %v", body, r.ContentLength, err)
		}
		w.WriteHeader(http.StatusCreated)
	})
	h := newHarness(t, e.host)
	if status, _, body := h.call("POST", "/v1.50/networks/create", own); status != 201 || e.last() != "/v1.41/networks/create" {
		t.Errorf("own: %d %s, engine was asked %q", status, body, e.last())
	}
	for _, wanted := range []string{`{"Name":"o","Driver":"overlay"}`, `{"Name":"o","Scope":"swarm"}`, `{"name":"o","driver":"overlay"}`} {
		status, _, body := h.call("POST", "/networks/create", wanted)
		if status != 503 || !strings.Contains(body, "This node is not a swarm manager") {
			t.Errorf("%s: %d %s", wanted, status, body)
		}
	}
}

// mergedEngine has the usual networks, and its part of the cluster's "ov". No ID of a
// cluster, which is random, begins like that of "bridge".
func mergedEngine(t *testing.T, part *atomic.Value) *fakeEngine {
	return newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path[strings.Index(r.URL.Path, "/networks"):]
		switch {
		case r.Method == "GET" && path == "/networks":
			fmt.Fprintf(w, `[{"Name":"bridge","Id":"B0","Driver":"bridge","Scope":"local","Labels":{},"New":1},
				{"Name":"ov","Id":"e0","Driver":"shoal","Scope":"local","Labels":{"com.shoal.network.id":%q}}]`, part.Load())
		case r.Method == "GET" && path == "/networks/e0":
			_, _ = io.WriteString(w, `{"Name":"ov","Id":"e0","Containers":{"c0":{"Name":"one"}}}`)
		case r.Method == "POST" && path == "/networks/prune":
			_, _ = io.WriteString(w, `{"NetworksDeleted":["old"]}`)
		case r.Method == "POST":
			w.WriteHeader(http.StatusCreated)
		case r.Method == "DELETE":
			w.WriteHeader(http.StatusNoContent)
		default:
			_, _ = io.WriteString(w, `{"Name":"bridge","Id":"B0","Scope":"local"}`)
		}
	})
}

// TestMergedNetworks: one list of what the cluster has and what the engine has.
func TestMergedNetworks(t *testing.T) {
	var part atomic.Value // the cluster's ID of what the engine has
	part.Store("")
	h := newHarness(t, mergedEngine(t, &part).host)
	h.found()
	status, _, body := h.call("POST", "/v1.50/networks/create", `{"Name":"ov","Driver":"overlay","Attachable":true,"Labels":{"a":"b"},"IPAM":{"Driver":"default","Config":[{"Subnet":"10.77.1.0/24"}]}}`)
	var made network.CreateResponse
	if err := json.Unmarshal([]byte(body), &made); status != 201 || err != nil || len(made.ID) != 25 {
		t.Fatalf("create: %d %s", status, body)
	}
	part.Store(made.ID)

	names := func(path string) string {
		t.Helper()
		status, _, body := h.call("GET", path, "")
		var list []network.Summary
		if err := json.Unmarshal([]byte(body), &list); status != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		var out []string
		for _, n := range list {
			out = append(out, n.Name+"/"+n.Scope+"/"+n.Driver)
		}
		return strings.Join(out, " ")
	}
	for path, want := range map[string]string{
		`/networks`: "ingress/swarm/overlay ov/swarm/overlay bridge/local/bridge",
		`/networks?filters={"driver":{"overlay":true},"label":{"a=b":true},"type":{"custom":true},"scope":{"swarm":true}}`: "ov/swarm/overlay bridge/local/bridge", // the fake engine filters nothing
		`/networks?filters={"name":["ov"],"dangling":["true"]}`:                                                            "ov/swarm/overlay bridge/local/bridge",
		`/networks?filters={"id":["` + made.ID[:5] + `"]}`:                                                                 "ov/swarm/overlay bridge/local/bridge",
	} {
		got := names(path)
		if path == "/networks" {
			// In order of IDs, which are random.
			if !strings.Contains(got, "ingress/") || !strings.Contains(got, "ov/swarm") || strings.Count(got, " ") != 2 {
				t.Errorf("%s: %s", path, got)
			}
		} else if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if status, _, body := h.call("GET", `/networks?filters={"nope":["x"]}`, ""); status != 400 || !strings.Contains(body, "invalid filter 'nope'") {
		t.Errorf("unknown filter: %d %s", status, body)
	}

	for ref, want := range map[string]string{made.ID: "swarm", "ov": "swarm", made.ID[:8]: "swarm", "e0": "swarm", "bridge": "local", "B": "local"} {
		status, _, body := h.call("GET", "/v1.41/networks/"+ref, "")
		if status != 200 || !strings.Contains(body, `"Scope":"`+want+`"`) {
			t.Errorf("inspect %s: %d %s", ref, status, body)
		}
	}
	status, _, body = h.call("GET", "/networks/ov?verbose=true&scope=swarm", "")
	for _, want := range []string{`"Containers":{"c0":{"Name":"one"`, `"Subnet":"10.77.1.0/24","Gateway":"10.77.1.1"`, `"Attachable":true`, `"a":"b"`, `vxlanid_list`} {
		if !strings.Contains(body, want) {
			t.Errorf("inspect: %d %s, want %s", status, body, want)
		}
	}

	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/networks/nosuch", "", 404, "network nosuch not found"},
		{"GET", "/networks/none?scope=swarm", "", 404, "network none not found"},
		{"GET", "/networks/bridge?scope=swarm", "", 200, `"Scope":"swarm","Driver":"bridge"`},
		{"GET", "/networks/bridge", "", 200, `"Id":"B0"`},
		{"GET", "/networks/" + api.HostNetwork, "", 200, `"Name":"host"`},
		{"DELETE", "/networks/" + api.HostNetwork, "", 403, "host is a pre-defined network and cannot be removed"},
		{"GET", "/networks/ov?scope=local", "", 404, "network ov not found"},
		{"POST", "/networks/create", `{"Name":"ov","Driver":"overlay"}`, 409, "network with name ov already exists"},
		{"POST", "/networks/create", `{"Name":"ov","Driver":"bridge"}`, 409, "network with name ov already exists"},
		{"POST", "/networks/create", `{"Name":"host","Driver":"overlay"}`, 403, "host is a pre-defined network and cannot be created"},
		{"POST", "/networks/create", `{"Name":"i","Ingress":true,"Driver":"overlay"}`, 409, "ingress network (ingressingressingressingr) is already present"},
		{"POST", "/networks/create", `{"Name":"o2","Driver":"overlay","Options":{"shiny":""}}`, 501, "option shiny of overlay networks is not supported"},
		{"POST", "/networks/create", `{"Name":"o2","Driver":"macvlan","Scope":"swarm"}`, 501, "driver macvlan"},
		{"POST", "/networks/prune", ``, 200, `{"NetworksDeleted":["ov","old"]`},
		{"DELETE", "/networks/B0", "", 204, ""},
		{"DELETE", "/networks/ov", "", 204, ""}, // by now the engine's alone: what is left of it there is its own
		{"DELETE", "/networks/nosuch", "", 404, "network nosuch not found"},
	} {
		if status, _, body := h.call(c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.says)
		}
	}
}

func TestPick(t *testing.T) {
	net := func(id, name string) *api.Network {
		n := &api.Network{Meta: api.Meta{ID: id}}
		n.Spec.Name = name
		return n
	}
	all := candidates([]engineNetwork{
		{ID: "aa11", Name: "same"},
		{ID: "aa22", Name: "other"},
		{ID: "ff00", Name: "mine", Labels: map[string]string{labelNetwork: "zz1"}},
		{ID: "ff11", Name: "left", Labels: map[string]string{labelNetwork: "gone"}},
	}, []*api.Network{net("zz1", "mine"), net("zz2", "same"), net("other", "x")})
	for _, c := range []struct{ ref, scope, want string }{
		{"aa11", "", "aa11"},
		{"other", "", "other"}, // a whole ID goes before a name
		{"mine", "", "zz1"},
		{"ff00", "", "zz1"}, // the engine's ID of the cluster's network
		{"left", "", "ff11"},
		{"same", "swarm", "zz2"},
		{"same", "local", "aa11"},
		{"same", "", "network same is ambiguous (2 matches found on name)"},
		{"aa", "", "network aa is ambiguous (2 matches found based on ID prefix)"},
		{"aa2", "", "aa22"},
		{"zz", "local", "network zz not found"},
		{"nope", "", "network nope not found"},
	} {
		got, err := pick(c.ref, c.scope, all)
		if is := got.id; err != nil && err.Error() != c.want || err == nil && is != c.want {
			t.Errorf("%q in %q: %q, %v; want %s", c.ref, c.scope, got.id, err, c.want)
		}
	}
}

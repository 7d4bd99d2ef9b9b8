package httpapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

func TestUnknownFields(t *testing.T) {
	for body, want := range map[string]string{
		`{"Name":"a","labels":{"x":"y"}}`: "",
		`{"Fresh":1}`:                     "field Fresh is not supported",
		`{"TaskTemplate":{"ContainerSpec":{"Image":"b","Fresh":"x"}}}`:    "field TaskTemplate.ContainerSpec.Fresh ",
		`{"EndpointSpec":{"Ports":[{},{"TargetPort":80,"Fresh":[1]}]}}`:   "field EndpointSpec.Ports.Fresh ",
		`{"TaskTemplate":{"ContainerSpec":{"Labels":{"Fresh":"x"}}}}`:     "",
		`{"Fresh":null,"New":"","Other":{ },"More":[ ],"No":false,"N":0}`: "",
		`null`: "",
		`{"TaskTemplate":{"Resources":{"SwapBytes":1048576}}}`:                                  "field TaskTemplate.Resources.SwapBytes ",
		`{"TaskTemplate":{"Resources":{"MemorySwappiness":0}}}`:                                 "field TaskTemplate.Resources.MemorySwappiness ",
		`{"TaskTemplate":{"Resources":{"MemorySwappiness":null}}}`:                              "",
		`{"TaskTemplate":{"ContainerSpec":{"StopGracePeriod":5,"Healthcheck":{"Interval":1}}}}`: "",
	} {
		err := unknown(json.RawMessage(body), reflect.TypeFor[*swarm.ServiceSpec]())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestSpecRoundTrip: what the SDK's types hold comes back as it was, and an update
// from an old version is out of sequence.
func TestSpecRoundTrip(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	s := h.create("web", 1, `,"Labels":{"a":"b"},"UpdateConfig":{"Parallelism":2,"Order":"start-first"}`)
	spec := s.Spec
	spec.TaskTemplate.ContainerSpec.Env = []string{"A=b"}
	body, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	path := "/services/" + s.ID + "/update?version="
	if status, _, answer := h.call("POST", path+"1", string(body)); status != 500 || !strings.Contains(answer, "update out of sequence") {
		t.Errorf("an old version: %d %s", status, answer)
	}
	if status, _, answer := h.call("POST", path+jsonNumber(s.Version.Index), string(body)); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	if d := cmp.Diff(spec, get[swarm.Service](h, "/services/web").Spec); d != "" {
		t.Errorf("(-sent +read)\n%s", d)
	}
	fresh := strings.Replace(string(body), `"ContainerSpec":{`, `"ContainerSpec":{"Fresh":7,`, 1)
	if status, _, answer := h.call("POST", path+"1", fresh); status != 501 || !strings.Contains(answer, "TaskTemplate.ContainerSpec.Fresh") {
		t.Errorf("a field of another time: %d %s", status, answer)
	}
}

func jsonNumber(n uint64) string { b, _ := json.Marshal(n); return string(b) }

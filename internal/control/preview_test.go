package control

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// TestPreviewRefuses: a plan says what the requests themselves would be refused for,
// and writes nothing.
func TestPreviewRefuses(t *testing.T) {
	w := newWorld(t)
	w.create(spec("web", publish(ingress(80, 8080))))
	w.ports.taken["tcp/9999"] = "process 1 (sshd)"
	before := w.View().Index
	label := func(s *swarm.ServiceSpec) { s.Labels = map[string]string{api.PrivilegedLabel: "true"} }
	wishes := []api.Wish{
		{Spec: spec("other", publish(ingress(80, 8080)))},
		{Spec: spec("first", publish(ingress(80, 8081)))},
		{Spec: spec("second", publish(ingress(80, 8081)))},
		{Spec: spec("mighty", label)},
		{Spec: spec("taken", publish(ingress(80, 9999)))},
		{Spec: spec("web")},
		{ID: "web", Spec: spec("web", publish(ingress(80, 8080), ingress(81, 8082)))},
	}
	got, err := w.Preview(t.Context(), wishes)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"port '8080' is already in use by service 'web'", "", "port '8081' is already in use by service 'first'",
		"shoal.privileged", "sshd", "service web already exists", "",
	} {
		if (want == "") != (got[i].Refused == "") || !strings.Contains(got[i].Refused, want) {
			t.Errorf("%s: %q, want %q", wishes[i].Spec.Name, got[i].Refused, want)
		}
	}
	if now := w.View().Index; now != before || w.View().Services.Len() != 1 {
		t.Errorf("a preview has written: %d, was %d", now, before)
	}
}

// TestPreviewInOrder: what a wish gives up, those after it may have.
func TestPreviewInOrder(t *testing.T) {
	w := newWorld(t)
	old := w.create(spec("old", publish(ingress(80, 8080))))
	web := w.create(spec("web", publish(ingress(80, 8081))))
	takes := func(name string, port uint32) api.Wish { return api.Wish{Spec: spec(name, publish(ingress(80, port)))} }
	moved := api.Wish{ID: web.ID, Spec: spec("web", publish(ingress(80, 8082)))}
	gone := api.Wish{ID: old.ID, Remove: true}
	for name, test := range map[string]struct {
		wishes  []api.Wish
		refused string // of the last
	}{
		"removed":         {[]api.Wish{gone, takes("new", 8080)}, ""},
		"not removed":     {[]api.Wish{takes("new", 8080)}, "already in use by service 'old'"},
		"removed after":   {[]api.Wish{gone, takes("new", 8081)}, "already in use by service 'web'"},
		"its name":        {[]api.Wish{gone, takes("old", 8080)}, ""},
		"moved":           {[]api.Wish{moved, takes("new", 8081)}, ""},
		"moved to it":     {[]api.Wish{moved, takes("new", 8082)}, "already in use by service 'web'"},
		"gone before":     {[]api.Wish{gone, gone}, "service " + old.ID + " not found"},
		"taken over":      {[]api.Wish{gone, {ID: web.ID, Spec: spec("web", publish(ingress(80, 8080)))}, takes("new", 8081)}, ""},
		"taken over once": {[]api.Wish{gone, takes("new", 8080), takes("more", 8080)}, "already in use by service 'new'"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := w.Preview(t.Context(), test.wishes)
			if err != nil || len(got) != len(test.wishes) {
				t.Fatal(got, err)
			}
			for i, p := range got {
				want := ""
				if i == len(got)-1 {
					want = test.refused
				}
				if (want == "") != (p.Refused == "") || !strings.Contains(p.Refused, want) {
					t.Errorf("wish %d: %q, want %q", i, p.Refused, want)
				}
			}
		})
	}
}

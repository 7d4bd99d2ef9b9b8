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

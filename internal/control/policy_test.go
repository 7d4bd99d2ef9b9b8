package control

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

func TestClusterLabels(t *testing.T) {
	for label, says := range map[string]string{
		"team=a":                       "",
		"shoal.allow-privileged=true":  "",
		"shoal.allow-privileged=false": "",
		"shoal.allow-privileged=maybe": "must be true or false",
		"shoal.allow-everything=true":  "no such setting of a swarm",
	} {
		name, value, _ := strings.Cut(label, "=")
		err := validateClusterLabels(map[string]string{name: value})
		if got := text(err); says == "" && err != nil || !strings.Contains(got, says) {
			t.Errorf("%s: %q, want %q", label, got, says)
		}
	}
}

// What makes a container as mighty as its host is refused by name until an
// administrator has allowed it; what a service has already, it keeps.
func TestPrivilegedPolicy(t *testing.T) {
	c := newWorld(t)
	labelled := func(label, value string) swarm.ServiceSpec {
		s := spec("web")
		s.Labels = map[string]string{label: value}
		return s
	}
	wanted := map[string]string{api.PrivilegedLabel: "true", api.DevicesLabel: "/dev/fuse", api.GPUsLabel: "all"}
	for label, value := range wanted {
		_, err := c.CreateService(t.Context(), labelled(label, value), "")
		if got := text(err); !strings.Contains(got, "label "+label+" is not allowed in this swarm") || !strings.Contains(got, "shoal swarm update --allow-privileged") {
			t.Errorf("%s=%s: %q", label, value, got)
		}
	}
	allow := func(yes string) {
		t.Helper()
		cl, err := c.Cluster()
		if err != nil {
			t.Fatal(err)
		}
		cl.Spec.Labels = map[string]string{allowPrivileged: yes}
		if err := c.UpdateCluster(t.Context(), cl.Version.Index, cl.Spec, swarm.UpdateFlags{}); err != nil {
			t.Fatal(err)
		}
	}
	allow("true")
	id, err := c.CreateService(t.Context(), labelled(api.PrivilegedLabel, "true"), "")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := c.Service(id, false)
	allow("false")
	s := before.Spec
	s.Mode.Replicated.Replicas = new(uint64(0))
	if err := c.UpdateService(t.Context(), id, Update{Version: before.Version.Index, Spec: s}); err != nil {
		t.Errorf("a stricter policy stands in the way of scaling down: %v", err)
	}
	now, _ := c.Service(id, false)
	s.Labels = map[string]string{api.PrivilegedLabel: "true", api.DevicesLabel: "/dev/fuse"}
	if err := c.UpdateService(t.Context(), id, Update{Version: now.Version.Index, Spec: s}); err == nil {
		t.Error("a device was added against the policy")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

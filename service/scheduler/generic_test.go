package scheduler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

func named(kind, value string) swarm.GenericResource {
	return swarm.GenericResource{NamedResourceSpec: &swarm.NamedGenericResource{Kind: kind, Value: value}}
}

func discrete(kind string, value int64) swarm.GenericResource {
	return swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: value}}
}

// reserving is a revision that reserves generic resources.
func reserving(list ...swarm.GenericResource) *api.Revision {
	r := &api.Revision{ServiceID: "web"}
	r.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{GenericResources: list}}
	return r
}

func show(list []swarm.GenericResource) string {
	var out []string
	for _, r := range list {
		if n := r.NamedResourceSpec; n != nil {
			out = append(out, n.Kind+"="+n.Value)
		} else {
			out = append(out, fmt.Sprintf("%s=%d", r.DiscreteResourceSpec.Kind, r.DiscreteResourceSpec.Value))
		}
	}
	return strings.Join(out, " ")
}

// TestGenericResources: names are handed out one by one, amounts are counted,
// and both come back.
func TestGenericResources(t *testing.T) {
	n := testNode("n1", gib, nil)
	n.Description.Resources.GenericResources = []swarm.GenericResource{named("gpu", "b"), named("gpu", "a"), named("gpu", "c"), discrete("ssd", 3)}
	s := New()
	s.SetNode(testNode("n0", gib, nil)) // has none, and is less busy
	s.SetNode(n)
	rev := reserving(discrete("gpu", 1), discrete("ssd", 1), discrete("gpu", 1))
	place := func(i int) (*api.Task, error) {
		q, err := NewRequest(rev)
		if err != nil {
			t.Fatal(err)
		}
		task := testTask(i)
		task.ServiceID = "web"
		task.NodeID, task.Generic, err = s.Pass(q).Place(task)
		return task, err
	}
	first, err := place(1)
	if err != nil || first.NodeID != "n1" || show(first.Generic) != "gpu=a gpu=b ssd=1" {
		t.Fatalf("on %s: %s, %v", first.NodeID, show(first.Generic), err)
	}
	if _, err := place(2); err == nil || err.Error() != "no suitable node (insufficient gpu on 2 nodes: at most 1 free, 2 reserved by the service)" {
		t.Fatalf("the second: %v", err)
	}
	// What a leader reads from the store is what it had placed.
	again := New()
	again.SetNode(n)
	again.SetTask(first, rev)
	if names, _ := again.nodes["n1"].free("gpu"); len(names) != 1 || names[0] != "c" {
		t.Errorf("free after reading: %v", names)
	}
	s.RemoveTask(first.ID)
	if second, err := place(3); err != nil || show(second.Generic) != "gpu=a gpu=b ssd=1" {
		t.Errorf("after the first has gone: %s, %v", show(second.Generic), err)
	}
}

// TestPlugins: a task goes where the drivers that it names are.
func TestPlugins(t *testing.T) {
	plain, rich, silent := testNode("plain", gib, nil), testNode("rich", gib, nil), testNode("silent", gib, nil)
	plugin := func(typ, name string) swarm.PluginDescription { return swarm.PluginDescription{Type: typ, Name: name} }
	plain.Description.Engine.Plugins = []swarm.PluginDescription{plugin("Volume", "local"), plugin("Log", "json-file")}
	rich.Description.Engine.Plugins = []swarm.PluginDescription{plugin("Volume", "local"), plugin("Volume", "nfs:latest"), plugin("Log", "json-file"), plugin("Log", "gelf")}
	s := New()
	s.SetNode(plain)
	s.SetNode(rich)
	for _, tt := range []struct {
		volume, log, want string
	}{
		{"local", "json-file", ""},
		{"", "none", ""},
		{"nfs", "", "plain: volume driver nfs missing"},
		{"", "gelf", "plain: log driver gelf missing"},
		{"ceph", "", "plain: volume driver ceph missing; rich: volume driver ceph missing"},
	} {
		r := &api.Revision{ServiceID: "web"}
		r.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Mounts: []mount.Mount{{
			Type: mount.TypeVolume, VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: tt.volume}},
		}}}
		r.Spec.TaskTemplate.LogDriver = &swarm.Driver{Name: tt.log}
		q, err := NewRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range s.Explain(q) {
			if v.Why != "" {
				got = append(got, v.NodeID+": "+v.Why)
			}
		}
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("volume %q, log %q: %v, want %s", tt.volume, tt.log, got, tt.want)
		}
		one := New()
		one.SetNode(silent)
		if v := one.Explain(q); v[0].Why != "" {
			t.Errorf("an engine that names no plugins refuses: %s", v[0].Why)
		}
	}
}

// TestExplain gives each node's reason in the words of the whole.
func TestExplain(t *testing.T) {
	s := New()
	small, drain, down := testNode("small", 64<<20, nil), testNode("drain", gib, nil), testNode("down", gib, nil)
	drain.Spec.Availability = swarm.NodeAvailabilityDrain
	down.Status.State = swarm.NodeStateDown
	dead := api.Clone(down)
	dead.ID, dead.Status.Message = "dead", "no heartbeat for 2s"
	for _, n := range []*api.Node{small, drain, down, dead, testNode("good", gib, nil)} {
		s.SetNode(n)
	}
	got := map[string]string{}
	for _, v := range s.Explain(Request{ServiceID: "web", Memory: 128 << 20}) {
		got[v.NodeID] = v.Why
	}
	want := map[string]string{
		"small": "insufficient memory: 64MiB free, 128MiB reserved by the service",
		"drain": "drained", "down": "not ready", "dead": "not ready: no heartbeat for 2s", "good": "",
	}
	for id, why := range want {
		if got[id] != why {
			t.Errorf("%s: %q, want %q", id, got[id], why)
		}
	}
}

package control

import (
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// TestStackIndex: a number for what a plan depends on, and for nothing else.
func TestStackIndex(t *testing.T) {
	w := newWorld(t)
	w.put(&api.Node{Meta: api.Meta{ID: "n"}, Status: swarm.NodeStatus{State: swarm.NodeStateReady}})
	last := StackIndex(w.View(), "st")
	moves := func(what string, moved bool) {
		t.Helper()
		now := StackIndex(w.View(), "st")
		if (now != last) != moved {
			t.Errorf("%s: the index was %d and is %d", what, last, now)
		}
		last = now
	}
	mine := swarm.Annotations{Name: "st_a", Labels: map[string]string{api.StackLabel: "st"}}
	web := swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}}
	for _, step := range []struct {
		what  string
		moved bool
		do    func() error
	}{
		{"a service of another stack", false, func() error {
			_, err := w.CreateService(t.Context(), swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "o_a", Labels: map[string]string{api.StackLabel: "o"}}, TaskTemplate: web}, "")
			return err
		}},
		{"a service", true, func() error {
			_, err := w.CreateService(t.Context(), swarm.ServiceSpec{Annotations: mine, TaskTemplate: web}, "")
			return err
		}},
		{"a change of it", true, func() error {
			s, _ := w.View().Services.One(store.ByName, "st_a")
			spec := copySpec(s.Spec)
			spec.TaskTemplate.ContainerSpec.Image = "web:2"
			return w.UpdateService(t.Context(), "st_a", Update{Version: s.Version, Spec: spec})
		}},
		{"a secret", true, func() error {
			_, err := w.CreateSecret(t.Context(), swarm.SecretSpec{Annotations: mine, Data: []byte("x")})
			return err
		}},
		{"a config of nobody", false, func() error {
			_, err := w.CreateConfig(t.Context(), config("c", []byte("x")))
			return err
		}},
		{"a node that goes", true, func() error {
			w.put(&api.Node{Meta: api.Meta{ID: "n"}, Status: swarm.NodeStatus{State: swarm.NodeStateDown}})
			return nil
		}},
		{"the end of the service", true, func() error { return w.RemoveService(t.Context(), "st_a") }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		moves(step.what, step.moved)
	}
}

// TestCondition: of several deployments that were planned together one is let
// through, whatever else is written meanwhile.
func TestCondition(t *testing.T) {
	w := newWorld(t)
	cond := Condition{Stack: "st", Index: StackIndex(w.View(), "st")}
	const rivals = 20
	var all sync.WaitGroup
	errs := make([]error, 2*rivals)
	for i := range rivals {
		name := "s" + string(rune('a'+i))
		spec := swarm.ServiceSpec{
			Annotations:  swarm.Annotations{Name: name, Labels: map[string]string{api.StackLabel: "st"}},
			TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}},
		}
		all.Go(func() { _, errs[i] = w.CreateService(OnlyIf(t.Context(), cond), spec, "") })
		all.Go(func() { _, errs[rivals+i] = w.CreateConfig(t.Context(), config(name, []byte("x"))) })
	}
	all.Wait()
	through := 0
	for i, err := range errs {
		switch {
		case i >= rivals && err != nil:
			t.Errorf("without a condition: %v", err)
		case i < rivals && err == nil:
			through++
		case i < rivals && !strings.Contains(err.Error(), "the cluster has moved on"):
			t.Error(err)
		}
	}
	if through != 1 || w.View().Services.Len() != 1 {
		t.Errorf("%d came through, and there are %d services", through, w.View().Services.Len())
	}
}

// TestConditionOfManySteps: a request that takes several transactions depends on
// its first.
func TestConditionOfManySteps(t *testing.T) {
	w := newWorld(t)
	labels := map[string]string{api.StackLabel: "st"}
	if _, err := w.CreateSecret(t.Context(), swarm.SecretSpec{Annotations: swarm.Annotations{Name: "key", Labels: labels}, Data: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	const users = 60 // more than one transaction holds
	for i := range users {
		w.consumer("s"+string(rune('a'+i/26))+string(rune('a'+i%26)), "key", "")
	}
	replace := func(data string, index uint64) (Replacement, error) {
		ctx := OnlyIf(t.Context(), Condition{Stack: "st", Index: index})
		return w.ReplaceFile(ctx, api.KindSecret, "key", swarm.ConfigSpec{Data: []byte(data)}, MoveOthers)
	}
	before := StackIndex(w.View(), "st")
	r, err := replace(strings.Repeat("x", 400<<10), before)
	if err != nil || len(r.Services) != users {
		t.Fatalf("%d services moved, %v", len(r.Services), err)
	}
	if _, err := replace("three", before); err == nil || w.uses("saa") == "three" {
		t.Fatalf("it has moved on since: %v", err)
	}
}

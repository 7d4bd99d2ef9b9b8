package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/internal/testbed"
)

// seen is a service and the one container that runs of it.
type seen struct {
	service swarm.Service
	id      string // of the container
	spec    any    // the service as it was stored, in JSON's types
	box     any    // the container, in JSON's types
}

// see waits for the one task of a service to run with its present spec, in
// another container than the one named, if one is: ports are no part of a task's
// spec, and Docker Swarm takes its time.
func (c way) see(t *testing.T, name, unlike string) seen {
	t.Helper()
	var s seen
	// Two engines start many containers at once here.
	testbed.Eventually(t, 4*patience, func() error {
		service, raw, err := c.api.ServiceInspectWithRaw(t.Context(), name, swarm.ServiceInspectOptions{})
		if err != nil {
			return err
		}
		if u := service.UpdateStatus; u != nil && u.State != swarm.UpdateStateCompleted && u.State != swarm.UpdateStateRollbackCompleted {
			return fmt.Errorf("%s: %s is being updated: %s %s", c.name, name, u.State, u.Message)
		}
		tasks, err := c.api.TaskList(t.Context(), swarm.TaskListOptions{Filters: filters.NewArgs(
			filters.Arg("service", name), filters.Arg("desired-state", "running"), filters.Arg("desired-state", "complete"))})
		if err != nil {
			return err
		}
		if len(tasks) != 1 || tasks[0].Status.State != swarm.TaskStateRunning {
			return fmt.Errorf("%s: %s does not run: %s", c.name, name, statesOf(tasks))
		}
		if want, has := containerPart(service.Spec.TaskTemplate), containerPart(tasks[0].Spec); want != has {
			return fmt.Errorf("%s: %s runs %s, want %s", c.name, name, has, want)
		}
		if containerOf(tasks[0]) == unlike && unlike != "" {
			return fmt.Errorf("%s: %s has the container of before", c.name, name)
		}
		s.service, s.id = service, containerOf(tasks[0])
		return json.Unmarshal(raw, &s.spec)
	})
	in, raw, err := c.engine.ContainerInspectWithRaw(t.Context(), s.id, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &s.box); err != nil {
		t.Fatal(err)
	}
	s.id = in.ID
	return s
}

// containerPart is what of a task's spec can only change with the container.
func containerPart(t swarm.TaskSpec) string {
	raw, err := json.Marshal([]any{t.ContainerSpec, t.Resources, t.LogDriver, t.ForceUpdate})
	if err != nil {
		panic(err) // it came as JSON
	}
	return string(raw)
}

func statesOf(tasks []swarm.Task) string {
	var all []string
	for _, t := range tasks {
		all = append(all, fmt.Sprintf("%s %q", t.Status.State, t.Status.Err))
	}
	return strings.Join(all, ", ")
}

// at fails unless a value is where a row says, "A/B/0 = 1".
func at(t *testing.T, what string, in any, rule string) {
	t.Helper()
	if rule == "" {
		return
	}
	path, want, ok := strings.Cut(rule, " = ")
	if !ok {
		t.Fatalf("not a rule: %q", rule)
	}
	got, err := json.Marshal(lookup(in, strings.Split(path, "/")))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s: %s is %s, want %s", what, path, got, want)
	}
}

func lookup(in any, path []string) any {
	for _, key := range path {
		switch v := in.(type) {
		case map[string]any:
			in = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				return nil
			}
			in = v[i]
		default:
			return nil
		}
	}
	return in
}

// comparable takes out of a service what is its alone.
func (s seen) comparable(name string) any {
	spec := maps.Clone(s.spec.(map[string]any)["Spec"].(map[string]any))
	if spec["Name"] != name {
		return "the name is " + fmt.Sprint(spec["Name"])
	}
	spec["Name"] = ""
	if template, ok := spec["TaskTemplate"].(map[string]any); ok {
		template = maps.Clone(template)
		container := maps.Clone(template["ContainerSpec"].(map[string]any))
		container["Env"] = inOrder(container["Env"])
		container["Secrets"], container["Configs"] = without(container["Secrets"], "SecretID"), without(container["Configs"], "ConfigID")
		template["Networks"] = without(template["Networks"], "Target")
		template["ContainerSpec"], spec["TaskTemplate"] = container, template
	}
	return spec
}

// without takes out of a list of objects what is another in each cluster, an ID,
// and puts them in order: some are kept in that of their IDs.
func without(list any, key string) []any {
	all, _ := list.([]any)
	var out []any
	for _, o := range all {
		o := maps.Clone(o.(map[string]any))
		delete(o, key)
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return out
}

// attached tells whether a service names networks or files, which Docker Swarm's
// engine gives a container in its own ways.
func (s seen) attached() bool {
	template := s.service.Spec.TaskTemplate
	return len(template.Networks)+len(template.ContainerSpec.Secrets)+len(template.ContainerSpec.Configs) > 0
}

// inOrder puts a list of texts in order.
func inOrder(list any) []string {
	var out []string
	all, _ := list.([]any)
	for _, v := range all {
		out = append(out, fmt.Sprint(v))
	}
	slices.Sort(out)
	return out
}

// comparableBox takes out of a container what differs between two of the same
// service, and between engines' ways to say nothing.
func (s seen) comparableBox() any {
	box := s.box.(map[string]any)
	config, host := maps.Clone(box["Config"].(map[string]any)), maps.Clone(box["HostConfig"].(map[string]any))
	labels := map[string]any{}
	for k, v := range config["Labels"].(map[string]any) {
		switch {
		case strings.HasPrefix(k, "com.shoal."):
		case strings.HasPrefix(k, "com.docker.swarm."):
			labels[k] = "" // an ID or a name
		default:
			labels[k] = v
		}
	}
	config["Labels"] = labels
	config["Env"] = inOrder(config["Env"]) // an update gives it in any order
	// Swarm names its grace period when it stops a container; here the container
	// knows it, so that it ends properly whoever stops it.
	delete(config, "StopTimeout")
	if name := config["Hostname"].(string); regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(name) {
		delete(config, "Hostname")
	}
	if policy, _ := host["RestartPolicy"].(map[string]any); policy["Name"] == "no" || policy["Name"] == "" {
		delete(host, "RestartPolicy")
	}
	if s.attached() {
		for _, ours := range []string{"Mounts", "NetworkMode", "Dns"} {
			delete(host, ours)
		}
	}
	maps.DeleteFunc(host, func(_ string, v any) bool {
		switch v := v.(type) {
		case map[string]any:
			return len(v) == 0
		case []any:
			return len(v) == 0
		}
		return v == nil
	})
	return map[string]any{"Config": config, "HostConfig": host}
}

// same fails unless all clusters have the same service and the same container.
func same(t *testing.T, all []way, got []seen, name string) {
	t.Helper()
	swarm := len(all) - 1
	for i := range all[:swarm] {
		if diff := cmp.Diff(got[swarm].comparable(name), got[i].comparable(name+suffix(all[i]))); diff != "" {
			t.Errorf("%s: the spec is not the one of Docker Swarm (-):\n%s", all[i].name, diff)
		}
		if diff := cmp.Diff(got[swarm].comparableBox(), got[i].comparableBox()); diff != "" {
			t.Errorf("%s: the container is not the one of Docker Swarm (-):\n%s", all[i].name, diff)
		}
	}
}

package events

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/internal/api"
)

func node(change func(n *api.Node)) *api.Node {
	n := &api.Node{Meta: api.Meta{ID: "n1"}, Role: swarm.NodeRoleManager}
	n.Spec.Availability, n.Spec.Role = swarm.NodeAvailabilityActive, swarm.NodeRoleManager
	n.Description.Hostname, n.Status.State = "host", swarm.NodeStateReady
	if change != nil {
		change(n)
	}
	return n
}

// TestLeads: a new leader is an update of two nodes, or of those that are left.
func TestLeads(t *testing.T) {
	h := NewHub()
	other := node(func(n *api.Node) { n.ID, n.Spec.Name = "n2", "other" })
	h.Leads(time.Unix(1700000000, 42), node(nil), other)
	h.Leads(time.Unix(1700000001, 0), nil, node(nil))
	var got []string
	for _, m := range h.Before(h.Now()) {
		a := m.Actor.Attributes
		got = append(got, fmt.Sprint(m.Type, " ", m.Action, " ", m.Actor.ID, " ", a["name"], ": ", a["leader.old"], " to ", a["leader.new"], ", ", m.Scope, len(a)))
	}
	want := []string{
		"node update n1 host: true to false, swarm3", "node update n2 other: false to true, swarm3",
		"node update n1 host: false to true, swarm3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func file(retired bool) *api.File {
	f := &api.File{Meta: api.Meta{ID: "f1"}, Of: api.KindSecret, Retired: retired}
	f.Spec.Name = "key"
	return f
}

func service(image string, replicas uint64, state swarm.UpdateState) *api.Service {
	s := &api.Service{Meta: api.Meta{ID: "s1"}}
	s.Spec.Name = "web"
	s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: image}
	s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	if state != "" {
		s.UpdateStatus = &swarm.UpdateStatus{State: state}
	}
	return s
}

// TestDescribe: a change in Docker's words.
func TestDescribe(t *testing.T) {
	at := time.Unix(1700000000, 42)
	type attributes = map[string]string
	for name, c := range map[string]struct {
		old, now api.Object
		kind     events.Type
		action   events.Action
		id       string
		want     attributes
	}{
		"a node joins":  {nil, node(nil), "node", "create", "n1", attributes{"name": "host"}},
		"a node leaves": {node(nil), nil, "node", "remove", "n1", attributes{"name": "host"}},
		"a node has a name": {
			node(nil), node(func(n *api.Node) { n.Spec.Name = "db" }), "node", "update", "n1",
			attributes{"name": "db"},
		},
		"a manager is drained, demoted and lost": {node(nil), node(func(n *api.Node) {
			n.Spec.Availability, n.Spec.Role, n.Status.State = swarm.NodeAvailabilityDrain, swarm.NodeRoleWorker, swarm.NodeStateDown
		}), "node", "update", "n1", attributes{
			"name": "host", "availability.old": "active", "availability.new": "drain", "role.old": "manager", "role.new": "worker",
			"state.old": "ready", "state.new": "down", "reachability.old": "reachable", "reachability.new": "unreachable",
		}},
		"what users do not see of a node": {node(nil), node(func(n *api.Node) { n.Keys = []string{"k"} }), "", "", "", nil},
		"a service is made":               {nil, service("a", 1, ""), "service", "create", "s1", attributes{"name": "web"}},
		"an update begins": {service("a", 1, ""), service("b", 3, swarm.UpdateStateUpdating), "service", "update", "s1", attributes{
			"name": "web", "image.old": "a", "image.new": "b", "replicas.old": "1", "replicas.new": "3", "updatestate.new": "updating",
		}},
		"an update ends": {
			service("a", 1, swarm.UpdateStateUpdating), service("a", 1, swarm.UpdateStateCompleted), "service", "update", "s1",
			attributes{"name": "web", "updatestate.old": "updating", "updatestate.new": "completed"},
		},
		"a network is removed":        {&api.Network{Meta: api.Meta{ID: "x"}}, nil, "network", "remove", "x", attributes{"name": ""}},
		"a secret is made":            {nil, file(false), "secret", "create", "f1", attributes{"name": "key"}},
		"a secret has other labels":   {file(false), file(false), "secret", "update", "f1", attributes{"name": "key"}},
		"a secret that is still used": {file(false), file(true), "secret", "remove", "f1", attributes{"name": "key"}},
		"which nobody uses any more":  {file(true), nil, "", "", "", nil},
		"a secret is removed":         {file(false), nil, "secret", "remove", "f1", attributes{"name": "key"}},
		"a secret is gone back to":    {file(true), file(false), "secret", "create", "f1", attributes{"name": "key"}},
		"a task":                      {nil, &api.Task{}, "", "", "", nil},
	} {
		m, ok := describe(at, c.old, c.now)
		if !ok {
			if c.kind != "" {
				t.Errorf("%s: no event", name)
			}
			continue
		}
		want := events.Message{
			Type: c.kind, Action: c.action, Actor: events.Actor{ID: c.id, Attributes: c.want}, Scope: "swarm", Time: 1700000000, TimeNano: at.UnixNano(),
		}
		if d := cmp.Diff(want, m); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

// TestHub: readers are woken, the past is bounded, and who falls behind is told.
func TestHub(t *testing.T) {
	h := NewHub()
	_, ready, err := h.From(h.Now())
	if err != nil || ready == nil {
		t.Fatalf("an empty hub has an event, or %v", err)
	}
	at := time.Unix(0, 0)
	for n := range Kept + 10 {
		h.Observe(at.Add(time.Duration(n)), nil, node(nil))
	}
	select {
	case <-ready:
	default:
		t.Error("a reader who waits is not woken")
	}
	if _, _, err := h.From(0); !errors.Is(err, ErrBehind) {
		t.Errorf("the first event is long gone: %v", err)
	}
	if m, ready, err := h.From(10); err != nil || ready != nil || m.TimeNano != 10 {
		t.Errorf("the oldest event: %v %v", m, err)
	}
	past := h.Before(h.Now() - 1)
	if len(past) != Kept-1 || past[0].TimeNano != 10 || past[len(past)-1].TimeNano != Kept+8 {
		t.Errorf("%d past events", len(past))
	}
}

func TestMatch(t *testing.T) {
	m := &events.Message{Type: "service", Action: "update", Scope: "swarm", Actor: events.Actor{ID: "s1abc", Attributes: map[string]string{"name": "web"}}}
	sick := &events.Message{Type: "container", Action: "health_status: unhealthy", Scope: "local"}
	for _, c := range []struct {
		m      *events.Message
		filter []string // key, value
		want   bool
	}{
		{m, nil, true},
		{m, []string{"type", "service"}, true},
		{m, []string{"type", "node"}, false},
		{m, []string{"type", "node", "type", "service"}, true},
		{m, []string{"scope", "swarm"}, true},
		{m, []string{"scope", "local"}, false},
		{m, []string{"event", "update"}, true},
		{m, []string{"event", "remove"}, false},
		{m, []string{"service", "web"}, true},
		{m, []string{"service", "s1"}, true},
		{m, []string{"service", "db"}, false},
		{m, []string{"node", "n1"}, false}, // not of a node at all
		{m, []string{"label", "a=b"}, false},
		{sick, []string{"event", "health_status"}, true},
		{sick, []string{"event", "health_status: healthy"}, false},
	} {
		f := filters.NewArgs()
		for i := 0; i < len(c.filter); i += 2 {
			f.Add(c.filter[i], c.filter[i+1])
		}
		if got := Match(f, c.m); got != c.want {
			t.Errorf("%s with %v: %v", c.m.Type, c.filter, got)
		}
	}
	for text, want := range map[string]bool{
		``:                                      false,
		`{"scope":{"swarm":true}}`:              true,
		`{"scope":{"swarm":true,"local":true}}`: false,
		`{"type":["service","node"]}`:           true,
		`{"type":["network"]}`:                  false,
		`{"type":["service","container"]}`:      false,
		`{"service":["web"]}`:                   false,
	} {
		f, err := filters.FromJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := OnlyCluster(f); got != want {
			t.Errorf("OnlyCluster(%s) = %v", text, got)
		}
	}
}

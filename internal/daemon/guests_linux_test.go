package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/seal"
	"shoal/internal/api"
)

// TestWayOut: a task leaves its networks by the first that has a way out, and
// meets the host at the first if none has.
func TestWayOut(t *testing.T) {
	s := &api.NodeState{Networks: map[string]*api.Network{}, Tasks: map[string]*api.Assignment{}}
	for _, id := range []string{"shut", "shut2", "ingress", "front"} {
		s.Networks[id] = &api.Network{Meta: api.Meta{ID: id}}
		s.Networks[id].Spec.Internal = id == "shut" || id == "shut2"
	}
	addr := netip.MustParsePrefix("10.0.0.7/24") // the same on all: they are told apart by network
	for i, c := range []struct {
		networks []string
		want     string
	}{
		{[]string{"ingress", "front"}, "ingress"},
		{[]string{"front"}, "front"},
		{[]string{"shut", "front"}, "front"},
		{[]string{"shut", "shut2"}, "shut"},
	} {
		a := &api.Assignment{Task: &api.Task{}}
		for _, n := range c.networks {
			a.Task.Networks = append(a.Task.Networks, api.Attachment{NetworkID: n, Addr: addr})
		}
		s.Tasks = map[string]*api.Assignment{"t": a}
		m := &member{}
		m.state.Store(s)
		for _, n := range c.networks {
			if yes, known := newGuests(m).WayOut(n, addr.Addr()); !known || yes != (n == c.want) {
				t.Errorf("case %d, %s: %v, known %v", i, n, yes, known)
			}
		}
		if _, known := newGuests(m).WayOut("front", netip.MustParseAddr("10.0.0.8")); known {
			t.Error("who is no task leaves as it likes")
		}
		if newGuests(m).Stranger(c.networks[0], addr.Addr()) || !newGuests(m).Stranger("front", netip.MustParseAddr("10.0.0.8")) {
			t.Error("who is a task and who is not")
		}
	}
	if _, known := newGuests(&member{}).WayOut("front", addr.Addr()); known {
		t.Error("known before the managers were heard")
	}
	if newGuests(&member{}).Stranger("front", addr.Addr()) {
		t.Error("told from tasks before the managers were heard")
	}
}

// TestAskForATask: a task that runs has its address; one that is over has none, and
// who names it is a guest like any other.
func TestAskForATask(t *testing.T) {
	addr := netip.MustParsePrefix("10.0.0.7/24")
	for state, granted := range map[swarm.TaskState]bool{
		swarm.TaskStateAssigned: true, swarm.TaskStateRunning: true,
		swarm.TaskStateFailed: false, swarm.TaskStateShutdown: false, swarm.TaskStateOrphaned: false,
	} {
		task := &api.Task{Networks: []api.Attachment{{NetworkID: "front", Addr: addr}}}
		task.Status.State = state
		// The managers are out of reach: a locked one asks nobody.
		m := &member{locked: &seal.File{}}
		m.state.Store(&api.NodeState{Tasks: map[string]*api.Assignment{"t": {Task: task}}})
		if given, err := newGuests(m).Ask(t.Context(), "front", addr.Addr()); (err == nil) != granted {
			t.Errorf("a task that is %s: %v, %v", state, given, err)
		}
	}
	// On a small network an address soon has another owner, here as well.
	over, runs := &api.Task{Networks: []api.Attachment{{NetworkID: "front", Addr: addr}}}, &api.Task{Networks: []api.Attachment{{NetworkID: "front", Addr: addr}}}
	over.Status.State, runs.Status.State = swarm.TaskStateFailed, swarm.TaskStatePreparing
	s := &api.NodeState{Tasks: map[string]*api.Assignment{"runs": {Task: runs}}}
	for i := range 20 {
		s.Tasks[fmt.Sprint("over", i)] = &api.Assignment{Task: over}
	}
	m := &member{locked: &seal.File{}}
	m.state.Store(s)
	if given, err := newGuests(m).Ask(t.Context(), "front", addr.Addr()); err != nil || given != addr {
		t.Errorf("after tasks that had the same address: %v, %v", given, err)
	}
}

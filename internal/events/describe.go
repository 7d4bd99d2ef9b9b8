package events

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// scope is that of all events of the cluster's objects.
const scope = "swarm"

// describe puts a change into Docker's words; false if users see none in it.
func describe(at time.Time, old, now api.Object) (events.Message, bool) {
	var (
		kind       events.Type
		attributes map[string]string
		unchanged  bool
	)
	action, subject := events.ActionUpdate, now
	switch {
	case now == nil:
		action, subject = events.ActionRemove, old
	case old == nil:
		action = events.ActionCreate
	}
	switch o := subject.(type) {
	case *api.Node:
		was, _ := old.(*api.Node)
		kind, attributes = events.NodeEventType, nodeAttributes(was, o, action)
		unchanged = action == events.ActionUpdate && sameNode(was, o)
	case *api.Service:
		was, _ := old.(*api.Service)
		kind, attributes = events.ServiceEventType, serviceAttributes(was, o, action)
	case *api.File:
		kind, attributes = events.Type(o.Of), map[string]string{"name": o.Spec.Name}
		// One that its name does not stand for any more is gone for users, and
		// stays for services that may go back to it.
		was, _ := old.(*api.File)
		switch retired, gone := was != nil && was.Retired, now == nil || o.Retired; {
		case retired && gone:
			unchanged = true
		case gone:
			action = events.ActionRemove
		case retired:
			action = events.ActionCreate
		}
	case *api.Network:
		kind, attributes = events.NetworkEventType, map[string]string{"name": o.Spec.Name}
	default:
		return events.Message{}, false
	}
	if unchanged {
		return events.Message{}, false
	}
	return message(at, kind, action, subject.Head().ID, attributes), true
}

func message(at time.Time, kind events.Type, action events.Action, id string, attributes map[string]string) events.Message {
	return events.Message{
		Type:   kind,
		Action: action,
		Actor:  events.Actor{ID: id, Attributes: attributes},
		Scope:  scope,
		Time:   at.Unix(), TimeNano: at.UnixNano(),
	}
}

// leads says that a node leads, or does not any more.
func leads(at time.Time, n *api.Node, now bool) events.Message {
	a := nodeAttributes(nil, n, events.ActionCreate)
	change(a, "leader", strconv.FormatBool(!now), strconv.FormatBool(now))
	return message(at, events.NodeEventType, events.ActionUpdate, n.ID, a)
}

// change notes what an attribute was and is, if these differ.
func change(attributes map[string]string, name, old, now string) {
	if old = strings.ToLower(old); old != strings.ToLower(now) {
		attributes[name+".old"], attributes[name+".new"] = old, strings.ToLower(now)
	}
}

func nodeAttributes(old, now *api.Node, action events.Action) map[string]string {
	a := map[string]string{"name": now.Spec.Name}
	if now.Spec.Name == "" {
		a["name"] = now.Description.Hostname // Docker's is empty then
	}
	if action != events.ActionUpdate {
		return a
	}
	change(a, "availability", string(old.Spec.Availability), string(now.Spec.Availability))
	change(a, "role", string(old.Spec.Role), string(now.Spec.Role))
	change(a, "state", string(old.Status.State), string(now.Status.State))
	if old.Role == swarm.NodeRoleManager && now.Role == swarm.NodeRoleManager {
		change(a, "reachability", reachability(old), reachability(now))
	}
	return a
}

func reachability(n *api.Node) string {
	if n.Status.State == swarm.NodeStateReady {
		return string(swarm.ReachabilityReachable)
	}
	return string(swarm.ReachabilityUnreachable)
}

// sameNode tells whether a node looks the same to users: managers note more of
// it than that.
func sameNode(a, b *api.Node) bool {
	return a.Role == b.Role && a.Addr == b.Addr && a.Status == b.Status &&
		reflect.DeepEqual(a.Spec, b.Spec) && reflect.DeepEqual(a.Description, b.Description)
}

func serviceAttributes(old, now *api.Service, action events.Action) map[string]string {
	a := map[string]string{"name": now.Spec.Name}
	if action != events.ActionUpdate {
		return a
	}
	if was, is := image(old), image(now); was != is {
		a["image.old"], a["image.new"] = was, is
	}
	if was, is := replicas(old), replicas(now); was != nil && is != nil && *was != *is {
		a["replicas.old"], a["replicas.new"] = strconv.FormatUint(*was, 10), strconv.FormatUint(*is, 10)
	}
	switch was, is := old.UpdateStatus, now.UpdateStatus; {
	case is == nil:
	case was == nil:
		a["updatestate.new"] = string(is.State)
	default:
		change(a, "updatestate", string(was.State), string(is.State))
	}
	return a
}

func image(s *api.Service) string {
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		return c.Image
	}
	return ""
}

func replicas(s *api.Service) *uint64 {
	if r := s.Spec.Mode.Replicated; r != nil {
		return r.Replicas
	}
	return nil
}

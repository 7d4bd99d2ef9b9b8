package events

import (
	"strings"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// named are the types of objects that a filter may name: by its beginning, of
// the ID or of the name.
var named = []events.Type{
	events.ContainerEventType, events.PluginEventType, events.VolumeEventType, events.NetworkEventType, events.ImageEventType,
	events.DaemonEventType, events.NodeEventType, events.ServiceEventType, events.SecretEventType, events.ConfigEventType,
}

// Match tells whether a reader wants an event, by the rules of the engine: every
// filter has to hold, whatever the type of the event.
func Match(f filters.Args, m *events.Message) bool {
	if !f.ExactMatch("type", string(m.Type)) || !f.ExactMatch("scope", m.Scope) {
		return false
	}
	if action, _, _ := strings.Cut(string(m.Action), ":"); !f.ExactMatch("event", string(m.Action)) && !f.ExactMatch("event", action) {
		return false
	}
	for _, t := range named {
		if !f.FuzzyMatch(string(t), m.Actor.ID) && !f.FuzzyMatch(string(t), m.Actor.Attributes["name"]) {
			return false
		}
	}
	return !f.Contains("label") || f.MatchKVList("label", m.Actor.Attributes)
}

// OnlyCluster tells whether a filter wants nothing that an engine could tell.
func OnlyCluster(f filters.Args) bool {
	if f.Contains("scope") && !f.ExactMatch("scope", "local") {
		return true
	}
	if !f.Contains("type") {
		return false
	}
	for _, t := range f.Get("type") {
		switch events.Type(t) {
		case events.NodeEventType, events.ServiceEventType, events.SecretEventType, events.ConfigEventType:
		default:
			return false
		}
	}
	return true
}

package scheduler

import (
	"slices"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Plugin is something that an engine has to have for a task: the driver of a
// volume, of a log, of a network of its own.
type Plugin struct{ Type, Name string }

// plugins lists what a spec needs. What every engine has is left out.
func plugins(t *swarm.TaskSpec) (out []Plugin) {
	add := func(typ, name string) {
		if p := (Plugin{typ, name}); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if c := t.ContainerSpec; c != nil {
		for _, m := range c.Mounts {
			if o := m.VolumeOptions; m.Type == mount.TypeVolume && o != nil && o.DriverConfig != nil {
				if name := o.DriverConfig.Name; name != "" && name != "local" {
					add("Volume", name)
				}
			}
		}
	}
	for _, n := range api.PredefinedOf(t) {
		add("Network", n.Spec.Name) // one of another system has neither
	}
	if l := t.LogDriver; l != nil && l.Name != "" && l.Name != "none" {
		add("Log", l.Name)
	}
	return out
}

// lacksPlugin gives the first plugin that a node has not got. An engine that
// names no plugins of a type at all does not tell.
func (q *Request) lacksPlugin(n *node) (lacking Plugin, found bool) {
	for _, p := range q.Plugins {
		told, has := false, false
		for _, have := range n.Description.Engine.Plugins {
			if have.Type != p.Type {
				continue
			}
			told = true
			has = has || strings.TrimSuffix(have.Name, ":latest") == strings.TrimSuffix(p.Name, ":latest")
		}
		if told && !has {
			return p, true
		}
	}
	return Plugin{}, false
}

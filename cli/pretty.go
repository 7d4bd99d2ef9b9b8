package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"
)

// page collects text; what it prints to is written once, at the end.
type page struct{ strings.Builder }

func (p *page) line(text string, args ...any) { fmt.Fprintf(p, text+"\n", args...) }

// list prints a heading, and the values on its line, each followed by a blank.
func (p *page) list(heading string, values []string) {
	if len(values) > 0 {
		p.line("%s%s ", heading, strings.Join(values, " "))
	}
}

// labels prints one label a line, each behind the mark.
func (p *page) labels(mark string, labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	p.line("Labels:")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if labels[key] == "" {
			p.line("%s%s", mark, key)
		} else {
			p.line("%s%s=%s", mark, key, labels[key])
		}
	}
}

func (p *page) flush(w io.Writer) error {
	_, err := io.WriteString(w, p.String())
	return err
}

// printService is service inspect --pretty.
func printService(w io.Writer, s swarm.Service, networks map[string]string) error {
	var p page
	p.line("")
	p.line("ID:\t\t%s", s.ID)
	p.line("Name:\t\t%s", s.Spec.Name)
	p.labels(" ", s.Spec.Labels)
	p.mode(s)
	p.updateStatus(s.UpdateStatus)
	p.placement(s.Spec.TaskTemplate.Placement)
	p.rollout("UpdateConfig", "Update order:      ", s.Spec.UpdateConfig)
	p.rollout("RollbackConfig", "Rollback order:    ", s.Spec.RollbackConfig)
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		p.container(c)
	}
	if d := s.Spec.TaskTemplate.LogDriver; d != nil {
		p.line("Log Driver:")
		p.line(" Name:\t\t%s", d.Name)
		if len(d.Options) > 0 {
			p.line(" LogOpts:")
			for _, key := range slices.Sorted(maps.Keys(d.Options)) {
				p.line("  %s:\t\t%s", key, d.Options[key])
			}
		}
	}
	p.resources(s.Spec.TaskTemplate.Resources)
	if len(s.Spec.TaskTemplate.Networks) > 0 {
		p.WriteString("Networks:")
		for _, n := range s.Spec.TaskTemplate.Networks {
			p.WriteString(" " + networks[n.Target])
		}
		p.line(" ")
	}
	mode := s.Endpoint.Spec.Mode
	if e := s.Spec.EndpointSpec; e != nil {
		mode = e.Mode
	}
	p.line("Endpoint Mode:\t%s", mode)
	if len(s.Endpoint.Ports) > 0 {
		p.line("Ports:")
		for _, port := range s.Endpoint.Ports {
			p.line(" PublishedPort = %d", port.PublishedPort)
			p.line("  Protocol = %s", port.Protocol)
			p.line("  TargetPort = %d", port.TargetPort)
			p.line("  PublishMode = %s ", port.PublishMode)
		}
	}
	p.line("")
	return p.flush(w)
}

func (p *page) mode(s swarm.Service) {
	switch m := s.Spec.Mode; {
	case m.Global != nil:
		p.line("Service Mode:\tGlobal")
	case m.Replicated != nil:
		p.line("Service Mode:\tReplicated")
		if m.Replicated.Replicas != nil {
			p.line(" Replicas:\t%d", *m.Replicated.Replicas)
		}
	case m.ReplicatedJob != nil:
		p.line("Service Mode:\tReplicated Job")
		if m.ReplicatedJob.MaxConcurrent != nil {
			p.line(" Max Concurrent:\t%d", *m.ReplicatedJob.MaxConcurrent)
		}
		if m.ReplicatedJob.TotalCompletions != nil {
			p.line(" Total Completions:\t%d", *m.ReplicatedJob.TotalCompletions)
		}
	case m.GlobalJob != nil:
		p.line("Service Mode:\tGlobal Job")
	}
	if stopped(s.Spec) {
		p.line(" Stopped:\ttrue")
	}
}

func (p *page) updateStatus(u *swarm.UpdateStatus) {
	if u == nil || u.StartedAt == nil {
		return
	}
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }
	p.line("UpdateStatus:")
	p.line(" State:\t\t%s", u.State)
	p.line(" Started:\t%s", ago(*u.StartedAt))
	if u.State == swarm.UpdateStateCompleted && u.CompletedAt != nil {
		p.line(" Completed:\t%s", ago(*u.CompletedAt))
	}
	p.line(" Message:\t%s", u.Message)
}

func (p *page) placement(pl *swarm.Placement) {
	p.line("Placement:")
	if pl == nil {
		return
	}
	if len(pl.Constraints) > 0 {
		p.line(" Constraints:\t%v", pl.Constraints)
	}
	if len(pl.Preferences) > 0 {
		var list []string
		for _, pref := range pl.Preferences {
			if pref.Spread != nil {
				list = append(list, "spread="+pref.Spread.SpreadDescriptor)
			}
		}
		p.line(" Preferences:\t%s", strings.Join(list, ", "))
	}
	if pl.MaxReplicas > 0 {
		p.line(" Max Replicas Per Node: %d", pl.MaxReplicas)
	}
}

func (p *page) rollout(heading, order string, c *swarm.UpdateConfig) {
	if c == nil {
		return
	}
	p.line("%s:", heading)
	p.line(" Parallelism:\t%d", c.Parallelism)
	if c.Delay > 0 {
		p.line(" Delay:\t\t%s", c.Delay)
	}
	p.line(" On failure:\t%s", c.FailureAction)
	if c.Monitor > 0 {
		p.line(" Monitoring Period: %s", c.Monitor)
	}
	p.line(" Max failure ratio: %v", c.MaxFailureRatio)
	p.line(" %s%s", order, c.Order)
}

func (p *page) container(c *swarm.ContainerSpec) {
	p.line("ContainerSpec:")
	p.line(" Image:\t\t%s", c.Image)
	p.list(" Command:\t", c.Command)
	p.list(" Args:\t\t", c.Args)
	p.list(" Env:\t\t", c.Env)
	if c.Dir != "" {
		p.line(" Dir:\t\t%s", c.Dir)
	}
	if c.Init != nil {
		p.line(" Init:\t\t%t", *c.Init)
	}
	if c.User != "" {
		p.line(" User: %s", c.User)
	}
	p.healthcheck(c.Healthcheck)
	if len(c.CapabilityAdd) > 0 || len(c.CapabilityDrop) > 0 {
		p.line("Capabilities:")
		if len(c.CapabilityAdd) > 0 {
			p.line(" Add: %s", strings.Join(c.CapabilityAdd, ", "))
		}
		if len(c.CapabilityDrop) > 0 {
			p.line(" Drop: %s", strings.Join(c.CapabilityDrop, ", "))
		}
	}
	if len(c.Ulimits) > 0 {
		p.line("Ulimits:")
		for _, u := range c.Ulimits {
			p.line(" %s:\t%d:%d", u.Name, u.Soft, u.Hard)
		}
	}
	p.mounts(c.Mounts)
	if len(c.Configs) > 0 {
		p.line("Configs:")
		for _, r := range c.Configs {
			if r.File != nil {
				p.line(" Target:\t%s", r.File.Name)
				p.line("  Source:\t%s", r.ConfigName)
			}
		}
	}
	if len(c.Secrets) > 0 {
		p.line("Secrets:")
		for _, r := range c.Secrets {
			if r.File != nil {
				p.line(" Target:\t%s", r.File.Name)
				p.line("  Source:\t%s", r.SecretName)
			}
		}
	}
}

func (p *page) healthcheck(h *container.HealthConfig) {
	if h == nil {
		return
	}
	p.line(" Healthcheck:")
	if len(h.Test) > 0 {
		p.line("  Test = %s", strings.Join(h.Test, " "))
	}
	for _, field := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Start Period", h.StartPeriod}, {"Timeout", h.Timeout}} {
		if field.value > 0 {
			p.line("  %s = %s", field.name, field.value)
		}
	}
	if h.Retries > 0 {
		p.line("  Retries = %d", h.Retries)
	}
}

func (p *page) mounts(list []mount.Mount) {
	if len(list) == 0 {
		return
	}
	p.line("Mounts:")
	for _, m := range list {
		p.line(" Target:\t%s", m.Target)
		p.line("  Source:\t%s", m.Source)
		p.line("  ReadOnly:\t%t", m.ReadOnly)
		p.line("  Type:\t\t%s", m.Type)
	}
}

func (p *page) resources(r *swarm.ResourceRequirements) {
	if r == nil {
		return
	}
	p.line("Resources:")
	cpus := func(nano int64) string { return fmt.Sprintf("%g", float64(nano)/1e9) }
	if res := r.Reservations; res != nil && (res.NanoCPUs > 0 || res.MemoryBytes > 0) {
		p.line(" Reservations:")
		if res.NanoCPUs > 0 {
			p.line("  CPU:\t\t%s", cpus(res.NanoCPUs))
		}
		if res.MemoryBytes > 0 {
			p.line("  Memory:\t%s", units.BytesSize(float64(res.MemoryBytes)))
		}
	}
	if l := r.Limits; l != nil && (l.NanoCPUs > 0 || l.MemoryBytes > 0 || l.Pids > 0) {
		p.line(" Limits:")
		if l.NanoCPUs > 0 {
			p.line("  CPU:\t\t%s", cpus(l.NanoCPUs))
		}
		if l.MemoryBytes > 0 {
			p.line("  Memory:\t%s", units.BytesSize(float64(l.MemoryBytes)))
		}
		if l.Pids > 0 {
			p.line("  PIDs:\t\t%d", l.Pids)
		}
	}
}

// printNode is node inspect --pretty.
func printNode(w io.Writer, n swarm.Node) error {
	var p page
	p.line("ID:\t\t\t%s", n.ID)
	if n.Spec.Name != "" {
		p.line("Name:\t\t\t%s", n.Spec.Name)
	}
	p.labels(" - ", n.Spec.Labels)
	p.line("Hostname:              \t%s", n.Description.Hostname)
	p.line("Joined at:             \t%s", strings.ToLower(n.CreatedAt.UTC().Format("2006-01-02 15:04:05.999999999 -0700 MST")))
	p.line("Status:")
	p.line(" State:\t\t\t%s", title(n.Status.State))
	if n.Status.Message != "" {
		p.line(" Message:\t\t%s", n.Status.Message)
	}
	p.line(" Availability:         \t%s", title(n.Spec.Availability))
	if n.Status.Addr != "" {
		p.line(" Address:\t\t%s", n.Status.Addr)
	}
	if m := n.ManagerStatus; m != nil {
		leader := "No"
		if m.Leader {
			leader = "Yes"
		}
		p.line("Manager Status:")
		p.line(" Address:\t\t%s", m.Addr)
		p.line(" Raft Status:\t\t%s", title(m.Reachability))
		p.line(" Leader:\t\t%s", leader)
	}
	p.line("Platform:")
	p.line(" Operating System:\t%s", n.Description.Platform.OS)
	p.line(" Architecture:\t\t%s", n.Description.Platform.Architecture)
	p.line("Resources:")
	p.line(" CPUs:\t\t\t%d", n.Description.Resources.NanoCPUs/1e9)
	p.line(" Memory:\t\t%s", units.BytesSize(float64(n.Description.Resources.MemoryBytes)))
	p.plugins(n.Description.Engine.Plugins)
	p.line("Engine Version:\t\t%s", n.Description.Engine.EngineVersion)
	if labels := n.Description.Engine.Labels; len(labels) > 0 {
		p.line("Engine Labels:")
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			p.line(" - %s=%s", key, labels[key])
		}
	}
	if tls := n.Description.TLSInfo; tls.TrustRoot != "" {
		p.line("TLS Info:")
		p.line(" TrustRoot:")
		p.line("%s", tls.TrustRoot)
		p.line(" Issuer Subject:\t%s", base64Of(tls.CertIssuerSubject))
		p.line(" Issuer Public Key:\t%s", base64Of(tls.CertIssuerPublicKey))
	}
	return p.flush(w)
}

func (p *page) plugins(list []swarm.PluginDescription) {
	byType := map[string][]string{}
	for _, plugin := range list {
		byType[plugin.Type] = append(byType[plugin.Type], plugin.Name)
	}
	if len(byType) == 0 {
		return
	}
	p.line("Plugins:")
	for _, kind := range slices.Sorted(maps.Keys(byType)) {
		sort.Strings(byType[kind])
		p.line(" %s:\t\t%s", kind, strings.Join(byType[kind], ", "))
	}
}

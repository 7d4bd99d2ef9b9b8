package spec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/flags"
	"shoal/internal/api"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

// Update applies the flags of service update to a service's spec, in place. Secrets, configs and networks need the
// server to know their IDs and have functions of their own.
func Update(f flags.Set, s *swarm.ServiceSpec) error {
	task := &s.TaskTemplate
	if task.ContainerSpec == nil {
		task.ContainerSpec = &swarm.ContainerSpec{}
	}
	s.Labels = editMap(f, "label", s.Labels)
	updateContainer(f, task.ContainerSpec)
	updateResources(f, task)
	task.RestartPolicy = restartPolicy(f, task.RestartPolicy)
	updatePlacement(f, task)
	if f.Changed("log-driver") {
		task.LogDriver = logDriver(f)
	}
	if f.Bool("force") {
		task.ForceUpdate++
	}
	health, err := healthcheck(f, task.ContainerSpec.Healthcheck)
	if err != nil {
		return err
	}
	task.ContainerSpec.Healthcheck = health
	if err := updateMode(f, &s.Mode); err != nil {
		return err
	}
	s.UpdateConfig = rollout(f, "update", s.UpdateConfig)
	s.RollbackConfig = rollout(f, "rollback", s.RollbackConfig)
	if err := updateEndpoint(f, s); err != nil {
		return err
	}
	return updateMounts(f, &task.ContainerSpec.Mounts)
}

func updateContainer(f flags.Set, c *swarm.ContainerSpec) {
	set(f, "image", &c.Image)
	set(f, "args", &c.Args)
	set(f, "entrypoint", &c.Command)
	set(f, "workdir", &c.Dir)
	set(f, "user", &c.User)
	set(f, "hostname", &c.Hostname)
	set(f, "stop-signal", &c.StopSignal)
	set(f, "tty", &c.TTY)
	set(f, "read-only", &c.ReadOnly)
	set(f, "oom-score-adj", &c.OomScoreAdj)
	if f.Changed("isolation") {
		c.Isolation = container.Isolation(f.Text("isolation"))
	}
	if f.Changed("init") {
		c.Init = pointer(f.Bool("init"))
	}
	if f.Changed("stop-grace-period") {
		c.StopGracePeriod = pointer(flags.Get[time.Duration](f, "stop-grace-period"))
	}
	if f.Changed("credential-spec") {
		if c.Privileges == nil {
			c.Privileges = &swarm.Privileges{}
		}
		c.Privileges.CredentialSpec = flags.Get[*swarm.CredentialSpec](f, "credential-spec")
	}
	c.Labels = editMap(f, "container-label", c.Labels)
	c.Sysctls = editMap(f, "sysctl", c.Sysctls)
	c.Env = editEnv(f, c.Env)
	c.Groups = editList(f, "group", c.Groups)
	c.Hosts = editHosts(f, c.Hosts)
	if f.AnyChanged("dns-add", "dns-rm", "dns-option-add", "dns-option-rm", "dns-search-add", "dns-search-rm") {
		var dns swarm.DNSConfig
		if c.DNSConfig != nil {
			dns = *c.DNSConfig
		}
		dns.Nameservers = editList(f, "dns", dns.Nameservers)
		dns.Options = editList(f, "dns-option", dns.Options)
		dns.Search = editList(f, "dns-search", dns.Search)
		c.DNSConfig = &dns
	}
	if f.AnyChanged("ulimit-add", "ulimit-rm") {
		kept := slices.DeleteFunc(slices.Clone(c.Ulimits), func(l *container.Ulimit) bool {
			return slices.Contains(f.List("ulimit-rm"), l.Name)
		})
		c.Ulimits = sortedUlimits(append(kept, flags.Get[[]*container.Ulimit](f, "ulimit-add")...))
	}
	if f.AnyChanged("cap-add", "cap-drop") {
		c.CapabilityAdd, c.CapabilityDrop = editCapabilities(f, c.CapabilityAdd, c.CapabilityDrop)
	}
}

// editCapabilities adds to what is there. Adding what was dropped (or dropping what was added) only takes the old
// word back, so that the image's default holds again; doing it twice does it. RESET forgets what was there.
func editCapabilities(f flags.Set, oldAdd, oldDrop []string) (adds, drops []string) {
	give, take := api.Capabilities(f.List("cap-add"), f.List("cap-drop"))
	merge := func(old, given, opposite, oldOpposite []string) []string {
		out := slices.Clone(old)
		if slices.Contains(given, "RESET") {
			out = nil
		}
		for _, name := range given {
			if name != "RESET" && !slices.Contains(oldOpposite, name) {
				out = append(out, name)
			}
		}
		return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(opposite, name) })
	}
	return api.Capabilities(merge(oldAdd, give, take, oldDrop), merge(oldDrop, take, give, oldAdd))
}

func updateResources(f flags.Set, task *swarm.TaskSpec) {
	limits := f.AnyChanged("limit-cpu", "limit-memory", "limit-pids")
	reservations := f.AnyChanged("reserve-cpu", "reserve-memory", "generic-resource-add", "generic-resource-rm")
	if !limits && !reservations {
		return
	}
	if task.Resources == nil {
		task.Resources = &swarm.ResourceRequirements{}
	}
	if limits {
		if task.Resources.Limits == nil {
			task.Resources.Limits = &swarm.Limit{}
		}
		set(f, "limit-cpu", &task.Resources.Limits.NanoCPUs)
		set(f, "limit-memory", &task.Resources.Limits.MemoryBytes)
		set(f, "limit-pids", &task.Resources.Limits.Pids)
	}
	if reservations {
		if task.Resources.Reservations == nil {
			task.Resources.Reservations = &swarm.Resources{}
		}
		r := task.Resources.Reservations
		set(f, "reserve-cpu", &r.NanoCPUs)
		set(f, "reserve-memory", &r.MemoryBytes)
		r.GenericResources = editGeneric(f, r.GenericResources)
	}
}

func editGeneric(f flags.Set, old []swarm.GenericResource) []swarm.GenericResource {
	kind := func(r swarm.GenericResource) string {
		switch {
		case r.DiscreteResourceSpec != nil:
			return r.DiscreteResourceSpec.Kind
		case r.NamedResourceSpec != nil:
			return r.NamedResourceSpec.Kind
		}
		return ""
	}
	gone := f.List("generic-resource-rm")
	out := slices.DeleteFunc(slices.Clone(old), func(r swarm.GenericResource) bool { return slices.Contains(gone, kind(r)) })
	for _, added := range flags.Get[[]swarm.GenericResource](f, "generic-resource-add") {
		out = slices.DeleteFunc(out, func(r swarm.GenericResource) bool { return kind(r) == kind(added) })
		out = append(out, added)
	}
	return out
}

func updatePlacement(f flags.Set, task *swarm.TaskSpec) {
	if !f.AnyChanged("constraint-add", "constraint-rm", "placement-pref-add", "placement-pref-rm", "replicas-max-per-node") {
		return
	}
	if task.Placement == nil {
		task.Placement = &swarm.Placement{}
	}
	p := task.Placement
	p.Constraints = editList(f, "constraint", p.Constraints)
	set(f, "replicas-max-per-node", &p.MaxReplicas)

	gone := flags.Get[[]swarm.PlacementPreference](f, "placement-pref-rm")
	p.Preferences = slices.DeleteFunc(slices.Clone(p.Preferences), func(pref swarm.PlacementPreference) bool {
		return pref.Spread != nil && slices.ContainsFunc(gone, func(g swarm.PlacementPreference) bool { return *g.Spread == *pref.Spread })
	})
	p.Preferences = append(p.Preferences, flags.Get[[]swarm.PlacementPreference](f, "placement-pref-add")...)
}

func updateMode(f flags.Set, mode *swarm.ServiceMode) error {
	if f.Changed("replicas") {
		if err := Scale(mode, flags.Get[uint64](f, "replicas")); err != nil {
			return err
		}
	}
	if f.Changed("max-concurrent") {
		if mode.ReplicatedJob == nil {
			return errors.New("max-concurrent can only be used with replicated-job mode")
		}
		mode.ReplicatedJob.MaxConcurrent = pointer(flags.Get[uint64](f, "max-concurrent"))
	}
	return nil
}

// Scale sets how many tasks a service has, or a job completes.
func Scale(mode *swarm.ServiceMode, n uint64) error {
	switch {
	case mode.Replicated != nil:
		mode.Replicated.Replicas = &n
	case mode.ReplicatedJob != nil:
		mode.ReplicatedJob.TotalCompletions = &n
	default:
		return errors.New("replicas can only be used with replicated or replicated-job mode")
	}
	return nil
}

// targetPort is what --publish-rm names: a container's port.
type targetPort struct {
	number uint32
	proto  swarm.PortConfigProtocol
}

func parseTargetPort(value string) (targetPort, error) {
	if strings.Contains(value, "=") { // the long syntax, of which two things count
		ports, err := ParsePorts(value)
		if err != nil {
			return targetPort{}, err
		}
		return targetPort{ports[0].TargetPort, ports[0].Protocol}, nil
	}
	// A whole mapping is understood too: the part behind the colon is the container's.
	number, proto, err := parseUserPort(value[strings.LastIndex(value, ":")+1:])
	if err != nil || number == 0 {
		return targetPort{}, fmt.Errorf("%s: a target port is expected, such as 80 or 53/udp", value)
	}
	return targetPort{uint32(number), swarm.PortConfigProtocol(strings.ToLower(proto))}, nil
}

func updateEndpoint(f flags.Set, s *swarm.ServiceSpec) error {
	if !f.AnyChanged("endpoint-mode", "publish-add", "publish-rm") {
		return nil
	}
	var e swarm.EndpointSpec
	if s.EndpointSpec != nil {
		e = *s.EndpointSpec
	}
	if f.Changed("endpoint-mode") {
		e.Mode = swarm.ResolutionMode(f.Text("endpoint-mode"))
	}
	s.EndpointSpec = &e
	if !f.AnyChanged("publish-add", "publish-rm") {
		return nil
	}
	gone := flags.Get[[]targetPort](f, "publish-rm")
	ports := slices.DeleteFunc(slices.Clone(e.Ports), func(p swarm.PortConfig) bool {
		return slices.Contains(gone, targetPort{p.TargetPort, p.Protocol})
	})
	for _, group := range flags.Get[[][]swarm.PortConfig](f, "publish-add") {
		for _, p := range group {
			// What is published already stays as it is; the same published port for another target is refused by
			// the server with a better answer than could be given here.
			if !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	slices.SortStableFunc(ports, func(a, b swarm.PortConfig) int {
		return cmp.Or(cmp.Compare(a.PublishedPort, b.PublishedPort), cmp.Compare(a.TargetPort, b.TargetPort), compare(string(a.Protocol), string(b.Protocol)))
	})
	e.Ports = ports
	return nil
}

func updateMounts(f flags.Set, mounts *[]mount.Mount) error {
	if !f.AnyChanged("mount-add", "mount-rm") {
		return nil
	}
	seen := map[string]bool{}
	var out []mount.Mount
	for _, m := range flags.Get[[]mount.Mount](f, "mount-add") {
		if seen[m.Target] {
			return errors.New("duplicate mount target")
		}
		seen[m.Target] = true
		out = append(out, m)
	}
	for _, m := range *mounts {
		if !seen[m.Target] {
			out = append(out, m)
		}
	}
	gone := f.List("mount-rm")
	out = slices.DeleteFunc(out, func(m mount.Mount) bool { return slices.Contains(gone, m.Target) })
	slices.SortFunc(out, func(a, b mount.Mount) int { return cmp.Or(compare(a.Source, b.Source), compare(a.Target, b.Target)) })
	*mounts = out
	return nil
}

// editList applies NAME-rm, then NAME-add. What was edited is sorted, so that the order of edits makes no new spec.
func editList(f flags.Set, name string, old []string) []string {
	if !f.AnyChanged(name+"-add", name+"-rm") {
		return old
	}
	out := append(slices.Clone(old), f.List(name+"-add")...)
	slices.Sort(out)
	gone := f.List(name + "-rm")
	return slices.DeleteFunc(slices.Compact(out), func(item string) bool { return slices.Contains(gone, item) })
}

// editMap applies NAME-add, then NAME-rm, to a copy.
func editMap(f flags.Set, name string, old map[string]string) map[string]string {
	if !f.AnyChanged(name+"-add", name+"-rm") {
		return old
	}
	out := make(map[string]string, len(old))
	for key, value := range old {
		out[key] = value
	}
	for key, value := range pairs(f.List(name + "-add")) {
		out[key] = value
	}
	for _, item := range f.List(name + "-rm") {
		key, _, _ := strings.Cut(item, "=")
		delete(out, key)
	}
	return out
}

func editEnv(f flags.Set, old []string) []string {
	if !f.AnyChanged("env-add", "env-rm") {
		return old
	}
	gone := f.List("env-rm")
	return slices.DeleteFunc(byKey(append(slices.Clone(old), f.List("env-add")...)), func(item string) bool {
		key, _, _ := strings.Cut(item, "=")
		return slices.Contains(gone, key)
	})
}

// editHosts removes by name, or by name and address, and adds.
func editHosts(f flags.Set, old []string) []string {
	if !f.AnyChanged("host-add", "host-rm") {
		return old
	}
	var out []string
	gone := f.List("host-rm")
	for _, line := range old {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		names := slices.DeleteFunc(slices.Clone(words[1:]), func(name string) bool {
			return slices.Contains(gone, name) || slices.Contains(gone, name+":"+words[0])
		})
		if len(names) > 0 {
			out = append(out, words[0]+" "+strings.Join(names, " "))
		}
	}
	for _, line := range hostsFile(f.List("host-add")) {
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

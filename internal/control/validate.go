package control

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

const (
	maxNameLen = 63 // a DNS label: the name is one
	minCPU     = 1e6
	minMemory  = 4 << 20
	// maxSpec bounds an encoded spec. An update writes it up to three times in
	// one transaction (now, previous, revision), which store.MaxTxn limits.
	maxSpec = 128 << 10
	// minHealth is the shortest time the engine takes in a health check.
	minHealth = time.Millisecond
)

var (
	serviceName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)
	hostname    = regexp.MustCompile(`^[A-Za-z0-9](?:[-.]*[A-Za-z0-9]+)*\.?$`)
)

// validateSpec checks a normalized spec by itself. What can not be honoured is
// refused by name: a field is never ignored.
func validateSpec(s *swarm.ServiceSpec) error {
	for _, check := range []func(*swarm.ServiceSpec) error{
		validateName, validateSettings, validateMode, validateSize,
		func(s *swarm.ServiceSpec) error { return validateTask(&s.TaskTemplate) },
		func(s *swarm.ServiceSpec) error { return validateUpdate("update", s.UpdateConfig) },
		func(s *swarm.ServiceSpec) error { return validateUpdate("rollback", s.RollbackConfig) },
		func(s *swarm.ServiceSpec) error { return validateEndpoint(s.EndpointSpec) },
	} {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func validateName(s *swarm.ServiceSpec) error {
	switch {
	case !serviceName.MatchString(s.Name):
		return badName(s.Name)
	case len(s.Name) > maxNameLen:
		return longName(s.Name)
	}
	return nil
}

// badName and longName begin with Swarm's words, as do most refusals here, for
// there are clients that know these. What was wrong, and what is right, follows.
func badName(name string) error {
	return invalid("name must be valid as a DNS name component: %q is not: use letters and digits, with - or _ between them", name)
}

func longName(name string) error {
	return invalid("name must be %d characters or fewer: %q has %d", maxNameLen, name, len(name))
}

func validateSettings(s *swarm.ServiceSpec) error {
	settings, err := api.ReadSettings(s.Labels)
	if err != nil {
		return invalid("%v", err)
	}
	if settings.ProxyProtocol && !publishesTCP(s.EndpointSpec) {
		return invalid("label %s: the service publishes no TCP port through the routing mesh, and nothing else can carry it", api.ProxyProtocolLabel)
	}
	return nil
}

func publishesTCP(e *swarm.EndpointSpec) bool {
	return e != nil && slices.ContainsFunc(e.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode != swarm.PortConfigPublishModeHost && (p.Protocol == "" || p.Protocol == swarm.PortConfigProtocolTCP)
	})
}

func validateMode(s *swarm.ServiceSpec) error {
	switch modes := modeNames(s.Mode); {
	case len(modes) > 1:
		return invalid("must specify only one service mode, not %s", strings.Join(modes, " and "))
	case api.Job(s.Mode) && s.UpdateConfig != nil:
		return invalid("Jobs may not have an update config: leave the --update-* flags (update_config) out of a %s", modes[0])
	case api.Job(s.Mode) && s.RollbackConfig != nil:
		return invalid("Jobs may not have a rollback config: leave the --rollback-* flags (rollback_config) out of a %s", modes[0])
	case api.Global(s.Mode) && s.TaskTemplate.Placement != nil && s.TaskTemplate.Placement.MaxReplicas > 0:
		return invalid("replicas-max-per-node can only be used with replicated or replicated-job mode, and this service is %s: leave the %d out", modes[0], s.TaskTemplate.Placement.MaxReplicas)
	}
	if err := validateCounts(s); err != nil {
		return err
	}
	if total, concurrent := api.JobSize(s.Mode); total > 0 && concurrent == 0 {
		return invalid("max-concurrent must be at least 1, or the job would never run")
	}
	return nil
}

// validateCounts bounds the numbers of tasks.
func validateCounts(s *swarm.ServiceSpec) error {
	var replicas, total, concurrent *uint64
	if r := s.Mode.Replicated; r != nil {
		replicas = r.Replicas
	}
	if j := s.Mode.ReplicatedJob; j != nil {
		total, concurrent = j.TotalCompletions, j.MaxConcurrent
	}
	for _, count := range []struct {
		name  string
		value *uint64
	}{{"replicas", replicas}, {"total-completions", total}, {"max-concurrent", concurrent}} {
		if count.value != nil && *count.value > api.MaxTasks {
			return invalid("%s %d is too many: a service has at most %d tasks", count.name, *count.value, api.MaxTasks)
		}
	}
	if p := s.TaskTemplate.Placement; p != nil && p.MaxReplicas > api.MaxTasks {
		return invalid("replicas-max-per-node %d is too many: a service has at most %d tasks; 0 is no limit", p.MaxReplicas, api.MaxTasks)
	}
	return nil
}

func modeNames(m swarm.ServiceMode) []string {
	var names []string
	for _, mode := range []struct {
		set  bool
		name string
	}{
		{m.Replicated != nil, "replicated"},
		{m.Global != nil, "global"},
		{m.ReplicatedJob != nil, "replicated-job"},
		{m.GlobalJob != nil, "global-job"},
	} {
		if mode.set {
			names = append(names, mode.name)
		}
	}
	return names
}

func validateSize(s *swarm.ServiceSpec) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return invalid("service spec: %v", err)
	}
	if len(raw) > maxSpec {
		return invalid("service spec is too large: %d bytes, at most %d", len(raw), maxSpec)
	}
	return nil
}

func validateTask(t *swarm.TaskSpec) error {
	switch {
	case t.Runtime == swarm.RuntimePlugin:
		return unsupported("runtime plugin is")
	case t.Runtime != swarm.RuntimeContainer:
		return invalid("unsupported runtime")
	case t.ContainerSpec == nil || t.PluginSpec != nil || t.NetworkAttachmentSpec != nil:
		return invalid("mismatched Runtime and *Spec fields")
	}
	if err := validateResources(t.Resources); err != nil {
		return err
	}
	if err := validateRestart(t.RestartPolicy); err != nil {
		return err
	}
	if err := validatePlacement(t.Placement); err != nil {
		return err
	}
	return validateContainer(t.ContainerSpec)
}

func validateResources(r *swarm.ResourceRequirements) error {
	if r == nil {
		return nil
	}
	if l := r.Limits; l != nil {
		if err := validateAmounts("limit", l.NanoCPUs, l.MemoryBytes); err != nil {
			return err
		}
		if l.Pids < 0 {
			return invalid("invalid pids limit %d: Must not be negative (--limit-pids; 0 is no limit)", l.Pids)
		}
	}
	if res := r.Reservations; res != nil {
		for _, g := range res.GenericResources {
			if d := g.DiscreteResourceSpec; g.NamedResourceSpec != nil || d == nil || d.Kind == "" || d.Value <= 0 {
				return invalid("generic resources: %s: a service reserves a number of a kind, as in gpu=2", genericName(g))
			}
		}
		return validateAmounts("reserve", res.NanoCPUs, res.MemoryBytes)
	}
	return nil
}

func genericName(g swarm.GenericResource) string {
	if n := g.NamedResourceSpec; n != nil {
		return fmt.Sprintf("%s=%s", n.Kind, n.Value)
	}
	if d := g.DiscreteResourceSpec; d != nil {
		return fmt.Sprintf("%s=%d", d.Kind, d.Value)
	}
	return "one without a kind"
}

// validateAmounts checks what --limit-cpu and its like say.
func validateAmounts(what string, cpu, memory int64) error {
	if cpu != 0 && cpu < minCPU {
		return invalid("invalid cpu value %g: Must be at least %g (--%s-cpu; 0 is none)", float64(cpu)/1e9, minCPU/1e9, what)
	}
	if memory != 0 && memory < minMemory {
		return invalid("invalid memory value %d: Must be at least 4MiB (--%s-memory; 0 is none)", memory, what)
	}
	return nil
}

func validateRestart(p *swarm.RestartPolicy) error {
	if p == nil {
		return nil
	}
	conditions := []swarm.RestartPolicyCondition{swarm.RestartPolicyConditionAny, swarm.RestartPolicyConditionOnFailure, swarm.RestartPolicyConditionNone}
	switch {
	case !oneOf(p.Condition, conditions...):
		return invalid("invalid RestartCondition: %q: --restart-condition must be %s", p.Condition, api.Either(conditions...))
	case p.Delay != nil && *p.Delay < 0:
		return invalid("TaskSpec: restart-delay cannot be negative: %s", *p.Delay)
	case p.Window != nil && *p.Window < 0:
		return invalid("TaskSpec: restart-window cannot be negative: %s", *p.Window)
	}
	return nil
}

func validateUpdate(what string, u *swarm.UpdateConfig) error {
	if u == nil {
		return nil
	}
	actions := []string{swarm.UpdateFailureActionPause, swarm.UpdateFailureActionContinue}
	if what == "update" {
		actions = append(actions, swarm.UpdateFailureActionRollback)
	}
	orders := []string{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}
	switch {
	case !oneOf(u.FailureAction, actions...):
		return invalid("unrecognized %s failure action %s: --%s-failure-action must be %s", what, u.FailureAction, what, api.Either(actions...))
	case !oneOf(u.Order, orders...):
		return invalid("unrecognized %s order %s: --%s-order must be %s", what, u.Order, what, api.Either(orders...))
	case u.Delay < 0:
		return invalid("TaskSpec: %s-delay cannot be negative: %s", what, u.Delay)
	case u.Monitor < 0:
		return invalid("TaskSpec: %s-monitor cannot be negative: %s", what, u.Monitor)
	case !(u.MaxFailureRatio >= 0 && u.MaxFailureRatio <= 1): // not a number, too
		return invalid("TaskSpec: %s-maxfailureratio cannot be less than 0 or bigger than 1: %g (--%s-max-failure-ratio)", what, u.MaxFailureRatio, what)
	}
	return nil
}

func validateContainer(c *swarm.ContainerSpec) error {
	if c.Image == "" {
		return invalid("ContainerSpec: image reference must be provided")
	}
	if _, err := reference.ParseAnyReference(c.Image); err != nil {
		return invalid("ContainerSpec: %q is not a valid repository/tag: %v", c.Image, err)
	}
	// A name may still hold a template, which only the node can fill in.
	if c.Hostname != "" && !strings.Contains(c.Hostname, "{{") && (len(c.Hostname) > maxNameLen || !hostname.MatchString(c.Hostname)) {
		return invalid("ContainerSpec: %q is not valid hostname: --hostname takes up to %d letters and digits, with - or . between them", c.Hostname, maxNameLen)
	}
	if c.StopGracePeriod != nil && *c.StopGracePeriod < 0 {
		return invalid("ContainerSpec: stop-grace-period cannot be negative: %s", *c.StopGracePeriod)
	}
	if c.StopSignal != "" && !api.KnownSignal(c.StopSignal) {
		return invalid("ContainerSpec: invalid stop-signal %q: must be a signal's name or number, such as SIGTERM or 15", c.StopSignal)
	}
	for i, e := range c.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" { // the rest may be a secret
			return invalid("ContainerSpec: invalid environment variable: number %d has no name", i+1)
		}
	}
	if err := api.CheckPlaceholders(c); err != nil {
		return invalid("ContainerSpec: %v", err)
	}
	for _, u := range c.Ulimits {
		if u == nil || u.Name == "" {
			return invalid("ContainerSpec: ulimit without a name")
		}
	}
	switch {
	case c.Privileges != nil && c.Privileges.CredentialSpec != nil:
		return unsupported("credential specs are")
	case !c.Isolation.IsDefault():
		return unsupported("isolation %q is", c.Isolation)
	case c.OomScoreAdj < -1000 || c.OomScoreAdj > 1000:
		return invalid("ContainerSpec: invalid value %d for oom score adj: must be between -1000 and 1000", c.OomScoreAdj)
	}
	if err := validateHealth(c); err != nil {
		return err
	}
	if err := validateFileRefs(c); err != nil {
		return err
	}
	return validateMounts(c.Mounts)
}

func validateHealth(c *swarm.ContainerSpec) error {
	h := c.Healthcheck
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name, flag string
		value      time.Duration
	}{
		{"Interval", "interval", h.Interval},
		{"Timeout", "timeout", h.Timeout},
		{"StartPeriod", "start-period", h.StartPeriod},
		{"StartInterval", "start-interval", h.StartInterval},
	} {
		if d.value != 0 && d.value < minHealth {
			return invalid("ContainerSpec: %s in HealthConfig cannot be less than %s: %s (--health-%s; 0 is the image's)", d.name, minHealth, d.value, d.flag)
		}
	}
	if h.Retries < 0 {
		return invalid("ContainerSpec: Retries in HealthConfig cannot be negative: %d (--health-retries)", h.Retries)
	}
	return nil
}

func validateMounts(mounts []mount.Mount) error {
	seen := map[string]bool{}
	for _, m := range mounts {
		switch m.Type {
		case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage:
		case mount.TypeCluster:
			return unsupported("cluster volumes are")
		case mount.TypeNamedPipe:
			return unsupported("mount type %s is", m.Type)
		default:
			return invalid("invalid MountType: %q of the mount on %s: type must be bind, volume, tmpfs or image", m.Type, m.Target)
		}
		switch {
		case !path.IsAbs(m.Target):
			return invalid("invalid mount target, must be an absolute path: %s", m.Target)
		case m.Type == mount.TypeBind && m.Source == "":
			return invalid("invalid bind mount source, source must not be empty: the mount on %s needs source=/PATH", m.Target)
		case m.Type == mount.TypeBind && !path.IsAbs(m.Source):
			return invalid("invalid bind mount source, must be an absolute path: %s", m.Source)
		case m.Type == mount.TypeImage && m.Source == "":
			return invalid("invalid image mount source, source must not be empty: the mount on %s needs source=IMAGE", m.Target)
		case m.Type == mount.TypeVolume && path.IsAbs(m.Source):
			return invalid("invalid volume mount source, must not be an absolute path: %s: name a volume, or mount the path with type=bind", m.Source)
		case m.Type == mount.TypeTmpfs && m.Source != "":
			return invalid("invalid tmpfs source, source must be empty: %s of the mount on %s", m.Source, m.Target)
		case seen[path.Clean(m.Target)]:
			return invalid("ContainerSpec: duplicate mount point: %s", m.Target)
		}
		if o := m.BindOptions; o != nil && o.Propagation != "" && !oneOf(o.Propagation, mount.Propagations...) {
			return invalid("invalid bind-propagation %q of the mount on %s: must be %s", o.Propagation, m.Target, api.Either(mount.Propagations...))
		}
		seen[path.Clean(m.Target)] = true
	}
	return nil
}

// validateChange checks what an update may not change.
func validateChange(old, spec *swarm.ServiceSpec) error {
	if o, n := modeNames(old.Mode), modeNames(spec.Mode); len(n) == 1 && o[0] != n[0] {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("service mode change is not allowed: service %s is %s, not %s; remove it and make it anew", old.Name, o[0], n[0]))
	}
	if old.Name != spec.Name {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("renaming services is not supported: service %s can not become %s", old.Name, spec.Name))
	}
	return nil
}

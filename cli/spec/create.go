package spec

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/flags"
	"shoal/internal/api"
)

// Create is the spec that service create's flags and arguments (image, command, its arguments) describe. Secrets and
// configs are in it by name only: see Files. Networks are the names given: see NetworkNames.
func Create(f flags.Set, args []string) (swarm.ServiceSpec, error) {
	mode, err := serviceMode(f)
	if err != nil {
		return swarm.ServiceSpec{}, err
	}
	health, err := healthcheck(f, nil)
	if err != nil {
		return swarm.ServiceSpec{}, err
	}
	env, err := Environment(f)
	if err != nil {
		return swarm.ServiceSpec{}, err
	}
	adds, drops := api.Capabilities(f.List("cap-add"), f.List("cap-drop"))

	init := f.Bool("init")
	c := &swarm.ContainerSpec{
		Image:    args[0],
		Args:     args[1:],
		Command:  flags.Get[[]string](f, "entrypoint"),
		Env:      env,
		Hostname: f.Text("hostname"),
		Labels:   pairs(f.List("container-label")),
		Dir:      f.Text("workdir"),
		User:     f.Text("user"),
		Groups:   f.List("group"),
		// The client always says whether it wants an init, so that an engine's own default does not decide.
		Init:           &init,
		StopSignal:     f.Text("stop-signal"),
		TTY:            f.Bool("tty"),
		ReadOnly:       f.Bool("read-only"),
		Mounts:         flags.Get[[]mount.Mount](f, "mount"),
		DNSConfig:      &swarm.DNSConfig{Nameservers: f.List("dns"), Search: f.List("dns-search"), Options: f.List("dns-option")},
		Hosts:          hostsFile(f.List("host")),
		Healthcheck:    health,
		Isolation:      container.Isolation(f.Text("isolation")),
		Sysctls:        pairs(f.List("sysctl")),
		CapabilityAdd:  adds,
		CapabilityDrop: drops,
		Ulimits:        sortedUlimits(flags.Get[[]*container.Ulimit](f, "ulimit")),
		OomScoreAdj:    flags.Get[int64](f, "oom-score-adj"),
	}
	if f.Changed("stop-grace-period") {
		c.StopGracePeriod = pointer(flags.Get[time.Duration](f, "stop-grace-period"))
	}
	if f.Changed("credential-spec") {
		c.Privileges = &swarm.Privileges{CredentialSpec: flags.Get[*swarm.CredentialSpec](f, "credential-spec")}
	}

	s := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: f.Text("name"), Labels: pairs(f.List("label"))},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: c,
			Networks:      flags.Get[[]swarm.NetworkAttachmentConfig](f, "network"),
			Resources: &swarm.ResourceRequirements{
				Limits: &swarm.Limit{
					NanoCPUs:    flags.Get[int64](f, "limit-cpu"),
					MemoryBytes: flags.Get[int64](f, "limit-memory"),
					Pids:        flags.Get[int64](f, "limit-pids"),
				},
				Reservations: &swarm.Resources{
					NanoCPUs:         flags.Get[int64](f, "reserve-cpu"),
					MemoryBytes:      flags.Get[int64](f, "reserve-memory"),
					GenericResources: flags.Get[[]swarm.GenericResource](f, "generic-resource"),
				},
			},
			RestartPolicy: restartPolicy(f, nil),
			Placement: &swarm.Placement{
				Constraints: f.List("constraint"),
				Preferences: flags.Get[[]swarm.PlacementPreference](f, "placement-pref"),
				MaxReplicas: flags.Get[uint64](f, "replicas-max-per-node"),
			},
			LogDriver: logDriver(f),
		},
		Mode:           mode,
		UpdateConfig:   rollout(f, "update", nil),
		RollbackConfig: rollout(f, "rollback", nil),
		EndpointSpec:   &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP},
	}
	if f.Changed("endpoint-mode") {
		s.EndpointSpec.Mode = swarm.ResolutionMode(f.Text("endpoint-mode"))
	}
	for _, ports := range flags.Get[[][]swarm.PortConfig](f, "publish") {
		s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, ports...)
	}
	return s, nil
}

func serviceMode(f flags.Set) (swarm.ServiceMode, error) {
	name := "replicated"
	if f.Changed("mode") {
		name = f.Text("mode")
	}
	var replicas, concurrent *uint64
	if f.Changed("replicas") {
		replicas = pointer(flags.Get[uint64](f, "replicas"))
	}
	if f.Changed("max-concurrent") {
		concurrent = pointer(flags.Get[uint64](f, "max-concurrent"))
	}
	var mode swarm.ServiceMode
	switch name {
	case "global", "global-job":
		if replicas != nil {
			return mode, errors.New("replicas can only be used with replicated or replicated-job mode")
		}
		if f.Changed("replicas-max-per-node") && flags.Get[uint64](f, "replicas-max-per-node") > 0 {
			return mode, errors.New("replicas-max-per-node can only be used with replicated or replicated-job mode")
		}
		if concurrent != nil {
			return mode, errors.New("max-concurrent can only be used with replicated-job mode")
		}
		if name == "global-job" {
			mode.GlobalJob = &swarm.GlobalJob{}
		} else {
			mode.Global = &swarm.GlobalService{}
		}
	case "replicated":
		if concurrent != nil {
			return mode, errors.New("max-concurrent can only be used with replicated-job mode")
		}
		mode.Replicated = &swarm.ReplicatedService{Replicas: replicas}
	case "replicated-job":
		if concurrent == nil {
			concurrent = replicas
		}
		mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: concurrent, TotalCompletions: replicas}
	default:
		return mode, fmt.Errorf("Unknown mode: %s: --mode must be replicated, global, replicated-job or global-job", name)
	}
	return mode, nil
}

// Environment is what --env-file and --env say, the last word on each variable.
func Environment(f flags.Set) ([]string, error) {
	var env []string
	for _, path := range f.List("env-file") {
		more, err := ReadEnvFile(path)
		if err != nil {
			return nil, err
		}
		env = append(env, more...)
	}
	return byKey(append(env, f.List("env")...)), nil
}

var healthFlags = []string{"health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period", "health-timeout"}

// healthcheck applies the health flags to a copy of what is there; nil is what the image says.
func healthcheck(f flags.Set, old *container.HealthConfig) (*container.HealthConfig, error) {
	given := f.AnyChanged(healthFlags...)
	if f.Bool("no-healthcheck") {
		if given {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !given {
		return old, nil
	}
	var h container.HealthConfig
	if old != nil {
		h = *old
	}
	if len(h.Test) > 0 && h.Test[0] == "NONE" {
		h.Test = nil
	}
	if f.Changed("health-cmd") {
		h.Test = nil
		if cmd := f.Text("health-cmd"); cmd != "" {
			h.Test = []string{"CMD-SHELL", cmd}
		}
	}
	set(f, "health-interval", &h.Interval)
	set(f, "health-timeout", &h.Timeout)
	set(f, "health-start-period", &h.StartPeriod)
	set(f, "health-start-interval", &h.StartInterval)
	if f.Changed("health-retries") {
		h.Retries = int(flags.Get[int64](f, "health-retries"))
	}
	if old == nil && len(h.Test) == 0 && !f.AnyChanged(healthFlags[1:]...) {
		return nil, nil // --health-cmd "" asks for nothing
	}
	return &h, nil
}

// restartPolicy applies the restart flags to a copy of what is there; nil leaves it to the server.
func restartPolicy(f flags.Set, old *swarm.RestartPolicy) *swarm.RestartPolicy {
	if !f.AnyChanged("restart-condition", "restart-delay", "restart-max-attempts", "restart-window") {
		return old
	}
	var p swarm.RestartPolicy
	if old != nil {
		p = *old
	} else {
		p.Condition = swarm.RestartPolicyConditionAny
		p.Delay = pointer(5 * time.Second)
		p.MaxAttempts = pointer(uint64(0))
	}
	if f.Changed("restart-condition") {
		p.Condition = swarm.RestartPolicyCondition(f.Text("restart-condition"))
	}
	if f.Changed("restart-delay") {
		p.Delay = pointer(flags.Get[time.Duration](f, "restart-delay"))
	}
	if f.Changed("restart-max-attempts") {
		p.MaxAttempts = pointer(flags.Get[uint64](f, "restart-max-attempts"))
	}
	if f.Changed("restart-window") {
		p.Window = pointer(flags.Get[time.Duration](f, "restart-window"))
	}
	return &p
}

// rollout applies the update-* or rollback-* flags to a copy of what is there; nil leaves it to the server.
func rollout(f flags.Set, kind string, old *swarm.UpdateConfig) *swarm.UpdateConfig {
	name := func(what string) string { return kind + "-" + what }
	if !f.AnyChanged(name("parallelism"), name("delay"), name("monitor"), name("failure-action"), name("max-failure-ratio"), name("order")) {
		return old
	}
	c := swarm.UpdateConfig{
		Parallelism:   1,
		FailureAction: swarm.UpdateFailureActionPause,
		Monitor:       5 * time.Second,
		Order:         swarm.UpdateOrderStopFirst,
	}
	if old != nil {
		c = *old
	}
	set(f, name("parallelism"), &c.Parallelism)
	set(f, name("delay"), &c.Delay)
	set(f, name("monitor"), &c.Monitor)
	set(f, name("failure-action"), &c.FailureAction)
	set(f, name("max-failure-ratio"), &c.MaxFailureRatio)
	set(f, name("order"), &c.Order)
	return &c
}

func logDriver(f flags.Set) *swarm.Driver {
	if f.Text("log-driver") == "" {
		return nil
	}
	return &swarm.Driver{Name: f.Text("log-driver"), Options: pairs(f.List("log-opt"))}
}

// sortedUlimits keeps one limit per name, the last given.
func sortedUlimits(list []*container.Ulimit) []*container.Ulimit {
	var out []*container.Ulimit
	for _, limit := range list {
		out = slices.DeleteFunc(out, func(l *container.Ulimit) bool { return l.Name == limit.Name })
		out = append(out, limit)
	}
	slices.SortFunc(out, func(a, b *container.Ulimit) int { return compare(a.Name, b.Name) })
	return out
}

// set writes a flag's value if the user gave it.
func set[T any](f flags.Set, name string, into *T) {
	if f.Changed(name) {
		*into = flags.Get[T](f, name)
	}
}

func pointer[T any](v T) *T { return &v }

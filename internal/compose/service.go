package compose

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"

	"shoal/internal/api"
)

// service converts one service. Every order that has no meaning is made the same each time: a service whose spec is
// only arranged differently would be replaced.
func (c converter) service(key string, s types.ServiceConfig) (Service, error) {
	path := "services." + key
	out := Service{Key: key}
	var wrong []error
	if s.Image == "" {
		wrong = append(wrong, c.checker.errorAt(path, "there is no image to run"))
	}
	env, err := c.serviceEnv(key, s)
	wrong = append(wrong, err)
	deploy := s.Deploy
	if deploy == nil {
		deploy = &types.DeployConfig{}
	}
	spec := &out.Spec
	spec.Name = scope(c.stack, key)
	spec.Labels = labelled(c.stack, deploy.Labels)
	spec.Labels[LabelImage] = s.Image
	settings(spec.Labels, s)
	adds, drops := api.Capabilities(s.CapAdd, s.CapDrop)
	task := &spec.TaskTemplate
	task.ContainerSpec = &swarm.ContainerSpec{
		Image: s.Image, Command: s.Entrypoint, Args: s.Command, Hostname: s.Hostname,
		Labels: labelled(c.stack, s.Labels), Env: environ(env), Dir: s.WorkingDir, User: s.User, Groups: s.GroupAdd,
		StopSignal: s.StopSignal, StopGracePeriod: span(s.StopGracePeriod), TTY: s.Tty, OpenStdin: s.StdinOpen,
		ReadOnly: s.ReadOnly, Init: s.Init, Isolation: container.Isolation(s.Isolation), Sysctls: s.Sysctls,
		Hosts: c.hosts(path, s.ExtraHosts), DNSConfig: dns(s), CapabilityAdd: adds, CapabilityDrop: drops,
		Ulimits: ulimits(s.Ulimits), OomScoreAdj: s.OomScoreAdj, Privileges: &swarm.Privileges{},
	}
	box := task.ContainerSpec
	if s.Logging != nil {
		task.LogDriver = &swarm.Driver{Name: s.Logging.Driver, Options: s.Logging.Options}
	}
	task.Placement = &swarm.Placement{
		Constraints: deploy.Placement.Constraints, MaxReplicas: deploy.Placement.MaxReplicas,
	}
	for _, preference := range deploy.Placement.Preferences {
		task.Placement.Preferences = append(task.Placement.Preferences,
			swarm.PlacementPreference{Spread: &swarm.SpreadOver{SpreadDescriptor: preference.Spread}})
	}
	spec.UpdateConfig, spec.RollbackConfig = rollout(deploy.UpdateConfig), rollout(deploy.RollbackConfig)
	for _, part := range []func() error{
		func() (err error) { spec.Mode, err = c.mode(path, s, deploy); return err },
		func() (err error) { spec.EndpointSpec, err = c.endpoint(path, s.Ports, deploy); return err },
		func() (err error) { box.Mounts, err = c.mounts(path, s); return err },
		func() (err error) { box.Healthcheck, err = c.healthcheck(path, s.HealthCheck); return err },
		func() (err error) { box.Secrets, err = c.secretReferences(path, s.Secrets); return err },
		func() (err error) { box.Configs, err = c.configReferences(path, s); return err },
		func() (err error) {
			box.Privileges.CredentialSpec, err = c.credentialSpec(path, s.CredentialSpec)
			return err
		},
		func() (err error) { task.Resources, err = c.resources(path, s, deploy); return err },
		func() (err error) {
			task.RestartPolicy, err = c.restart(path, s.Restart, deploy.RestartPolicy)
			return err
		},
		func() (err error) { task.Networks, err = c.attachments(path, key, s); return err },
		func() (err error) { out.After, err = c.dependencies(path, s.DependsOn); return err },
	} {
		wrong = append(wrong, part())
	}
	return out, errors.Join(wrong...)
}

// settings are labels for what specs have no words for. What the file says of one itself stays.
func settings(labels map[string]string, s types.ServiceConfig) {
	set := func(label, value string) {
		if _, ok := labels[label]; !ok && value != "" {
			labels[label] = value
		}
	}
	if s.Privileged {
		set(api.PrivilegedLabel, "true")
	}
	var devices []string
	for _, d := range s.Devices {
		device := d.Source
		if d.Target != "" || d.Permissions != "" {
			device += ":" + cmp.Or(d.Target, d.Source)
		}
		if d.Permissions != "" {
			device += ":" + d.Permissions
		}
		devices = append(devices, device)
	}
	set(api.DevicesLabel, strings.Join(devices, ","))
}

func environ(env map[string]*string) []string {
	var list []string
	for key, value := range env {
		if value == nil {
			list = append(list, key)
		} else {
			list = append(list, key+"="+*value)
		}
	}
	slices.Sort(list)
	return list
}

func ulimits(limits map[string]*types.UlimitsConfig) []*container.Ulimit {
	var list []*container.Ulimit
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		soft, hard := limits[name].Soft, limits[name].Hard
		if single := limits[name].Single; single != 0 {
			soft, hard = single, single
		}
		list = append(list, &units.Ulimit{Name: name, Soft: int64(soft), Hard: int64(hard)})
	}
	return list
}

func span(d *types.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := time.Duration(*d)
	return &v
}

func (c converter) healthcheck(path string, h *types.HealthCheckConfig) (*container.HealthConfig, error) {
	if h == nil {
		return nil, nil
	}
	if h.Disable {
		if len(h.Test) > 0 && h.Test[0] != "NONE" {
			return nil, c.checker.errorAt(path+".healthcheck", "test and disable can't be set at the same time")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if len(h.Test) > 0 && h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL" && h.Test[0] != "NONE" {
		return nil, c.checker.errorAt(path+".healthcheck.test", `a list starts with "CMD", "CMD-SHELL" or "NONE"`)
	}
	out := &container.HealthConfig{Test: h.Test}
	for _, field := range []struct {
		from *types.Duration
		to   *time.Duration
	}{{h.Interval, &out.Interval}, {h.Timeout, &out.Timeout}, {h.StartPeriod, &out.StartPeriod}, {h.StartInterval, &out.StartInterval}} {
		if field.from != nil {
			*field.to = time.Duration(*field.from)
		}
	}
	if h.Retries != nil {
		out.Retries = int(*h.Retries)
	}
	return out, nil
}

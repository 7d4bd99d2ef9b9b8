package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"shoal/internal/api"
	"shoal/task"
)

// cleanupTimeout bounds what is done about a container that could not be made
// whole, whether or not its task is still wanted.
const cleanupTimeout = 10 * time.Second

// List implements task.Executor.
func (e *Executor) List(ctx context.Context, clusterID string) ([]task.Container, error) {
	withFiles := e.files.begin()
	found, err := e.find(ctx, labelCluster+"="+clusterID)
	if err != nil {
		return nil, err
	}
	var cs []task.Container
	for _, c := range found {
		if id := c.Labels[labelTaskID]; id != "" {
			cs = append(cs, task.Container{ID: c.ID, TaskID: id, Phase: phase(c.State), Health: listedHealth(c.Status)})
		}
	}
	e.files.sweep(withFiles, func(taskID string) bool {
		return slices.ContainsFunc(cs, func(c task.Container) bool { return c.TaskID == taskID })
	})
	return cs, nil
}

// find gives all containers that carry the labels.
func (e *Executor) find(ctx context.Context, labels ...string) ([]container.Summary, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	f := filters.NewArgs()
	for _, l := range labels {
		f.Add("label", l)
	}
	cs, err := c.ContainerList(ctx, container.ListOptions{All: true, Filters: f})
	return cs, say(err)
}

// Inspect implements task.Executor.
func (e *Executor) Inspect(ctx context.Context, id string) (*task.Container, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return nil, err
	}
	in, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return nil, say(err)
	}
	// Somebody is removing it. That it was killed for that is not how its
	// task's story should end.
	if in.State != nil && in.State.Status == container.StateRemoving {
		return nil, &engineError{text: "container " + id + " is being removed", kind: errdefs.ErrNotFound}
	}
	out := observed(&in)
	out.Signalled = e.signals.to(id)
	e.probes.judge(out, proofOf(c, &in))
	return out, nil
}

// Create implements task.Executor.
func (e *Executor) Create(ctx context.Context, s *api.NodeState, a *api.Assignment) (string, error) {
	c, err := e.engine(ctx)
	if err != nil {
		return "", err
	}
	names, err := e.ensureNetworks(ctx, c, s, a.Task.Networks)
	if err != nil {
		return "", err
	}
	cc, err := compile(s, a, names, e.cfg.DNS, c.ClientVersion())
	if err != nil {
		return "", err
	}
	if len(cc.networks) > 0 {
		if err := e.portsFree(ctx, cc.host.PortBindings); err != nil {
			return "", err
		}
		made, err := e.choosePorts(ctx, s, cc)
		if err != nil {
			return "", err
		}
		defer made()
	}
	labelled, err := e.mountFiles(ctx, c, s, a, cc.host)
	if err != nil {
		return "", err
	}
	atCreate := cc.networks
	if len(atCreate) > 1 && versions.LessThan(c.ClientVersion(), severalNetworks) {
		atCreate = atCreate[:1]
	}
	made, err := c.ContainerCreate(ctx, cc.config, cc.host, endpoints(atCreate), nil, cc.name)
	id, known := made.ID, false
	if errdefs.IsConflict(err) {
		if id, err = e.ours(ctx, cc.name, a.Task.ID, err); err == nil {
			known = true
		}
	}
	if err != nil {
		return "", say(err)
	}
	rest := cc.networks[len(atCreate):]
	if known {
		rest = cc.networks // an earlier call may have ended before it connected them
	}
	err = e.attach(ctx, c, id, rest)
	if err == nil && labelled {
		err = e.labelFiles(ctx, c, id, a.Task.ID)
	}
	if err != nil {
		// Whoever hears of the failure does not learn of the container.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = c.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
		return "", err
	}
	return id, nil
}

// mountFiles gives a container its task's secrets and configs. Labelled says that
// they need the container's SELinux label.
func (e *Executor) mountFiles(ctx context.Context, c *client.Client, s *api.NodeState, a *api.Assignment, host *container.HostConfig) (labelled bool, err error) {
	values := api.PlaceholdersOf(&a.Revision.Spec, a.Task, s.Node)
	spec, err := values.Fill(a.Revision.Spec.TaskTemplate.ContainerSpec)
	if err != nil {
		return false, refuse("%s", oneLine(err.Error()))
	}
	files, err := compileFiles(s, a, spec, values)
	if err != nil || len(files) == 0 {
		return false, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return false, say(err)
	}
	on, err := fileHostOf(&info)
	if err != nil {
		return false, err
	}
	if err := on.own(files); err != nil {
		return false, err
	}
	mounts, err := e.files.put(a.Task.ID, files)
	host.Mounts = append(slices.Clip(host.Mounts), mounts...)
	return on.selinux, err
}

// ours gives the container that holds a name which a task needs, if it is the
// task's own, made by a call whose answer was lost.
func (e *Executor) ours(ctx context.Context, name, taskID string, conflict error) (string, error) {
	found, err := e.find(ctx, labelTaskID+"="+taskID)
	if err != nil {
		return "", err
	}
	for _, c := range found {
		for _, n := range c.Names {
			if strings.TrimPrefix(n, "/") == name {
				return c.ID, nil
			}
		}
	}
	return "", conflict
}

// attach connects a container to those networks that it is not on yet.
func (e *Executor) attach(ctx context.Context, c *client.Client, id string, to []attachment) error {
	if len(to) == 0 {
		return nil
	}
	in, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return say(err)
	}
	for _, at := range to {
		if in.NetworkSettings != nil && in.NetworkSettings.Networks[at.name] != nil {
			continue
		}
		if err := c.NetworkConnect(ctx, at.name, id, at.settings()); err != nil {
			return fmt.Errorf("connect to network %s: %w", at.name, say(err))
		}
	}
	return nil
}

func endpoints(to []attachment) *network.NetworkingConfig {
	if len(to) == 0 {
		return nil
	}
	cfg := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	for _, at := range to {
		cfg.EndpointsConfig[at.name] = at.settings()
	}
	return cfg
}

// Start implements task.Executor.
func (e *Executor) Start(ctx context.Context, id string) error {
	err := e.do(ctx, func(c *client.Client) error {
		return c.ContainerStart(ctx, id, container.StartOptions{})
	})
	if err != nil && e.files.lost(err) {
		return &engineError{text: "its secrets and configs were in memory, and were lost when the host restarted", kind: errdefs.ErrFailedPrecondition}
	}
	if err != nil {
		return e.nameHolder(ctx, id, err)
	}
	return nil
}

// Stop implements task.Executor. Signal and grace are the container's own.
func (e *Executor) Stop(ctx context.Context, id string) error {
	return e.do(ctx, func(c *client.Client) error {
		return c.ContainerStop(ctx, id, container.StopOptions{})
	})
}

// Remove implements task.Executor.
func (e *Executor) Remove(ctx context.Context, id string) error {
	return e.do(ctx, func(c *client.Client) error {
		in, err := c.ContainerInspect(ctx, id)
		if err != nil {
			return err
		}
		if err := c.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true}); err != nil {
			return err
		}
		if in.Config != nil {
			e.files.drop(in.Config.Labels[labelTaskID])
		}
		return nil
	})
}

func (e *Executor) do(ctx context.Context, f func(*client.Client) error) error {
	c, err := e.engine(ctx)
	if err != nil {
		return err
	}
	return say(f(c))
}

// observed gives what an inspection says, in the worker's words.
func observed(in *container.InspectResponse) *task.Container {
	c := &task.Container{ID: in.ID}
	if in.Config != nil {
		c.TaskID = in.Config.Labels[labelTaskID]
	}
	st := in.State
	if st == nil {
		return c
	}
	c.Phase = phase(st.Status)
	c.PID, c.ExitCode, c.OOMKilled, c.Error = st.Pid, st.ExitCode, st.OOMKilled, oneLine(st.Error)
	if at, err := time.Parse(time.RFC3339Nano, st.FinishedAt); err == nil && at.Year() > 1 {
		c.FinishedAt = at
	}
	if st.Health != nil {
		c.Health, c.Complaint = health(st.Health.Status), complaint(st.Health.Log)
	}
	c.Ports = hostPorts(in)
	return c
}

// phase gives a container's state in the worker's words.
func phase(state container.ContainerState) task.Phase {
	switch state {
	case container.StateCreated:
		return task.Created
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		return task.Running
	}
	return task.Exited // also while it is being removed
}

func health(status container.HealthStatus) task.Health {
	switch status {
	case container.Starting:
		return task.Starting
	case container.Healthy:
		return task.Healthy
	case container.Unhealthy:
		return task.Unhealthy
	}
	return task.NoHealth
}

// maxComplaint bounds what of a health check's output becomes part of a task's
// error, in bytes: it is one line of a table.
const maxComplaint = 200

// complaint is the last line that the last failed run of a health check printed:
// there most programs say what is wrong.
func complaint(log []*container.HealthcheckResult) string {
	for _, run := range slices.Backward(log) {
		if run == nil || run.ExitCode == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(run.Output), "\n")
		text := strings.Join(strings.Fields(lines[len(lines)-1]), " ")
		if len(text) > maxComplaint {
			text = text[:maxComplaint] + "..."
		}
		return strings.ToValidUTF8(text, "")
	}
	return ""
}

// listedHealth reads the verdict from the line that docker ps shows, the only
// place where a list has it: "Up 2 minutes (healthy)".
func listedHealth(status string) task.Health {
	switch {
	case strings.HasSuffix(status, "(health: starting)"):
		return task.Starting
	case strings.HasSuffix(status, "(healthy)"):
		return task.Healthy
	case strings.HasSuffix(status, "(unhealthy)"):
		return task.Unhealthy
	}
	return task.NoHealth
}

// hostPorts gives the ports published on the host for a running container. The
// engine names one twice where it serves both IPv4 and IPv6.
func hostPorts(in *container.InspectResponse) []swarm.PortConfig {
	if in.State == nil || !in.State.Running || in.HostConfig == nil {
		return nil
	}
	bound := nat.PortMap{}
	for p, wanted := range in.HostConfig.PortBindings {
		bound[p] = wanted
		if in.NetworkSettings != nil && len(in.NetworkSettings.Ports[p]) > 0 {
			bound[p] = in.NetworkSettings.Ports[p] // where the engine chose the port
		}
	}
	return portConfigs(bound)
}

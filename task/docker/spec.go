package docker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"shoal/internal/api"
)

// Labels that Docker Swarm puts on containers, and that tools look for; and
// ours, by which a node knows its own.
const (
	labelTask        = "com.docker.swarm.task"
	labelTaskID      = "com.docker.swarm.task.id"
	labelTaskName    = "com.docker.swarm.task.name"
	labelNodeID      = "com.docker.swarm.node.id"
	labelServiceID   = "com.docker.swarm.service.id"
	labelServiceName = "com.docker.swarm.service.name"
	labelCluster     = "com.shoal.cluster.id"
	labelNetwork     = "com.shoal.network.id"
	labelPorts       = "com.shoal.ports" // that the node chose: 49153/tcp,49154/udp
)

// API versions from which an engine can do something.
const (
	severalNetworks  = "1.44" // at create
	startInterval    = "1.44"
	createMountpoint = "1.42"
	volumeSubpath    = "1.45"
	// Before that a read-only mount leaves what is mounted below it writable,
	// and an option that asks for more is not seen.
	recursiveReadOnly = "1.44"
	tmpfsOptions      = "1.46"
	imageMounts       = "1.48"
)

// compiled is a task in the engine's terms.
type compiled struct {
	name     string
	config   *container.Config
	host     *container.HostConfig
	networks []attachment
}

// attachment is a task's place on one of the engine's networks.
type attachment struct {
	name string
	api.Attachment
}

// settings leaves out the aliases. The engine would answer them for its own
// containers alone, whether or not they serve.
func (a attachment) settings() *network.EndpointSettings {
	ipam := &network.EndpointIPAMConfig{}
	switch addr := a.Addr.Addr(); {
	case addr.Is4():
		ipam.IPv4Address = addr.String()
	case addr.Is6():
		ipam.IPv6Address = addr.String()
	default:
		ipam = nil // the engine chooses
	}
	return &network.EndpointSettings{IPAMConfig: ipam}
}

// compile gives a task in the engine's terms. What the engine can not honour is
// refused by name: a limit or a privilege that is silently dropped is worse
// than a task that does not start.
func compile(s *api.NodeState, a *api.Assignment, networks map[string]string, dns []string, version string) (*compiled, error) {
	t, spec := a.Task, &a.Revision.Spec
	cs := spec.TaskTemplate.ContainerSpec
	if cs == nil {
		return nil, refuse("the task is not a container")
	}
	if err := supported(cs, version); err != nil {
		return nil, err
	}
	cs, err := api.PlaceholdersOf(spec, t, s.Node).Fill(cs)
	if err != nil {
		return nil, refuse("%s", oneLine(err.Error()))
	}
	c := &compiled{name: api.TaskName(spec.Name, t)}

	health, labels := healthFor(cs.Healthcheck, version), map[string]string{}
	maps.Copy(labels, cs.Labels)
	maps.Copy(labels, readyLabels(spec))
	if h := cs.Healthcheck; h != nil && h.StartInterval != 0 && health.StartInterval == 0 {
		labels[labelStartInterval] = h.StartInterval.String()
	}
	maps.Copy(labels, map[string]string{
		labelTask: "", labelTaskID: t.ID, labelTaskName: c.name, labelNodeID: t.NodeID,
		labelServiceID: t.ServiceID, labelServiceName: spec.Name, labelCluster: s.ClusterID,
	})
	ports := hostModePorts(spec.EndpointSpec)
	c.config = &container.Config{
		Image: cs.Image, Labels: labels,
		Entrypoint: cs.Command, Cmd: cs.Args,
		Hostname: cs.Hostname, Env: append(cs.Env[:len(cs.Env):len(cs.Env)], genericEnv(t.Generic)...),
		WorkingDir: cs.Dir, User: cs.User, Tty: cs.TTY, OpenStdin: cs.OpenStdin,
		Healthcheck: health, StopSignal: cs.StopSignal, StopTimeout: seconds(cs.StopGracePeriod),
		ExposedPorts: exposed(ports),
	}
	c.host = &container.HostConfig{
		// The orchestrator alone decides what runs again, and where.
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Resources:      resources(cs, spec.TaskTemplate.Resources),
		GroupAdd:       cs.Groups,
		PortBindings:   ports,
		Mounts:         cs.Mounts,
		ReadonlyRootfs: cs.ReadOnly,
		Isolation:      cs.Isolation,
		Init:           cs.Init,
		Sysctls:        cs.Sysctls,
		CapAdd:         cs.CapabilityAdd,
		CapDrop:        cs.CapabilityDrop,
		OomScoreAdj:    int(cs.OomScoreAdj),
		SecurityOpt:    securityOptions(cs.Privileges),
		ExtraHosts:     extraHosts(cs.Hosts),
	}
	if d := cs.DNSConfig; d != nil {
		c.host.DNS, c.host.DNSSearch, c.host.DNSOptions = d.Nameservers, d.Search, d.Options
	}
	if d := spec.TaskTemplate.LogDriver; d != nil {
		c.host.LogConfig = container.LogConfig{Type: d.Name, Config: d.Options}
	}
	settings, err := api.ReadSettings(spec.Labels)
	if err != nil {
		return nil, refuse("%v", err)
	}
	privileges(c.host, settings)
	for _, at := range t.Networks {
		c.networks = append(c.networks, attachment{name: networks[at.NetworkID], Attachment: at})
	}
	if len(c.networks) > 0 {
		c.host.DNS = slices.Concat(dns, c.host.DNS)
	}
	for _, n := range api.PredefinedOf(&spec.TaskTemplate) {
		c.networks = append(c.networks, attachment{name: n.Spec.Name})
	}
	if len(c.networks) > 0 {
		c.host.NetworkMode = container.NetworkMode(c.networks[0].name)
	}
	return c, nil
}

// healthFor gives a health check as an engine of a version takes it. The interval
// of the start period is emulated where it does not know that: see healthProof.
func healthFor(h *container.HealthConfig, version string) *container.HealthConfig {
	if h == nil || h.StartInterval == 0 || !versions.LessThan(version, startInterval) {
		return h
	}
	c := *h
	c.StartInterval = 0
	return &c
}

// supported refuses what this node or its engine can not do.
func supported(cs *swarm.ContainerSpec, version string) error {
	needs := func(what, since string) error {
		if versions.LessThan(version, since) {
			return refuse("%s needs an engine with API %s; this one has %s", what, since, version)
		}
		return nil
	}
	switch {
	case cs.Privileges != nil && cs.Privileges.CredentialSpec != nil:
		return refuse("credential specs are for Windows containers")
	}
	for _, m := range cs.Mounts {
		var err error
		switch {
		case m.Type == mount.TypeCluster:
			err = refuse("mount %s: cluster volumes are not supported", m.Target)
		case m.Type == mount.TypeImage:
			err = needs("mount "+m.Target+": an image", imageMounts)
		case m.BindOptions != nil && m.BindOptions.CreateMountpoint && versions.LessThan(version, createMountpoint):
			err = needs("mount "+m.Target+": bind-create-src", createMountpoint)
		case m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive:
			err = needs("mount "+m.Target+": bind-recursive=readonly", recursiveReadOnly)
		case m.VolumeOptions != nil && m.VolumeOptions.Subpath != "":
			err = needs("mount "+m.Target+": volume-subpath", volumeSubpath)
		case m.TmpfsOptions != nil && len(m.TmpfsOptions.Options) > 0:
			err = needs("mount "+m.Target+": tmpfs options", tmpfsOptions)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func refuse(format string, args ...any) error {
	return &engineError{text: fmt.Sprintf(format, args...), kind: errdefs.ErrInvalidArgument}
}

// seconds rounds a grace period up: a container must not get less than it asked
// for, and the engine counts in seconds.
func seconds(d *time.Duration) *int {
	if d == nil {
		return nil
	}
	n := int((*d + time.Second - 1) / time.Second)
	return &n
}

// resources gives the limits. Reservations are the scheduler's business alone.
func resources(cs *swarm.ContainerSpec, want *swarm.ResourceRequirements) container.Resources {
	r := container.Resources{Ulimits: cs.Ulimits}
	if want == nil || want.Limits == nil {
		return r
	}
	r.NanoCPUs, r.Memory = want.Limits.NanoCPUs, want.Limits.MemoryBytes
	if pids := want.Limits.Pids; pids > 0 {
		r.PidsLimit = &pids
	}
	return r
}

// hostModePorts gives the ports that a task publishes on its own node. Those of
// the routing mesh are not the container's.
func hostModePorts(spec *swarm.EndpointSpec) nat.PortMap {
	if spec == nil {
		return nil
	}
	var ports nat.PortMap
	for _, p := range spec.Ports {
		if p.PublishMode != swarm.PortConfigPublishModeHost {
			continue
		}
		if ports == nil {
			ports = nat.PortMap{}
		}
		proto := cmp.Or(string(p.Protocol), "tcp")
		port := nat.Port(strconv.Itoa(int(p.TargetPort)) + "/" + proto)
		b := nat.PortBinding{}
		if p.PublishedPort != 0 { // else the engine chooses
			b.HostPort = strconv.Itoa(int(p.PublishedPort))
		}
		ports[port] = append(ports[port], b)
	}
	return ports
}

func exposed(ports nat.PortMap) nat.PortSet {
	if len(ports) == 0 {
		return nil
	}
	set := nat.PortSet{}
	for p := range ports {
		set[p] = struct{}{}
	}
	return set
}

// portConfigs is the way back from hostModePorts, without doubles, in order.
func portConfigs(ports nat.PortMap) []swarm.PortConfig {
	var ps []swarm.PortConfig
	for port, bindings := range ports {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue // not published yet
			}
			p := swarm.PortConfig{
				Protocol: swarm.PortConfigProtocol(port.Proto()), TargetPort: uint32(port.Int()),
				PublishedPort: uint32(n), PublishMode: swarm.PortConfigPublishModeHost,
			}
			if !slices.Contains(ps, p) {
				ps = append(ps, p)
			}
		}
	}
	slices.SortFunc(ps, func(a, b swarm.PortConfig) int {
		return cmp.Or(cmp.Compare(a.TargetPort, b.TargetPort), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.PublishedPort, b.PublishedPort))
	})
	return ps
}

// extraHosts turns lines of a hosts file, "IP name [alias...]", into the
// engine's "name:IP".
func extraHosts(lines []string) []string {
	var hosts []string
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		for _, name := range f[1:] {
			hosts = append(hosts, name+":"+f[0])
		}
	}
	return hosts
}

func securityOptions(p *swarm.Privileges) []string {
	if p == nil {
		return nil
	}
	var opts []string
	if se := p.SELinuxContext; se != nil {
		if se.Disable {
			opts = append(opts, "label=disable")
		}
		for _, l := range [][2]string{{"user", se.User}, {"role", se.Role}, {"type", se.Type}, {"level", se.Level}} {
			if l[1] != "" {
				opts = append(opts, "label="+l[0]+":"+l[1])
			}
		}
	}
	if sc := p.Seccomp; sc != nil {
		switch sc.Mode {
		case swarm.SeccompModeUnconfined:
			opts = append(opts, "seccomp=unconfined")
		case swarm.SeccompModeCustom:
			opts = append(opts, "seccomp="+string(sc.Profile))
		}
	}
	if aa := p.AppArmor; aa != nil && aa.Mode == swarm.AppArmorModeDisabled {
		opts = append(opts, "apparmor=unconfined")
	}
	if p.NoNewPrivileges {
		opts = append(opts, "no-new-privileges=true")
	}
	return opts
}

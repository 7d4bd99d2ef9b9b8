//go:build linux

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"
	"go.uber.org/goleak"

	"shoal/internal/api"
	"shoal/internal/testbed"
	"shoal/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEngine runs tasks on an engine of its own: one for all, as each starts for
// seconds.
func TestEngine(t *testing.T) {
	host := "unix://" + testbed.StartEngine(t).EngineSocket()
	for name, test := range map[string]func(*testing.T, *bench){
		"Ends": testEnds, "Adoption": testAdoption, "Mapping": testMapping, "Description": testDescription, "Taken port": testTakenPort,
		"Grown network": testGrownNetwork,
	} {
		t.Run(name, func(t *testing.T) { test(t, newBench(t, host)) })
	}
}

// bench is one cluster of its own on a real engine.
type bench struct {
	*Executor
	cluster, image string

	mu       sync.Mutex
	statuses map[string]swarm.TaskStatus
	changed  chan struct{}
}

func newBench(t *testing.T, host string) *bench {
	t.Helper()
	b := &bench{
		cluster: api.NewID(), statuses: map[string]swarm.TaskStatus{}, changed: make(chan struct{}, 1),
	}
	b.Executor = New(Config{Host: host, NetworkDriver: "bridge", IPAMDriver: "default", FilesDir: "/run/shoal/test-" + b.cluster})
	// The name's registry refuses at once, so that looking for it takes no time.
	b.image = "127.0.0.1:1/shoal-task-test:" + b.cluster
	t.Cleanup(func() { _ = b.Close() })
	c, err := b.engine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	progress, err := c.ImageImport(t.Context(), image.ImportSource{Source: busybox(t), SourceName: "-"}, b.image, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = new(bytes.Buffer).ReadFrom(progress)
	_ = progress.Close()
	t.Cleanup(func() {
		ctx := context.Background()
		if err := b.RemoveAll(ctx, b.cluster); err != nil {
			t.Error(err)
		}
		if _, err := c.ImageRemove(ctx, b.image, image.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	return b
}

// busybox gives a root file system of busybox alone.
func busybox(t *testing.T) *bytes.Buffer {
	t.Helper()
	bin, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"bin/busybox", "bin/sh", "etc/passwd"} {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(bin))}
		content := bin
		switch name {
		case "bin/sh":
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeLink, "bin/busybox", 0, nil
		case "etc/passwd":
			content = []byte("root:x:0:0::/:/bin/sh\n")
			h.Size = int64(len(content))
		}
		if err := errors.Join(w.WriteHeader(h), func() error { _, err := w.Write(content); return err }()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// state gives a state with one task, whose process is a shell script.
func (b *bench) state(script string, change func(*swarm.ServiceSpec, *api.Task)) (*api.NodeState, *api.Assignment) {
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web"}}
	spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: b.image, Command: []string{"/bin/busybox", "sh", "-c"}, Args: []string{script}}
	t := &api.Task{
		Meta: api.Meta{ID: api.NewID()}, ServiceID: "svc", Slot: 1, NodeID: "node",
		Status: swarm.TaskStatus{State: swarm.TaskStateAssigned}, DesiredState: swarm.TaskStateRunning,
	}
	if change != nil {
		change(&spec, t)
	}
	a := &api.Assignment{Task: t, Revision: &api.Revision{Meta: api.Meta{ID: api.NewID()}, Spec: spec}}
	node := &api.Node{Meta: api.Meta{ID: "node"}, Spec: swarm.NodeSpec{Annotations: swarm.Annotations{Labels: map[string]string{"rack": "r7"}}}}
	node.Description.Hostname = "host7"
	return &api.NodeState{ClusterID: b.cluster, Node: node, Tasks: map[string]*api.Assignment{t.ID: a}}, a
}

func (b *bench) report(rs []api.TaskReport) {
	b.mu.Lock()
	for _, r := range rs {
		b.statuses[r.TaskID] = r.Status
	}
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// await waits for a task to get to a state.
func (b *bench) await(t *testing.T, id string, state swarm.TaskState) swarm.TaskStatus {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		st := b.statuses[id]
		b.mu.Unlock()
		if st.State == state {
			return st
		}
		if api.Terminal(st.State) {
			t.Fatalf("task is %s: %s; want %s", st.State, st.Err, state)
		}
		select {
		case <-b.changed:
		case <-deadline:
			t.Fatalf("task is %s after 30 s; want %s", st.State, state)
		}
	}
}

// work runs a worker until the test ends, or until what it gives is called.
func (b *bench) work(t *testing.T, dir string) (*task.Worker, func()) {
	t.Helper()
	w := task.New(task.Config{Executor: b, Report: b.report, StateDir: dir})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	end := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(end)
	return w, end
}

func (b *bench) containerOf(t *testing.T, id string) container.InspectResponse {
	t.Helper()
	found, err := b.find(t.Context(), labelTaskID+"="+id)
	if err != nil || len(found) != 1 {
		t.Fatalf("containers of %s: %v %v", id, found, err)
	}
	c, _ := b.engine(t.Context())
	in, err := c.ContainerInspect(t.Context(), found[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// testTakenPort: the engine's own refusal of a port names who has it.
func testTakenPort(t *testing.T, b *bench) {
	w, _ := b.work(t, "")
	onPort := func(s *swarm.ServiceSpec, _ *api.Task) {
		s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
			{Protocol: "tcp", TargetPort: 80, PublishedPort: 18090, PublishMode: swarm.PortConfigPublishModeHost},
		}}
	}
	s, first := b.state("exec busybox sleep 1000", onPort)
	w.Set(s)
	b.await(t, first.Task.ID, swarm.TaskStateRunning)
	both, second := b.state("exec busybox sleep 1000", onPort)
	both.Tasks[first.Task.ID] = first
	w.Set(both)
	st := b.await(t, second.Task.ID, swarm.TaskStateFailed)
	info, err := b.Info(t.Context())
	want := "port 18090/tcp is already in use on node " + info.Name + " by container web.1." + first.Task.ID
	if err != nil || !strings.HasSuffix(st.Err, want) {
		t.Errorf("%q, %v; want %q", st.Err, err, want)
	}
}

func testEnds(t *testing.T, b *bench) {
	w, _ := b.work(t, t.TempDir())
	const forever = "exec busybox sleep 1000"
	tests := []struct {
		name, script string
		change       func(*swarm.ServiceSpec, *api.Task)
		then         func(t *testing.T, id string) // done once it runs
		state        swarm.TaskState
		says         string
	}{
		{name: "complete", script: "exit 0", state: swarm.TaskStateComplete},
		{name: "crash", script: "exit 3", state: swarm.TaskStateFailed, says: "task: non-zero exit (3)"},
		{
			name: "missing image", state: swarm.TaskStateRejected, says: "No such image: 127.0.0.1:1/nosuch:latest (",
			change: func(s *swarm.ServiceSpec, _ *api.Task) { s.TaskTemplate.ContainerSpec.Image = "127.0.0.1:1/nosuch" },
		},
		{
			name: "missing command", state: swarm.TaskStateFailed, says: `starting container failed: exec: "/nosuch"`,
			change: func(s *swarm.ServiceSpec, _ *api.Task) { s.TaskTemplate.ContainerSpec.Command = []string{"/nosuch"} },
		},
		{
			name: "missing bind source", state: swarm.TaskStateRejected, says: "invalid mount config for type \"bind\"",
			change: func(s *swarm.ServiceSpec, _ *api.Task) {
				s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/no/such/dir", Target: "/x"}}
			},
		},
		{
			name: "secret that is gone", state: swarm.TaskStateRejected, says: `secret not found: key`,
			change: func(s *swarm.ServiceSpec, _ *api.Task) {
				s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: "x", SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "key"}}}
			},
		},
		{
			name: "out of memory", script: `busybox tail /dev/zero`, state: swarm.TaskStateFailed, says: "task: non-zero exit (137)",
			change: func(s *swarm.ServiceSpec, _ *api.Task) {
				s.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{MemoryBytes: 16 << 20}}
			},
		},
		{
			name: "unhealthy", script: forever, state: swarm.TaskStateFailed, says: "task: non-zero exit (137): dockerexec: unhealthy container: no database",
			change: func(s *swarm.ServiceSpec, _ *api.Task) {
				grace := time.Duration(0)
				s.TaskTemplate.ContainerSpec.StopGracePeriod = &grace
				s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{
					Test: []string{"CMD", "/bin/busybox", "sh", "-c", "echo asking; echo no database; false"}, Interval: 100 * time.Millisecond, Timeout: 10 * time.Second, Retries: 1,
				}
			},
		},
		{
			name: "removed behind our back", script: forever, state: swarm.TaskStateFailed, says: "container was removed outside of shoal",
			then: func(t *testing.T, id string) {
				c, _ := b.engine(t.Context())
				if err := c.ContainerRemove(t.Context(), b.containerOf(t, id).ID, container.RemoveOptions{Force: true}); err != nil {
					t.Error(err)
				}
			},
		},
		{
			name: "killed behind our back", script: forever, state: swarm.TaskStateFailed, says: "task: non-zero exit (137)",
			then: func(t *testing.T, id string) {
				c, _ := b.engine(t.Context())
				if err := c.ContainerKill(t.Context(), b.containerOf(t, id).ID, "KILL"); err != nil {
					t.Error(err)
				}
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, a := b.state(tt.script, tt.change)
			w.Set(s)
			if tt.then != nil {
				b.await(t, a.Task.ID, swarm.TaskStateRunning)
				tt.then(t, a.Task.ID)
			}
			st := b.await(t, a.Task.ID, tt.state)
			if !strings.HasPrefix(st.Err, tt.says) || tt.says == "" && st.Err != "" || strings.ContainsAny(st.Err, "\n") || strings.Contains(st.Err, "://") {
				t.Errorf("error %q, want %q", st.Err, tt.says)
			}
			t.Logf("%s: %q", st.State, st.Err)
		})
	}
}

func testAdoption(t *testing.T, b *bench) {
	dir := t.TempDir()
	w, end := b.work(t, dir)
	s, a := b.state("echo hello; echo oops >&2; exec busybox sleep 1000", func(s *swarm.ServiceSpec, _ *api.Task) {
		grace := time.Second // the script takes no notice of the stop signal
		s.TaskTemplate.ContainerSpec.StopGracePeriod = &grace
	})
	w.Set(s)
	before := b.await(t, a.Task.ID, swarm.TaskStateRunning)
	end()

	w, _ = b.work(t, dir)
	w.Set(s)
	stopping := api.Clone(s)
	wanted := api.Clone(a.Task)
	wanted.DesiredState = swarm.TaskStateShutdown
	stopping.Tasks = map[string]*api.Assignment{wanted.ID: {Task: wanted, Revision: a.Revision}}
	if in := b.containerOf(t, a.Task.ID); in.State.Pid != before.ContainerStatus.PID {
		t.Errorf("PID %d, was %d: the container was not adopted", in.State.Pid, before.ContainerStatus.PID)
	}
	// What runs need not have written yet.
	testbed.Eventually(t, time.Minute, func() error {
		logs, tty, err := b.Logs(t.Context(), a.Task.ID, api.LogOptions{Stdout: true, Stderr: true, Tail: "all"})
		if err != nil {
			return err
		}
		var out, errs bytes.Buffer
		_, err = stdcopy.StdCopy(&out, &errs, logs)
		_ = logs.Close()
		if err != nil || tty || out.String() != "hello\n" || errs.String() != "oops\n" {
			return fmt.Errorf("logs %q %q, tty %v: %w", &out, &errs, tty, err)
		}
		return nil
	})

	w.Set(stopping)
	st := b.await(t, a.Task.ID, swarm.TaskStateShutdown)
	if st.ContainerStatus == nil || st.ContainerStatus.ContainerID != before.ContainerStatus.ContainerID {
		t.Errorf("status %+v", st)
	}
	// It stays for its logs, and goes with its task.
	b.containerOf(t, a.Task.ID)
	none := api.Clone(s)
	none.Tasks = nil
	w.Set(none)
	deadline := time.Now().Add(20 * time.Second)
	for range time.Tick(20 * time.Millisecond) {
		found, err := b.find(t.Context(), labelTaskID+"="+a.Task.ID)
		if err == nil && len(found) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("container is still there: %v %v", found, err)
		}
	}
	if _, _, err := b.Logs(t.Context(), a.Task.ID, api.LogOptions{Stdout: true}); !errdefs.IsNotFound(err) {
		t.Errorf("logs of nothing: %v", err)
	}
}

// What is asked for comes back from the engine's own inspection.
func testMapping(t *testing.T, b *bench) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "host7"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	initial, grace := true, 1500*time.Millisecond
	s, a := b.state("exec busybox sleep 1000", func(spec *swarm.ServiceSpec, tk *api.Task) {
		cs := spec.TaskTemplate.ContainerSpec
		cs.Labels = map[string]string{"mine": "yes"}
		cs.Env = []string{"WHO={{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}}/{{.Node.Labels.rack}}", "PLAIN"}
		cs.Hostname = "{{.Service.Name}}-{{.Task.Slot}}"
		cs.Dir, cs.User, cs.Groups = "/tmp", "0:0", []string{"17"}
		cs.TTY, cs.OpenStdin, cs.ReadOnly, cs.Init = true, true, true, &initial
		cs.StopSignal, cs.StopGracePeriod = "SIGINT", &grace
		cs.Hosts = []string{"10.9.8.7 db db.local"}
		cs.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"10.1.1.1"}, Search: []string{"corp"}, Options: []string{"ndots:2"}}
		cs.CapabilityAdd, cs.CapabilityDrop = []string{"CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}
		cs.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		cs.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
		cs.OomScoreAdj = 100
		cs.Privileges = &swarm.Privileges{NoNewPrivileges: true, Seccomp: &swarm.SeccompOpts{Mode: swarm.SeccompModeUnconfined}}
		cs.Mounts = []mount.Mount{
			{Type: mount.TypeBind, Source: dir + "/{{.Node.Hostname}}", Target: "/bound", ReadOnly: true},
			{Type: mount.TypeTmpfs, Target: "/scratch", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o700}},
		}
		spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 5e8, MemoryBytes: 64 << 20, Pids: 50}}
		spec.TaskTemplate.LogDriver = &swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m"}}
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
			{Protocol: "tcp", TargetPort: 80, PublishMode: swarm.PortConfigPublishModeHost},
			{Protocol: "tcp", TargetPort: 81, PublishedPort: 81, PublishMode: swarm.PortConfigPublishModeIngress},
		}}
		tk.Networks = []api.Attachment{
			{NetworkID: "net1" + b.cluster, Addr: netip.MustParsePrefix("10.213.1.77/24"), Aliases: []string{"web"}},
			{NetworkID: "net2" + b.cluster, Addr: netip.MustParsePrefix("10.213.2.77/24")},
		}
	})
	s.Networks = map[string]*api.Network{}
	for i, cidr := range []string{"10.213.1.0/24", "10.213.2.0/24"} {
		n := &api.Network{Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(cidr)}}}
		n.ID = []string{"net1", "net2"}[i] + b.cluster
		n.Spec.Name = n.ID
		s.Networks[n.ID] = n
	}
	w, _ := b.work(t, "")
	w.Set(s)
	st := b.await(t, a.Task.ID, swarm.TaskStateRunning)
	if p := st.PortStatus.Ports; len(p) != 1 || p[0].TargetPort != 80 || p[0].PublishedPort == 0 || p[0].PublishMode != "host" {
		t.Errorf("ports %+v", p)
	} else if who, err := b.PublishedBy(t.Context(), "tcp", uint16(p[0].PublishedPort)); err != nil || who != "web.1."+a.Task.ID {
		t.Errorf("published by %q: %v", who, err)
	}
	in := b.containerOf(t, a.Task.ID)
	env := strings.Join(in.Config.Env, " ")
	for what, ok := range map[string]bool{
		"name":       in.Name == "/web.1."+a.Task.ID,
		"labels":     in.Config.Labels["mine"] == "yes" && in.Config.Labels[labelServiceName] == "web" && in.Config.Labels[labelTaskName] == "web.1."+a.Task.ID,
		"env":        strings.Contains(env, "WHO=web.1@host7/r7") && strings.Contains(env, "PLAIN"),
		"hostname":   in.Config.Hostname == "web-1",
		"process":    in.Config.WorkingDir == "/tmp" && in.Config.User == "0:0" && in.HostConfig.GroupAdd[0] == "17",
		"terminal":   in.Config.Tty && in.Config.OpenStdin,
		"read-only":  in.HostConfig.ReadonlyRootfs,
		"init":       in.HostConfig.Init != nil && *in.HostConfig.Init,
		"stop":       in.Config.StopSignal == "SIGINT" && *in.Config.StopTimeout == 2,
		"hosts":      strings.Join(in.HostConfig.ExtraHosts, " ") == "db:10.9.8.7 db.local:10.9.8.7",
		"dns":        in.HostConfig.DNS[0] == "10.1.1.1" && in.HostConfig.DNSSearch[0] == "corp" && in.HostConfig.DNSOptions[0] == "ndots:2",
		"caps":       strings.HasSuffix(in.HostConfig.CapAdd[0], "NET_ADMIN") && strings.HasSuffix(in.HostConfig.CapDrop[0], "CHOWN"),
		"sysctls":    in.HostConfig.Sysctls["net.ipv4.ip_unprivileged_port_start"] == "0",
		"ulimits":    len(in.HostConfig.Ulimits) == 1 && in.HostConfig.Ulimits[0].Soft == 100,
		"oom score":  in.HostConfig.OomScoreAdj == 100,
		"security":   strings.Contains(strings.Join(in.HostConfig.SecurityOpt, " "), "no-new-privileges") && strings.Contains(strings.Join(in.HostConfig.SecurityOpt, " "), "seccomp=unconfined"),
		"mounts":     len(in.Mounts) == 2,
		"limits":     in.HostConfig.NanoCPUs == 5e8 && in.HostConfig.Memory == 64<<20 && *in.HostConfig.PidsLimit == 50,
		"log driver": in.HostConfig.LogConfig.Config["max-size"] == "1m",
		"no restart": in.HostConfig.RestartPolicy.IsNone(),
	} {
		if !ok {
			t.Errorf("%s: not as asked for: %+v %+v", what, in.Config, in.HostConfig)
		}
	}
	for name, addr := range map[string]string{"net1" + b.cluster: "10.213.1.77", "net2" + b.cluster: "10.213.2.77"} {
		if n := in.NetworkSettings.Networks[name]; n == nil || n.IPAddress != addr {
			t.Errorf("network %s: %+v", name, n)
		}
	}
	if _, tty, err := b.Logs(t.Context(), a.Task.ID, api.LogOptions{Stdout: true}); err != nil || !tty {
		t.Errorf("tty %v: %v", tty, err)
	}
}

// testGrownNetwork: an engine that made a network before it grew serves the subnet
// that it knows, and makes it anew, for all that are to come, when nobody is on it.
func testGrownNetwork(t *testing.T, b *bench) {
	w, _ := b.work(t, "")
	n := &api.Network{Meta: api.Meta{ID: "grown" + b.cluster}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.213.4.0/29")}}}
	n.Spec.Name = n.ID
	// on is a state with a task at an address of the network.
	on := func(addr string) (*api.NodeState, *api.Assignment) {
		s, a := b.state("exec busybox sleep 1000", func(spec *swarm.ServiceSpec, tk *api.Task) {
			tk.Networks = []api.Attachment{{NetworkID: n.ID, Addr: netip.MustParsePrefix(addr)}}
			spec.TaskTemplate.ContainerSpec.StopSignal = "SIGKILL"
		})
		s.Networks = map[string]*api.Network{n.ID: n}
		return s, a
	}
	c, err := b.engine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	knows := func(want string) {
		t.Helper()
		in, err := c.NetworkInspect(t.Context(), n.ID, network.InspectOptions{})
		if err != nil || len(in.IPAM.Config) != 1 || in.IPAM.Config[0].Subnet != want {
			t.Errorf("the engine knows it by %v, %v; want %s", in.IPAM.Config, err, want)
		}
	}
	s, first := on("10.213.4.3/29")
	w.Set(s)
	b.await(t, first.Task.ID, swarm.TaskStateRunning)
	knows("10.213.4.0/29")

	n = api.Clone(n)
	n.Subnets = append(n.Subnets, api.Subnet{Prefix: netip.MustParsePrefix("10.213.5.0/29")})
	s, next := on("10.213.5.3/29")
	s.AddrPools = []netip.Prefix{netip.MustParsePrefix("10.213.4.0/22")}
	if _, err := b.ensureNetworks(t.Context(), c, s, []api.Attachment{{NetworkID: n.ID, Addr: netip.MustParsePrefix("10.213.4.4/29")}}); err != nil {
		t.Errorf("for an address that it knows: %v", err)
	}
	if _, err := b.ensureNetworks(t.Context(), c, s, next.Task.Networks); err == nil || !strings.Contains(err.Error(), "made it before it grew") {
		t.Errorf("for another while somebody is on it: %v", err)
	}
	knows("10.213.4.0/29")
	stopped := api.Clone(first.Task)
	stopped.DesiredState = swarm.TaskStateShutdown
	ending := &api.Assignment{Task: stopped, Revision: first.Revision}
	w.Set(&api.NodeState{ClusterID: b.cluster, Node: s.Node, Networks: s.Networks, Tasks: map[string]*api.Assignment{stopped.ID: ending}})
	b.await(t, stopped.ID, swarm.TaskStateShutdown)
	s.Tasks[stopped.ID] = ending
	w.Set(s)
	b.await(t, next.Task.ID, swarm.TaskStateRunning)
	knows("10.213.4.0/22")
}

func testDescription(t *testing.T, b *bench) {
	d, err := b.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Hostname == "" || d.Platform.OS == "" || d.Resources.NanoCPUs < nanoCPUs || d.Resources.MemoryBytes == 0 || d.Engine.EngineVersion == "" || len(d.Engine.Plugins) == 0 {
		t.Errorf("description %+v", d)
	}
}

func TestNoEngine(t *testing.T) {
	e := New(Config{Host: "unix://" + filepath.Join(t.TempDir(), "none.sock")})
	err := e.Watch(t.Context(), func() { t.Error("up") }, func(string) {})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("error %v is not of kind unavailable", err)
	}
	if _, err := e.List(t.Context(), "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("error %v is not of kind unavailable", err)
	}
}

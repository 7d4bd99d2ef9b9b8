package docker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
	"github.com/google/go-cmp/cmp"

	"shoal/internal/api"
	"shoal/task"
)

func TestOneLine(t *testing.T) {
	for raw, want := range map[string]string{
		`Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown`: `exec: "nosuch": executable file not found in $PATH`,
		`Error response from daemon: OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": permission denied: unknown`:                                               `exec: "x": permission denied`,
		`Error response from daemon: Get "https://reg.example/v2/": dial tcp 10.0.0.1:443: i/o timeout`:                                                                                                         `dial tcp 10.0.0.1:443: i/o timeout`,
		"one\n  two": "one two",
		"endpoint web.1.abc (" + strings.Repeat("0123456789abcdef", 4) + "): x": "endpoint web.1.abc (0123456789ab): x",
		"no image app@sha256:" + strings.Repeat("a", 64):                        "no image app@sha256:" + strings.Repeat("a", 64),
		"pull access denied for x, repository does not exist":                   "pull access denied for x, repository does not exist",
	} {
		if got := oneLine(raw); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestSayKeepsTheKind(t *testing.T) {
	for _, tt := range []struct {
		err, kind error
	}{
		{errors.Join(errors.New("gone"), errdefs.ErrNotFound), errdefs.ErrNotFound},
		{errors.New("Error response from daemon: client version 1.41 is too old. Minimum supported API version is 1.44"), errdefs.ErrUnavailable},
		{context.Canceled, context.Canceled},
	} {
		if got := say(tt.err); !errors.Is(got, tt.kind) {
			t.Errorf("say(%v) = %v, not of kind %v", tt.err, got, tt.kind)
		}
	}
}

func TestDescribe(t *testing.T) {
	info := system.Info{
		Name: "h", Architecture: "amd64", OSType: "linux", NCPU: 2, MemTotal: 1 << 30, ServerVersion: "29.0.0",
		Labels: []string{"disk=ssd", "odd"}, Plugins: system.PluginsInfo{Volume: []string{"local"}, Log: []string{"json-file"}},
	}
	got, err := describe(&info)
	if err != nil {
		t.Fatal(err)
	}
	want := swarm.NodeDescription{
		Hostname: "h", Platform: swarm.Platform{Architecture: "x86_64", OS: "linux"},
		Resources: swarm.Resources{NanoCPUs: 2e9, MemoryBytes: 1 << 30},
		Engine: swarm.EngineDescription{
			EngineVersion: "29.0.0", Labels: map[string]string{"disk": "ssd"},
			Plugins: []swarm.PluginDescription{{Type: "Log", Name: "json-file"}, {Type: "Volume", Name: "local"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, st := range []swarm.LocalNodeState{swarm.LocalNodeStateActive, swarm.LocalNodeStateLocked, swarm.LocalNodeStateError} {
		info.Swarm.LocalNodeState = st
		if _, err := describe(&info); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), `run "docker swarm leave"`) {
			t.Errorf("an engine whose swarm is %s: %v", st, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version string
		spec    *swarm.ContainerSpec
		says    string
	}{
		{"no container", "1.50", nil, "not a container"},
		{"windows", "1.50", &swarm.ContainerSpec{Privileges: &swarm.Privileges{CredentialSpec: &swarm.CredentialSpec{}}}, "Windows"},
		{"cluster volume", "1.50", &swarm.ContainerSpec{Mounts: []mount.Mount{{Type: mount.TypeCluster, Target: "/x"}}}, "cluster volumes"},
		{"old engine", "1.41", &swarm.ContainerSpec{Mounts: []mount.Mount{{Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "a"}}}}, "needs an engine with API 1.45; this one has 1.41"},
		{"older engine", "1.43", &swarm.ContainerSpec{Mounts: []mount.Mount{{Type: mount.TypeBind, Target: "/x", ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}}}}, "bind-recursive=readonly needs an engine with API 1.44"},
		{"unknown placeholder", "1.50", &swarm.ContainerSpec{Env: []string{"A={{.Nope}}"}}, "environment variable A"},
		{"broken placeholder", "1.50", &swarm.ContainerSpec{Hostname: "{{"}, "hostname"},
		{"missing label", "1.50", &swarm.ContainerSpec{Hostname: "{{.Node.Labels.none}}"}, "hostname"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &api.Assignment{Task: &api.Task{Meta: api.Meta{ID: "t"}}, Revision: &api.Revision{}}
			a.Revision.Spec.TaskTemplate.ContainerSpec = tt.spec
			s := &api.NodeState{Node: &api.Node{}}
			s.Node.Spec.Labels = map[string]string{"rack": "r"}
			_, err := compile(s, a, nil, nil, tt.version)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

func TestPinned(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for ref, want := range map[string]bool{"nginx": false, "nginx:1": false, "nginx" + digest: true, "r.example/x:1" + digest: true, "NOT valid": false} {
		if got := pinned(ref); got != want {
			t.Errorf("pinned(%q) = %v", ref, got)
		}
	}
}

func TestListedHealth(t *testing.T) {
	for status, want := range map[string]task.Health{
		"Up 2 minutes": task.NoHealth, "Up 2 minutes (healthy)": task.Healthy,
		"Up 1 second (health: starting)": task.Starting, "Up 3 hours (unhealthy)": task.Unhealthy, "Exited (0) 3 hours ago": task.NoHealth,
	} {
		if got := listedHealth(status); got != want {
			t.Errorf("%q: %q, want %q", status, got, want)
		}
	}
}

func TestComplaint(t *testing.T) {
	run := func(code int, output string) *container.HealthcheckResult {
		return &container.HealthcheckResult{ExitCode: code, Output: output}
	}
	long := strings.Repeat("é", maxComplaint)
	for name, test := range map[string]struct {
		log  []*container.HealthcheckResult
		want string
	}{
		"never run":      {nil, ""},
		"well":           {[]*container.HealthcheckResult{run(0, "fine")}, ""},
		"says nothing":   {[]*container.HealthcheckResult{run(1, " \n")}, ""},
		"last line":      {[]*container.HealthcheckResult{run(1, "asking\n\tno  database\r\n")}, "no database"},
		"last failure":   {[]*container.HealthcheckResult{run(1, "first"), run(-1, "Health check exceeded timeout (1s)"), nil, run(0, "fine")}, "Health check exceeded timeout (1s)"},
		"more than that": {[]*container.HealthcheckResult{run(1, long)}, long[:maxComplaint] + "..."},
	} {
		t.Run(name, func(t *testing.T) {
			if got := complaint(test.log); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// Many tasks of a revision share one attempt; another revision makes its own.
func TestPullsAreShared(t *testing.T) {
	p := newPulls()
	f, first := p.join("r1", true, false)
	if !first {
		t.Fatal("nobody pulls")
	}
	var wg sync.WaitGroup
	for range 5 {
		g, again := p.join("r1", true, false)
		if again || g != f {
			t.Fatal("a second attempt is made")
		}
		wg.Go(func() {
			select {
			case <-g.done:
			case <-time.After(10 * time.Second):
				t.Error("never told")
			}
		})
	}
	p.leave("r1", f)
	wg.Wait()
	if f, _ := p.join("r1", true, false); f != nil {
		t.Error("the revision is pulled again")
	}
	if _, first := p.join("r1", false, false); !first {
		t.Error("an image that was removed meanwhile is not pulled")
	}
	if _, first := p.join("r2", true, false); !first {
		t.Error("another revision is not pulled")
	}
	if f, _ := p.join("r3", true, true); f != nil {
		t.Error("an image that is there and can not have changed is pulled")
	}
}

func TestNetworkOptions(t *testing.T) {
	n := &api.Network{Meta: api.Meta{ID: "n1"}}
	if got := networkOptions(n); len(got) != 1 || got[labelNetwork] != "n1" {
		t.Errorf("of a plain network: %v", got)
	}
	n.Spec.Internal = true
	if got := networkOptions(n); len(got) != 2 || got[optionInternal] != "true" {
		t.Errorf("of an internal network: %v", got)
	}
	n.Spec.Internal = false
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{optionMTU: "1400", "other": "1"}}
	if got := networkOptions(n); len(got) != 2 || got[optionMTU] != "1400" {
		t.Errorf("with an MTU: %v", got)
	}
}

package control

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

func TestValidateSpec(t *testing.T) {
	in := func(f func(*swarm.ContainerSpec)) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { f(s.TaskTemplate.ContainerSpec) }
	}
	mounts := func(m ...mount.Mount) func(*swarm.ServiceSpec) {
		return in(func(c *swarm.ContainerSpec) { c.Mounts = m })
	}
	constraint := func(c string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{c}} }
	}
	update := func(u swarm.UpdateConfig) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.UpdateConfig = &u }
	}
	limits := func(l swarm.Limit) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &l} }
	}
	ok := func(error) bool { return true }
	bad, none := errdefs.IsInvalidArgument, errdefs.IsNotImplemented
	for _, c := range []struct {
		name   string
		change func(*swarm.ServiceSpec)
		kind   func(error) bool
		want   string // "" is valid
	}{
		{"plain", func(*swarm.ServiceSpec) {}, ok, ""},
		{"no name is given one", func(s *swarm.ServiceSpec) { s.Name = "" }, ok, ""},
		{"bad name", func(s *swarm.ServiceSpec) { s.Name = "a.b" }, bad, `name must be valid as a DNS name component: "a.b" is not: use letters and digits, with - or _ between them`},
		{"long name", func(s *swarm.ServiceSpec) { s.Name = strings.Repeat("a", 64) }, bad, `name must be 63 characters or fewer: "aaaa`},
		{"reserved label", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.wings": "2"} }, bad, `label "shoal.wings"`},
		{"unknown value of a setting", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.proxy-protocol": "v1"} }, bad, "must be v2"},
		{"setting without a port", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"shoal.proxy-protocol": "v2"} }, bad, "publishes no TCP port"},
		{"global with a limit per node", func(s *swarm.ServiceSpec) {
			s.Mode.Global = &swarm.GlobalService{}
			s.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: 2}
		}, bad, "replicas-max-per-node can only be used with replicated or replicated-job mode, and this service is global: leave the 2 out"},
		{"job with an update config", func(s *swarm.ServiceSpec) {
			s.Mode.ReplicatedJob, s.UpdateConfig = &swarm.ReplicatedJob{}, &swarm.UpdateConfig{}
		}, bad, "Jobs may not have an update config: leave the --update-* flags (update_config) out of a replicated-job"},
		{"job with a rollback config", func(s *swarm.ServiceSpec) {
			s.Mode.GlobalJob, s.RollbackConfig = &swarm.GlobalJob{}, &swarm.UpdateConfig{}
		}, bad, "Jobs may not have a rollback config: leave the --rollback-* flags (rollback_config) out of a global-job"},
		{"job that never runs", func(s *swarm.ServiceSpec) {
			s.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: new(uint64), TotalCompletions: new(uint64(2))}
		}, bad, "max-concurrent must be at least 1"},
		{"most replicas", func(s *swarm.ServiceSpec) {
			s.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(1_000_000))}
		}, ok, ""},
		{"more replicas than that", func(s *swarm.ServiceSpec) {
			s.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(math.MaxUint64))}
		}, bad, "replicas 18446744073709551615 is too many"},
		{"more completions than that", func(s *swarm.ServiceSpec) {
			s.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: new(uint64(1)), TotalCompletions: new(uint64(math.MaxInt64))}
		}, bad, "total-completions 9223372036854775807 is too many"},
		{"more at once than that", func(s *swarm.ServiceSpec) {
			s.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: new(uint64(1_000_001)), TotalCompletions: new(uint64(1))}
		}, bad, "max-concurrent 1000001 is too many"},
		{"more per node than that", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: math.MaxUint64} }, bad, "replicas-max-per-node 18446744073709551615 is too many"},
		{"two modes", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}, Replicated: &swarm.ReplicatedService{}}
		}, bad, "must specify only one service mode, not replicated and global"},
		{"huge", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": strings.Repeat("x", maxSpec)} }, bad, "service spec is too large"},
		{"plugin", func(s *swarm.ServiceSpec) { s.TaskTemplate.Runtime = "plugin" }, none, "runtime plugin is not supported"},
		{"attachment", func(s *swarm.ServiceSpec) { s.TaskTemplate.Runtime = "attachment" }, bad, "unsupported runtime"},
		{"no container", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec = nil }, bad, "mismatched Runtime and *Spec fields"},
		{"no image", in(func(c *swarm.ContainerSpec) { c.Image = "" }), bad, "ContainerSpec: image reference must be provided"},
		{"bad image", in(func(c *swarm.ContainerSpec) { c.Image = "UPPER" }), bad, `ContainerSpec: "UPPER" is not a valid repository/tag`},
		{"image by digest", in(func(c *swarm.ContainerSpec) { c.Image = "a.b:5000/c:1@sha256:" + strings.Repeat("a", 64) }), ok, ""},
		{"image by ID", in(func(c *swarm.ContainerSpec) { c.Image = "sha256:" + strings.Repeat("a", 64) }), ok, ""},
		{"bad hostname", in(func(c *swarm.ContainerSpec) { c.Hostname = "-x-" }), bad, `ContainerSpec: "-x-" is not valid hostname: --hostname takes up to 63 letters and digits`},
		{"template as hostname", in(func(c *swarm.ContainerSpec) { c.Hostname = "{{.Node.Hostname}}-x" }), ok, ""},
		{"negative grace", in(func(c *swarm.ContainerSpec) { c.StopGracePeriod = new(-time.Second) }), bad, "stop-grace-period cannot be negative: -1s"},
		{"unknown signal", in(func(c *swarm.ContainerSpec) { c.StopSignal = "SIGFOO" }), bad, `invalid stop-signal "SIGFOO": must be a signal's name or number, such as SIGTERM or 15`},
		{"signal", in(func(c *swarm.ContainerSpec) { c.StopSignal = "sigrtmin+3" }), ok, ""},
		{"nameless variable", in(func(c *swarm.ContainerSpec) { c.Env = []string{"A=1", "=x"} }), bad, "invalid environment variable: number 2 has no name"},
		{"unknown placeholder", in(func(c *swarm.ContainerSpec) { c.Env = []string{"A={{.Nope}}"} }), bad, "environment variable A: "},
		{"null ulimit", in(func(c *swarm.ContainerSpec) { c.Ulimits = []*container.Ulimit{nil} }), bad, "ulimit without a name"},
		{"null secret", in(func(c *swarm.ContainerSpec) { c.Secrets = []*swarm.SecretReference{nil} }), bad, "malformed secret reference"},
		{"null config", in(func(c *swarm.ContainerSpec) { c.Configs = []*swarm.ConfigReference{nil} }), bad, "malformed config reference"},
		{"secret without target", in(func(c *swarm.ContainerSpec) {
			c.Secrets = []*swarm.SecretReference{{SecretID: "a", SecretName: "a"}}
		}), bad, "malformed secret reference, no target provided"},
		{"config without file name", in(func(c *swarm.ContainerSpec) { c.Configs = []*swarm.ConfigReference{configRef("a", "")} }), bad, "malformed file config reference, invalid target file name provided"},
		{"config for the runtime", in(func(c *swarm.ContainerSpec) {
			c.Configs = []*swarm.ConfigReference{{ConfigID: "a", ConfigName: "a", Runtime: &swarm.ConfigReferenceRuntimeTarget{}}}
		}), none, "config a: a runtime target is not supported"},
		{"owner by name", in(func(c *swarm.ContainerSpec) { c.Secrets = []*swarm.SecretReference{secretRef("a", "a", "root")} }), bad, `secret a: uid "root" is not a number`},
		{"secrets in one place", in(func(c *swarm.ContainerSpec) {
			c.Secrets = []*swarm.SecretReference{secretRef("a", "t", ""), secretRef("b", "t", "")}
		}), bad, "secret references 'a' and 'b' have a conflicting target: 't'"},
		{"secret and config in one place", in(func(c *swarm.ContainerSpec) {
			c.Secrets = []*swarm.SecretReference{secretRef("a", "/t", "")}
			c.Configs = []*swarm.ConfigReference{configRef("b", "t")}
		}), bad, "secret 'a' and config 'b' have a conflicting target: '/t'"},
		{"secret on a mount", in(func(c *swarm.ContainerSpec) {
			c.Secrets = []*swarm.SecretReference{secretRef("a", "a", "")}
			c.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/run/secrets/a"}}
		}), bad, "duplicate mount point: /run/secrets/a"},
		{"credential spec", in(func(c *swarm.ContainerSpec) {
			c.Privileges = &swarm.Privileges{CredentialSpec: &swarm.CredentialSpec{}}
		}), none, "credential specs are not supported"},
		{"isolation", in(func(c *swarm.ContainerSpec) { c.Isolation = "hyperv" }), none, `isolation "hyperv" is not supported`},
		{"oom score", in(func(c *swarm.ContainerSpec) { c.OomScoreAdj = 1001 }), bad, "oom score adj"},
		{"fast health check", in(func(c *swarm.ContainerSpec) { c.Healthcheck = &container.HealthConfig{Interval: 1} }), bad, "ContainerSpec: Interval in HealthConfig cannot be less than 1ms: 1ns (--health-interval; 0 is the image's)"},
		{"health retries", in(func(c *swarm.ContainerSpec) { c.Healthcheck = &container.HealthConfig{Retries: -1} }), bad, "Retries in HealthConfig cannot be negative: -1 (--health-retries)"},
		{"mounts", mounts(
			mount.Mount{Type: "bind", Source: "/a", Target: "/a"}, mount.Mount{Type: "volume", Source: "v", Target: "/b"},
			mount.Mount{Type: "volume", Target: "/c"}, mount.Mount{Type: "tmpfs", Target: "/d"}), ok, ""},
		{"mounts in one place", mounts(mount.Mount{Type: "volume", Source: "v", Target: "/a"}, mount.Mount{Type: "tmpfs", Target: "/a/"}), bad, "ContainerSpec: duplicate mount point: /a/"},
		{"mount type", mounts(mount.Mount{Type: "floppy", Target: "/a"}), bad, `invalid MountType: "floppy" of the mount on /a: type must be bind, volume, tmpfs or image`},
		{"bind propagation", mounts(mount.Mount{Type: "bind", Source: "/b", Target: "/a", BindOptions: &mount.BindOptions{Propagation: "sideways"}}), bad, `invalid bind-propagation "sideways" of the mount on /a: must be `},
		{"tmpfs with a source", mounts(mount.Mount{Type: "tmpfs", Source: "b", Target: "/a"}), bad, "invalid tmpfs source, source must be empty: b of the mount on /a"},
		{"cluster volume", mounts(mount.Mount{Type: "cluster", Target: "/a"}), none, "cluster volumes are not supported"},
		{"image as a mount", mounts(mount.Mount{Type: "image", Source: "busybox", Target: "/a"}), ok, ""},
		{"no image as a mount", mounts(mount.Mount{Type: "image", Target: "/a"}), bad, "invalid image mount source"},
		{"named pipe", mounts(mount.Mount{Type: "npipe", Source: "a", Target: "/a"}), none, "mount type npipe is not supported"},
		{"relative target", mounts(mount.Mount{Type: "volume", Target: "a"}), bad, "invalid mount target, must be an absolute path: a"},
		{"relative bind", mounts(mount.Mount{Type: "bind", Source: "a", Target: "/a"}), bad, "invalid bind mount source, must be an absolute path: a"},
		{"bind of nothing", mounts(mount.Mount{Type: "bind", Target: "/a"}), bad, "source must not be empty: the mount on /a needs source=/PATH"},
		{"absolute volume", mounts(mount.Mount{Type: "volume", Source: "/a", Target: "/a"}), bad, "must not be an absolute path: /a: name a volume, or mount the path with type=bind"},
		{"little cpu", limits(swarm.Limit{NanoCPUs: 1e5}), bad, "invalid cpu value 0.0001: Must be at least 0.001 (--limit-cpu; 0 is none)"},
		{"little memory", limits(swarm.Limit{MemoryBytes: 1000}), bad, "invalid memory value 1000: Must be at least 4MiB (--limit-memory; 0 is none)"},
		{"negative pids", limits(swarm.Limit{Pids: -1}), bad, "invalid pids limit -1: Must not be negative (--limit-pids; 0 is no limit)"},
		{"generic resources", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{GenericResources: make([]swarm.GenericResource, 1)}}
		}, bad, "generic resources: one without a kind: a service reserves a number of a kind"},
		{"restart condition", func(s *swarm.ServiceSpec) { s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: "often"} }, bad, `invalid RestartCondition: "often": --restart-condition must be any, on-failure or none`},
		{"restart delay", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: new(-time.Second)}
		}, bad, "TaskSpec: restart-delay cannot be negative: -1s"},
		{"update action", update(swarm.UpdateConfig{FailureAction: "shrug"}), bad, "unrecognized update failure action shrug: --update-failure-action must be pause, continue or rollback"},
		{"update order", update(swarm.UpdateConfig{Order: "random"}), bad, "unrecognized update order random: --update-order must be stop-first or start-first"},
		{"update delay", update(swarm.UpdateConfig{Delay: -1}), bad, "TaskSpec: update-delay cannot be negative: -1ns"},
		{"update ratio", update(swarm.UpdateConfig{MaxFailureRatio: 1.5}), bad, "update-maxfailureratio cannot be less than 0 or bigger than 1: 1.5 (--update-max-failure-ratio)"},
		{"no ratio at all", update(swarm.UpdateConfig{MaxFailureRatio: float32(math.NaN())}), bad, ""},
		{"rollback of a rollback", func(s *swarm.ServiceSpec) { s.RollbackConfig = &swarm.UpdateConfig{FailureAction: "rollback"} }, bad, "unrecognized rollback failure action rollback: --rollback-failure-action must be pause or continue"},
		{"constraint", constraint("node.labels.zone == a"), ok, ""},
		{"constraint on a label with a slash", constraint("node.labels.example.com/rack!=r 7"), ok, ""},
		{"constraint not", constraint("node.role!=manager"), ok, ""},
		{"constraint on the engine", constraint("ENGINE.labels.x==a.*"), ok, ""},
		{"constraint without operator", constraint("node.role=manager"), bad, `constraint "node.role=manager" is not of the form field==value or field!=value`},
		{"constraint key", constraint("no-de$==a"), bad, "is not of the form"},
		{"constraint value", constraint("node.role=="), bad, "is not of the form"},
		{"constraint nobody meets", constraint("node.colour==red"), bad, "no node has a node.colour"},
		{"constraint on no label", constraint("node.labels.==red"), bad, "no node has a node.labels."},
		{"preference", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.az"}}}}
		}, ok, ""},
		{"null preference", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Preferences: make([]swarm.PlacementPreference, 1)}
		}, bad, "only spread is known"},
		{"preference for something else", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.colour"}}}}
		}, bad, `spread over "node.colour"`},
		{"preference for nodes", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.id"}}}}
		}, ok, ""},
		{"endpoint mode", func(s *swarm.ServiceSpec) { s.EndpointSpec = &swarm.EndpointSpec{Mode: "magic"} }, bad, `invalid resolution mode: "magic": --endpoint-mode must be vip or dnsrr`},
		{"protocol", publish(swarm.PortConfig{Protocol: "icmp", TargetPort: 1}), bad, `invalid protocol "icmp" of port 1/icmp: must be tcp, udp or sctp`},
		{"publish mode", publish(swarm.PortConfig{PublishMode: "loud", TargetPort: 1}), bad, `invalid publish mode "loud" of port 1/tcp: must be ingress or host`},
		{"no target port", publish(ingress(0, 80)), bad, "invalid target port 0"},
		{"target port", publish(ingress(65536, 80)), bad, "invalid target port 65536"},
		{"published port", publish(ingress(80, 70000)), bad, "invalid published port 70000"},
		{"port twice", publish(ingress(80, 80), ingress(81, 80)), bad, "EndpointSpec: duplicate published ports provided: 80/tcp twice"},
		{"port for two protocols", publish(ingress(80, 80), swarm.PortConfig{Protocol: "udp", TargetPort: 80, PublishedPort: 80}), ok, ""},
		{"two automatic ports", publish(ingress(80, 0), ingress(81, 0)), ok, ""},
		{"dnsrr with ingress", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Mode: "dnsrr", Ports: []swarm.PortConfig{ingress(80, 80)}}
		}, bad, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode: publish port 80:80/tcp with mode=host, or use --endpoint-mode vip"},
		{"dnsrr with host", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Mode: "dnsrr", Ports: []swarm.PortConfig{host(80, 80)}}
		}, ok, ""},
		{"network", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "nosuch"}}
		}, errdefs.IsNotFound, "network nosuch not found"},
		{"network in the old field", func(s *swarm.ServiceSpec) {
			//lint:ignore SA1019 old clients still send it
			s.Networks = []swarm.NetworkAttachmentConfig{{Target: "nosuch"}}
		}, errdefs.IsNotFound, "network nosuch not found"},
		{"ingress network", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "ingress"}}
		}, bad, `Service cannot be explicitly attached to the ingress network "ingress"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.CreateService(t.Context(), spec("web", c.change), "")
			if c.want == "" && c.kind(nil) {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, c.kind, c.want)
			if n := w.View().Services.Len() + w.View().Revisions.Len(); n != 0 {
				t.Fatalf("%d objects written", n)
			}
		})
	}
}

func TestNormalizedSpecIsStable(t *testing.T) {
	in := spec("web", publish(ingress(80, 0)))
	in.UpdateConfig = &swarm.UpdateConfig{}
	in.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{}
	once := normalizeSpec(in)
	if twice := normalizeSpec(once); !sameJSON(once, twice) {
		t.Fatalf("changed the second time:\n%+v\n%+v", once, twice)
	}
	if in.EndpointSpec.Ports[0].Protocol != "" || in.UpdateConfig.Order != "" || in.TaskTemplate.RestartPolicy.Condition != "" || in.TaskTemplate.ContainerSpec.Isolation != "" {
		t.Fatalf("wrote to the caller's spec: %+v", in)
	}
	if *once.Mode.Replicated.Replicas != 1 || once.EndpointSpec.Mode != swarm.ResolutionModeVIP {
		t.Fatalf("defaults: %+v", once)
	}
}

func TestInsertDefaultsLeavesTheStoredSpecAlone(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	shown, err := w.Service("web", true)
	if err != nil {
		t.Fatal(err)
	}
	if shown.Spec.UpdateConfig == nil || shown.Spec.TaskTemplate.RestartPolicy == nil || *shown.Spec.TaskTemplate.ContainerSpec.StopGracePeriod != 10*time.Second {
		t.Fatalf("no defaults: %+v", shown.Spec)
	}
	if now := w.service(s.ID); now.Spec.UpdateConfig != nil || now.Spec.TaskTemplate.ContainerSpec.StopGracePeriod != nil {
		t.Fatalf("stored spec changed: %+v", now.Spec)
	}
}

func secretRef(name, target, uid string) *swarm.SecretReference {
	return &swarm.SecretReference{SecretID: "id-" + name, SecretName: name, File: &swarm.SecretReferenceFileTarget{Name: target, UID: uid, Mode: 0o444}}
}

func configRef(name, target string) *swarm.ConfigReference {
	return &swarm.ConfigReference{ConfigID: "id-" + name, ConfigName: name, File: &swarm.ConfigReferenceFileTarget{Name: target, Mode: 0o444}}
}

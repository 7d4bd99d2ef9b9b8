package compose

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// one loads a file that is given as text.
func one(t testing.TB, text string) ([]string, error) {
	t.Helper()
	p, err := Load(t.Context(), Input{Name: "st", Files: []string{"-"}, Stdin: strings.NewReader(text), Dir: t.TempDir()})
	if err != nil {
		return nil, err
	}
	_, err = p.Stack("st")
	return p.Warnings, err
}

// TestRefused has files that can not be deployed, and what is said about them.
func TestRefused(t *testing.T) {
	const web = "services:\n  web:\n    image: x\n    "
	for name, test := range map[string]struct{ file, want string }{
		"nothing":       {"", "empty compose file"},
		"not yaml":      {"services: [", "<stdin>: yaml: "},
		"unknown field": {web + "imge: y", "<stdin>:4: services.web.imge: there is no such field; is it image?"},
		"two at once":   {web + "imge: y\n    cpuset: '1'", "<stdin>:4: services.web.imge: there is no such field; is it image?\n<stdin>:5: services.web.cpuset is not supported: not available for services"},
		"all at once": {web + "cpuset: '1'\n    secrets: [a, b]\n    volumes: ['data:/d', 'more:/m']\n    deploy: {mode: global, replicas: 2}\n    ports: [{target: 80, host_ip: 127.0.0.1}]\n  b:\n    command: x\n" +
			"    depends_on: [c, d]\nsecrets: {s: {file: ./none}}\n", `<stdin>:4: services.web.cpuset is not supported: not available for services
<stdin>:8: services.web.ports[0].host_ip is not supported: a port is published on every node; without the address it would be open to the world
<stdin>:9: services.b: there is no image to run
<stdin>:11: services.b.depends_on: it depends on the service "c", which is not deployed
<stdin>:11: services.b.depends_on: it depends on the service "d", which is not deployed
<stdin>:7: services.web.deploy.replicas: replicas can only be used with replicated or replicated-job mode
<stdin>:6: services.web.volumes[0]: undefined volume "data"
<stdin>:6: services.web.volumes[1]: undefined volume "more"
<stdin>:5: services.web.secrets: undefined secret "a"
<stdin>:5: services.web.secrets: undefined secret "b"
<stdin>:12: secrets.s.file: open `},
		"refused and ill-typed": {web + "cpuset: '1'\n    deploy: {replicas: many}", "<stdin>:4: services.web.cpuset is not supported: not available for services\n<stdin>:5: services.web.deploy.replicas: \"many\" is not a number of this kind"},
		"fixed address":         {web + "networks:\n      default:\n        ipv4_address: 10.0.0.2", "<stdin>:6: services.web.networks.default.ipv4_address is not supported: a service has many containers"},
		"host address":          {web + "ports: ['127.0.0.1:80:80']", "<stdin>:4: services.web.ports: 127.0.0.1:80:80 is not supported: a port is published on every node"},
		"long host_ip":          {web + "ports: [{target: 80, host_ip: 127.0.0.1}]", "<stdin>:4: services.web.ports[0].host_ip is not supported"},
		"merged field":          {"x-a: &a\n  cpuset: '1'\nservices:\n  web:\n    <<: *a\n    image: x", "<stdin>:2: services.web.cpuset is not supported"},
		"no image":              {"services:\n  web:\n    command: x", "<stdin>:2: services.web: there is no image to run"},
		"network":               {web + "networks: [back]", `services.web.networks.back: undefined network "back"`},
		"volume":                {web + "volumes: ['data:/d']", `<stdin>:4: services.web.volumes[0]: undefined volume "data"`},
		"secret":                {web + "secrets: [a]", `<stdin>:4: services.web.secrets: undefined secret "a"`},
		"two mounts":            {web + "volumes: [/a]\n    tmpfs: /a", "<stdin>:5: services.web.tmpfs[0]: there is another mount at /a"},
		"type":                  {web + "deploy: {replicas: many}", `<stdin>:4: services.web.deploy.replicas: "many" is not a number of this kind`},
		"no boolean":            {web + "read_only: ${X:-maybe}", `<stdin>:4: services.web.read_only: "maybe" is neither true nor false`},
		"no duration":           {web + "healthcheck: {interval: soon}", `<stdin>:4: 'services.web.healthcheck.interval' time: invalid duration "soon"`},
		"indentation":           {web + "command: x\n   bad: y", "<stdin>: yaml: while parsing a block mapping at line 2, column 3: line 5, column 4: did not find expected key"},
		"mode":                  {web + "deploy: {mode: global, replicas: 2}", "<stdin>:4: services.web.deploy.replicas: replicas can only be used with replicated"},
		"schema":                {web + "deploy: {update_config: {order: sideways}}", "<stdin>:4: "},
		"circle":                {web + "depends_on: [b]\n  b:\n    image: x\n    depends_on: [web]", "services depend on each other in a circle: b > web > b"},
		"never completes":       {web + "depends_on: {b: {condition: service_completed_successfully}}\n  b: {image: x}", `<stdin>:4: services.web.depends_on.b: service "b" never completes`},
		"required":              {web + "command: ${MUST:?say it}", "say it"},
		"no file":               {web + "secrets: [a]\nsecrets: {a: {file: ./none}}", "<stdin>:5: secrets.a.file: open "},
		"circular anchor":       {"a: &a [*a]", ""},
		"bomb":                  {bomb(), "more than 200000 entries once its aliases are followed"},
		"deep":                  {strings.Repeat("[", 5000), ""},
		"nested":                {strings.Repeat("[", 500) + strings.Repeat("]", 500), "nested more than 200 deep"},
		"large":                 {"#" + strings.Repeat("x", maxFile), "is larger than 4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := one(t, test.file)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// bomb is a small file that means ten to the ninth entries.
func bomb() string {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		from, to := string(rune('0'+i)), string(rune('1'+i))
		text += "a" + to + ": &a" + to + " [" + strings.TrimSuffix(strings.Repeat("*a"+from+",", 10), ",") + "]\n"
	}
	return text
}

func TestWarned(t *testing.T) {
	const web = "services:\n  web:\n    image: x\n    "
	for name, test := range map[string]struct{ file, want string }{
		"ignored":       {web + "build: .", "<stdin>:4: services.web.build is ignored: images are built and pushed before they are deployed"},
		"restart":       {web + "restart: 'no'", "<stdin>:4: services.web.restart is ignored: use deploy.restart_policy.condition none"},
		"selinux":       {web + "volumes: ['/a:/a:z']", "<stdin>:4: services.web.volumes[0]: z is ignored: label the directory on the nodes"},
		"variable":      {web + "command: $NOWHERE", "the variable NOWHERE is not set: it is replaced by nothing"},
		"default":       {web + "command: ${NOWHERE:-x} $$ESCAPED", ""},
		"asks nothing":  {web + "privileged: false\n    links: []", ""},
		"extension":     {web + "x-anything: {a: b}", ""},
		"other profile": {web + "command: x\n  b: {image: x, profiles: [b], cpuset: '1'}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := one(t, test.file)
			if got := strings.Join(warnings, "\n"); err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// TestFiles merges two files, and takes variables from a file that is named, but not from .env.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yml": "services:\n  web:\n    image: x:${TAG:-none}\n    environment: {A: '1', B: '1'}\n    ports: ['80:80']\n",
		"b.yml": "services:\n  web:\n    environment: {B: '2'}\n    ports: ['81:81']\n    deploy: {replicas: 3}\n",
		".env":  "TAG=from-dotenv\n",
		"x.env": "TAG=\"from x\"\nOTHER=${TAG}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := Input{Name: "st", Files: []string{"a.yml", filepath.Join(dir, "b.yml")}, Dir: dir}
	stack, _ := loadStack(t, in)
	spec := stack.Services[0].Spec
	if c := spec.TaskTemplate.ContainerSpec; c.Image != "x:none" || strings.Join(c.Env, " ") != "A=1 B=2" || len(spec.EndpointSpec.Ports) != 2 || *spec.Mode.Replicated.Replicas != 3 {
		t.Errorf("merged: %+v", spec)
	}
	in.EnvFiles = []string{"x.env"}
	stack, _ = loadStack(t, in)
	if image := stack.Services[0].Spec.TaskTemplate.ContainerSpec.Image; image != "x:from x" {
		t.Errorf("image %q", image)
	}
	in.Env = map[string]string{"TAG": "given"}
	stack, _ = loadStack(t, in)
	if image := stack.Services[0].Spec.TaskTemplate.ContainerSpec.Image; image != "x:given" {
		t.Errorf("image %q", image)
	}
}

// TestReached: whatever a file includes or extends is checked, by whatever way it is reached.
func TestReached(t *testing.T) {
	const refused = "\n    cpuset: '1'\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"an include after one that was seen": {map[string]string{
			"a.yml": "include: [b.yml, c.yml]\n", "b.yml": "include: [c.yml, d.yml]\n",
			"c.yml": "services:\n  c: {image: x}\n", "d.yml": "services:\n  d:\n    image: x" + refused,
		}, "d.yml:4: services.d.cpuset is not supported"},
		"a service that an extended one extends": {map[string]string{
			"a.yml": "services:\n  a:\n    extends: {file: b.yml, service: b}\n",
			"b.yml": "services:\n  b:\n    extends: {service: c}\n  c:\n    image: x" + refused,
		}, "b.yml:6: services.c.cpuset is not supported"},
		"in the short form": {map[string]string{
			"a.yml": "services:\n  a:\n    extends: {file: b.yml, service: b}\n",
			"b.yml": "services:\n  b:\n    extends: c\n  c:\n    image: x" + refused,
		}, "b.yml:6: services.c.cpuset is not supported"},
		"by a merge": {map[string]string{
			"a.yml": "x-it: &it {extends: {file: b.yml, service: b}}\nservices:\n  a:\n    <<: *it\n",
			"b.yml": "services:\n  b:\n    image: x" + refused,
		}, "b.yml:4: services.b.cpuset is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p, err := Load(t.Context(), Input{Name: "st", Files: []string{"a.yml"}, Dir: dir})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, %v, want %q", p, err, test.want)
			}
		})
	}
}

// TestFormsOfEnvFiles: which form a file is named in counts for the service that names it, and those that extend it.
func TestFormsOfEnvFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yml": "services:\n" +
			"  short: {image: x, env_file: [.env, x.env]}\n" +
			"  long: {image: x, env_file: [{path: .env}, {path: './${WHICH}.env'}]}\n" +
			"  derived: {extends: long}\n" +
			"  other: {image: x, env_file: [{path: ./env}]}\n",
		".env": "A='1'\n", "x.env": "B='2'\n", "env": "C='3'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stack, _ := loadStack(t, Input{Name: "st", Files: []string{"a.yml"}, Dir: dir, Env: map[string]string{"WHICH": "x"}})
	want := map[string]string{"short": "A='1' B='2'", "long": "A=1 B=2", "derived": "A=1 B=2", "other": "C=3"}
	for _, s := range stack.Services {
		if got := strings.Join(s.Spec.TaskTemplate.ContainerSpec.Env, " "); got != want[s.Key] {
			t.Errorf("%s: %s, want %s", s.Key, got, want[s.Key])
		}
	}
}

// TestSettings: what specs have no words for becomes labels.
func TestSettings(t *testing.T) {
	p, err := Load(t.Context(), Input{Name: "st", Files: []string{"-"}, Dir: t.TempDir(), Stdin: strings.NewReader(
		"services: {web: {image: x, privileged: true, devices: ['/dev/fuse', '/dev/a:/dev/b:r', {source: /dev/c, target: /dev/d}]}}")})
	if err != nil {
		t.Fatal(err)
	}
	stack, err := p.Stack("st")
	if err != nil {
		t.Fatal(err)
	}
	labels := stack.Services[0].Spec.Labels
	settings, err := api.ReadSettings(map[string]string{api.PrivilegedLabel: labels[api.PrivilegedLabel], api.DevicesLabel: labels[api.DevicesLabel]})
	if err != nil || !settings.Privileged || len(settings.Devices) != 3 {
		t.Errorf("labels %v are %+v, %v", labels, settings, err)
	}
}

// TestDifferences: what a manager fills in is none, and tasks are replaced only for what they depend on.
func TestDifferences(t *testing.T) {
	stack, _ := loadStack(t, Input{Name: "st", Files: []string{"proxy.yml"}, Dir: testDir(t), Env: testEnv})
	again, _ := loadStack(t, Input{Name: "st", Files: []string{"proxy.yml"}, Dir: testDir(t), Env: testEnv})
	old, next := stack.Services[0].Spec, again.Services[0].Spec
	old.TaskTemplate.Runtime = "container"
	old.UpdateConfig = nil
	for i := range old.EndpointSpec.Ports {
		old.EndpointSpec.Ports[i].Protocol = "tcp"
	}
	if d := Differences(old, next); len(d) != 0 {
		t.Errorf("differences where there are none: %v", d)
	}
	replicas := uint64(4)
	next.Mode.Replicated.Replicas = &replicas
	next.TaskTemplate.ContainerSpec.Image = "other"
	d := Differences(old, next)
	if len(d) != 2 || d[0].String() != "~ Mode.Replicated.Replicas: 3 > 4" || d[0].Replaces() || !d[1].Replaces() {
		t.Errorf("differences: %v", d)
	}
	next = old
	next.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role==manager"}}
	if d = Differences(old, next); len(d) == 0 || slices.ContainsFunc(d, func(d Difference) bool { return d.Replaces() || !d.Moves() }) {
		t.Errorf("differences in placement: %v", d)
	}
}

// TestPrecede: order that nobody asked for never makes a circle.
func TestPrecede(t *testing.T) {
	service := func(key string, after ...Dependency) Service { return Service{Key: key, After: after} }
	s := Stack{Services: []Service{service("a"), service("b", Dependency{Key: "c", Condition: Started}), service("c"), service("d")}}
	expect := func(want string) {
		t.Helper()
		order, err := s.Order()
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, service := range order {
			keys = append(keys, service.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	}
	expect("a c b d")
	s.Precede("d", "a")
	expect("d a c b")
	s.Precede("a", "d") // two that swap
	s.Precede("b", "c") // against what the file says
	s.Precede("a", "a")
	s.Precede("a", "x")
	expect("d a c b")
	s.Precede("b", "d")
	expect("c b d a")
}

// TestNoDifference: how often a job runs is counted from nothing, and what was deployed is what is deployed again.
func TestNoDifference(t *testing.T) {
	one, two := uint64(1), uint64(2)
	for name, c := range map[string]struct {
		old, next swarm.ReplicatedJob
		differ    int
	}{
		"once":            {swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}, swarm.ReplicatedJob{}, 0},
		"as many at once": {swarm.ReplicatedJob{MaxConcurrent: &two, TotalCompletions: &two}, swarm.ReplicatedJob{MaxConcurrent: &two}, 0},
		"more":            {swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &one}, swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &two}, 1},
	} {
		old, next := swarm.ServiceSpec{Mode: swarm.ServiceMode{ReplicatedJob: &c.old}}, swarm.ServiceSpec{Mode: swarm.ServiceMode{ReplicatedJob: &c.next}}
		if d := Differences(old, next); len(d) != c.differ {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range corpus {
		data, err := os.ReadFile(filepath.Join("testdata", name+".yml"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add(bomb())
	f.Add("services:\n  a: &a\n    <<: *a\n    image: ${A:-${B}}\n")
	f.Add("services: {a: {image: x, ports: [80, '1-9:1-9', {target: 1}], volumes: ['a:b:c', {type: tmpfs}], ulimits: {n: {soft: 1}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") || strings.Contains(text, "file") {
			t.Skip("may name any file of the machine")
		}
		p, err := Load(t.Context(), Input{Name: "st", Files: []string{"-"}, Stdin: strings.NewReader(text), Dir: t.TempDir()})
		if err != nil {
			return
		}
		if _, err := p.Stack("st"); err == nil {
			if _, err := p.YAML(); err != nil {
				t.Errorf("what was read can not be written: %v", err)
			}
		}
	})
}

package spec

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/cli/flags"
)

// parse reads a command line the way the application does, up to the arguments.
func parse(set flags.Set, args []string) ([]string, error) {
	line, err := set.Parse(args, false)
	if err != nil {
		return nil, err
	}
	parser := flag.NewFlagSet("", flag.ContinueOnError)
	parser.SetOutput(io.Discard)
	for _, f := range set {
		if err := f.Apply(parser); err != nil {
			return nil, err
		}
	}
	if parser.Parse(line.Flags) != nil {
		return nil, set.Err()
	}
	return line.Args, nil
}

// at follows a path of field names into the JSON of v: what clients of the API see.
func at(t *testing.T, v any, path string) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var here any
	if err := json.Unmarshal(data, &here); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(path, ".") {
		object, _ := here.(map[string]any)
		here = object[name]
	}
	out, err := json.Marshal(here)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

const (
	inTask      = "TaskTemplate."
	inContainer = inTask + "ContainerSpec."
)

// clientFlags steer the client and leave no trace in a spec; references are resolved by the server's answers and are
// tested with it.
var (
	clientFlags = []string{"detach", "quiet", "no-resolve-image", "with-registry-auth", "rollback"}
	references  = []string{"secret", "config", "secret-add", "secret-rm", "config-add", "config-rm", "network-add", "network-rm"}
)

type flagTest struct{ flag, args, path, want string }

func (ft flagTest) fields() []string { return strings.Split(ft.args, "|") }

func TestCreateSetsTheFieldOfEveryFlag(t *testing.T) {
	envFile := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(envFile, []byte("# comment\nFROM_FILE=a b\n\nSHELL_VAR\nUNSET_VAR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SHELL_VAR", "v")
	rows := []flagTest{
		{"cap-add", "--cap-add|net_admin|--cap-add|CAP_CHOWN", inContainer + "CapabilityAdd", `["CAP_CHOWN","CAP_NET_ADMIN"]`},
		{"cap-drop", "--cap-drop|all|--cap-drop|chown", inContainer + "CapabilityDrop", `["ALL"]`},
		{"constraint", "--constraint|node.role==manager|--constraint|node.labels.a!=b", inTask + "Placement.Constraints", `["node.role==manager","node.labels.a!=b"]`},
		{"container-label", "--container-label|a=b|--container-label|c", inContainer + "Labels", `{"a":"b","c":""}`},
		{"credential-spec", "--credential-spec|file://x", inContainer + "Privileges.CredentialSpec", `{"Config":"","File":"x","Registry":""}`},
		{"dns", "--dns|1.1.1.1|--dns|::1", inContainer + "DNSConfig.Nameservers", `["1.1.1.1","::1"]`},
		{"dns-option", "--dns-option|ndots:2", inContainer + "DNSConfig.Options", `["ndots:2"]`},
		{"dns-search", "--dns-search|example.com", inContainer + "DNSConfig.Search", `["example.com"]`},
		{"endpoint-mode", "--endpoint-mode|dnsrr", "EndpointSpec.Mode", `"dnsrr"`},
		{"endpoint-mode", "", "EndpointSpec.Mode", `"vip"`},
		{"entrypoint", `--entrypoint|sh -c 'a b' "c\"d"`, inContainer + "Command", `["sh","-c","a b","c\"d"]`},
		{"env", "-e|A=1,2|--env|SHELL_VAR|--env|UNSET_VAR|-e|A=3", inContainer + "Env", `["A=3","SHELL_VAR=v","UNSET_VAR"]`},
		{"env-file", "--env-file|" + envFile + "|-e|X=1", inContainer + "Env", `["FROM_FILE=a b","SHELL_VAR=v","X=1"]`},
		{"generic-resource", "--generic-resource|gpu=2", inTask + "Resources.Reservations.GenericResources", `[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]`},
		{"group", "--group|a|--group|b", inContainer + "Groups", `["a","b"]`},
		{"health-cmd", "--health-cmd|curl x", inContainer + "Healthcheck.Test", `["CMD-SHELL","curl x"]`},
		{"health-interval", "--health-interval|2s", inContainer + "Healthcheck.Interval", `2000000000`},
		{"health-retries", "--health-retries|3", inContainer + "Healthcheck.Retries", `3`},
		{"health-start-interval", "--health-start-interval|1s", inContainer + "Healthcheck.StartInterval", `1000000000`},
		{"health-start-period", "--health-start-period|1m", inContainer + "Healthcheck.StartPeriod", `60000000000`},
		{"health-timeout", "--health-timeout|3s", inContainer + "Healthcheck.Timeout", `3000000000`},
		{"host", "--host|db:10.0.0.1|--host|six=[::1]", inContainer + "Hosts", `["10.0.0.1 db","::1 six"]`},
		{"hostname", "--hostname|{{.Node.Hostname}}", inContainer + "Hostname", `"{{.Node.Hostname}}"`},
		{"init", "--init", inContainer + "Init", `true`},
		{"init", "", inContainer + "Init", `false`},
		{"isolation", "--isolation|process", inContainer + "Isolation", `"process"`},
		{"label", "-l|a=b,c|--label|d", "Labels", `{"a":"b,c","d":""}`},
		{"limit-cpu", "--limit-cpu|0.5", inTask + "Resources.Limits.NanoCPUs", `500000000`},
		{"limit-memory", "--limit-memory|64m", inTask + "Resources.Limits.MemoryBytes", `67108864`},
		{"limit-pids", "--limit-pids|9", inTask + "Resources.Limits.Pids", `9`},
		{"log-driver", "--log-driver|syslog|--log-opt|a=b", inTask + "LogDriver.Name", `"syslog"`},
		{"log-opt", "--log-driver|syslog|--log-opt|a=b", inTask + "LogDriver.Options", `{"a":"b"}`},
		{"max-concurrent", "--mode|replicated-job|--replicas|5|--max-concurrent|2", "Mode.ReplicatedJob", `{"MaxConcurrent":2,"TotalCompletions":5}`},
		{"mode", "--mode|global", "Mode", `{"Global":{}}`},
		{"mode", "--mode|global-job", "Mode", `{"GlobalJob":{}}`},
		{"mode", "--mode|replicated-job|--replicas|3", "Mode.ReplicatedJob", `{"MaxConcurrent":3,"TotalCompletions":3}`},
		{"mount", "--mount|type=bind,src=/a,dst=/b,ro,bind-propagation=rslave", inContainer + "Mounts", `[{"BindOptions":{"Propagation":"rslave"},"ReadOnly":true,"Source":"/a","Target":"/b","Type":"bind"}]`},
		{"mount", `--mount|src=v,dst=/d,volume-driver=nfs,"volume-opt=o=a,b",volume-label=x=y,volume-nocopy`, inContainer + "Mounts", `[{"Source":"v","Target":"/d","Type":"volume","VolumeOptions":{"DriverConfig":{"Name":"nfs","Options":{"o":"a,b"}},"Labels":{"x":"y"},"NoCopy":true}}]`},
		{"mount", "--mount|type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", inContainer + "Mounts", `[{"Target":"/t","TmpfsOptions":{"Mode":1016,"SizeBytes":1048576},"Type":"tmpfs"}]`},
		{"name", "--name|web", "Name", `"web"`},
		{"network", "--network|a|--network|name=b,alias=x,alias=y,driver-opt=k=v", inTask + "Networks", `[{"Target":"a"},{"Aliases":["x","y"],"DriverOpts":{"k":"v"},"Target":"b"}]`},
		{"no-healthcheck", "--no-healthcheck", inContainer + "Healthcheck.Test", `["NONE"]`},
		{"oom-score-adj", "--oom-score-adj|-5", inContainer + "OomScoreAdj", `-5`},
		{"placement-pref", "--placement-pref|spread=node.labels.zone", inTask + "Placement.Preferences", `[{"Spread":{"SpreadDescriptor":"node.labels.zone"}}]`},
		{"publish", "-p|8080:80|--publish|53:53/udp", "EndpointSpec.Ports", `[{"Protocol":"tcp","PublishMode":"ingress","PublishedPort":8080,"TargetPort":80},{"Protocol":"udp","PublishMode":"ingress","PublishedPort":53,"TargetPort":53}]`},
		{"publish", "-p|90-91:80-81|-p|70", "EndpointSpec.Ports", `[{"Protocol":"tcp","PublishMode":"ingress","PublishedPort":90,"TargetPort":80},{"Protocol":"tcp","PublishMode":"ingress","PublishedPort":91,"TargetPort":81},{"Protocol":"tcp","PublishMode":"ingress","TargetPort":70}]`},
		{"publish", "-p|published=1,target=2,mode=host,protocol=udp", "EndpointSpec.Ports", `[{"Protocol":"udp","PublishMode":"host","PublishedPort":1,"TargetPort":2}]`},
		{"read-only", "--read-only", inContainer + "ReadOnly", `true`},
		{"replicas", "--replicas|0", "Mode", `{"Replicated":{"Replicas":0}}`},
		{"replicas", "", "Mode", `{"Replicated":{}}`},
		{"replicas-max-per-node", "--replicas-max-per-node|2", inTask + "Placement.MaxReplicas", `2`},
		{"reserve-cpu", "--reserve-cpu|2", inTask + "Resources.Reservations.NanoCPUs", `2000000000`},
		{"reserve-memory", "--reserve-memory|1g", inTask + "Resources.Reservations.MemoryBytes", `1073741824`},
		{"restart-condition", "--restart-condition|none", inTask + "RestartPolicy", `{"Condition":"none","Delay":5000000000,"MaxAttempts":0}`},
		{"restart-delay", "--restart-delay|0s", inTask + "RestartPolicy.Delay", `0`},
		{"restart-max-attempts", "--restart-max-attempts|4", inTask + "RestartPolicy.MaxAttempts", `4`},
		{"restart-window", "--restart-window|1m", inTask + "RestartPolicy.Window", `60000000000`},
		{"restart-window", "", inTask + "RestartPolicy", `null`},
		{"rollback-delay", "--rollback-delay|1s", "RollbackConfig", `{"Delay":1000000000,"FailureAction":"pause","MaxFailureRatio":0,"Monitor":5000000000,"Order":"stop-first","Parallelism":1}`},
		{"rollback-failure-action", "--rollback-failure-action|continue", "RollbackConfig.FailureAction", `"continue"`},
		{"rollback-max-failure-ratio", "--rollback-max-failure-ratio|.5", "RollbackConfig.MaxFailureRatio", `0.5`},
		{"rollback-monitor", "--rollback-monitor|9s", "RollbackConfig.Monitor", `9000000000`},
		{"rollback-order", "--rollback-order|start-first", "RollbackConfig.Order", `"start-first"`},
		{"rollback-parallelism", "--rollback-parallelism|0", "RollbackConfig.Parallelism", `0`},
		{"stop-grace-period", "--stop-grace-period|3s", inContainer + "StopGracePeriod", `3000000000`},
		{"stop-signal", "--stop-signal|HUP", inContainer + "StopSignal", `"HUP"`},
		{"sysctl", "--sysctl|net.a=1", inContainer + "Sysctls", `{"net.a":"1"}`},
		{"tty", "-t", inContainer + "TTY", `true`},
		{"ulimit", "--ulimit|nofile=1:2|--ulimit|core=5|--ulimit|nofile=3", inContainer + "Ulimits", `[{"Hard":5,"Name":"core","Soft":5},{"Hard":3,"Name":"nofile","Soft":3}]`},
		{"update-delay", "--update-delay|1s", "UpdateConfig.Delay", `1000000000`},
		{"update-delay", "", "UpdateConfig", `null`},
		{"update-failure-action", "--update-failure-action|rollback", "UpdateConfig.FailureAction", `"rollback"`},
		{"update-max-failure-ratio", "--update-max-failure-ratio|0.25", "UpdateConfig.MaxFailureRatio", `0.25`},
		{"update-monitor", "--update-monitor|9s", "UpdateConfig.Monitor", `9000000000`},
		{"update-order", "--update-order|start-first", "UpdateConfig.Order", `"start-first"`},
		{"update-parallelism", "--update-parallelism|3", "UpdateConfig", `{"FailureAction":"pause","MaxFailureRatio":0,"Monitor":5000000000,"Order":"stop-first","Parallelism":3}`},
		{"user", "-u|me:us", inContainer + "User", `"me:us"`},
		{"workdir", "-w|/w", inContainer + "Dir", `"/w"`},
	}
	for _, row := range rows {
		t.Run(row.flag+" "+row.args, func(t *testing.T) {
			set := CreateFlags()
			args := append(row.fields(), "img", "run", "--name", "inner")
			if row.args == "" {
				args = args[1:]
			}
			rest, err := parse(set, args)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Create(set, rest)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, at(t, got, row.path)); diff != "" {
				t.Error(diff)
			}
			if at(t, got, inContainer+"Image") != `"img"` || at(t, got, inContainer+"Args") != `["run","--name","inner"]` {
				t.Errorf("image and command came out as %v %v", got.TaskTemplate.ContainerSpec.Image, got.TaskTemplate.ContainerSpec.Args)
			}
		})
	}
	covered(t, CreateFlags(), rows, 73)
}

// covered fails when a flag is neither in the table nor known not to touch the spec, so that none is forgotten.
func covered(t *testing.T, set flags.Set, rows []flagTest, docker int) {
	t.Helper()
	known := map[string]bool{}
	for _, name := range append(clientFlags, references...) {
		known[name] = true
	}
	for _, row := range rows {
		known[row.flag] = true
	}
	names := map[string]bool{}
	for _, f := range set {
		if !known[f.Long] {
			t.Errorf("no test says what --%s sets", f.Long)
		}
		if names[f.Long] {
			t.Errorf("--%s is there twice", f.Long)
		}
		names[f.Long] = true
	}
	if len(set) != docker {
		t.Errorf("%d flags, and Docker has %d", len(set), docker)
	}
}

func TestCreateRefuses(t *testing.T) {
	rows := []struct{ args, err string }{
		{"--mode|global|--replicas|2", "replicas can only be used with replicated or replicated-job mode"},
		{"--max-concurrent|2", "max-concurrent can only be used with replicated-job mode"},
		{"--mode|foo", "Unknown mode: foo: --mode must be replicated, global, replicated-job or global-job"},
		{"--health-cmd|x|--no-healthcheck", "--no-healthcheck conflicts with --health-* options"},
		{"--env-file|/nonexistent/env", "open /nonexistent/env: no such file or directory"},
		{"-p|1.2.3.4:80:80", `invalid argument "1.2.3.4:80:80" for "-p, --publish" flag: hostip is not supported: a service listens on every node, and 1.2.3.4 is an address of one of them; leave it out`},
		{"-p|published=80", `invalid argument "published=80" for "-p, --publish" flag: missing mandatory field 'target'`},
		{"-p|published=x,target=1", `invalid argument "published=x,target=1" for "-p, --publish" flag: invalid published port (x): value must be an integer up to 65535, 0 for one that is chosen`},
		{"-p|80:99999", `invalid argument "80:99999" for "-p, --publish" flag: invalid containerPort: 99999`},
		{"--mount|type=bind,src=/a", `invalid argument "type=bind,src=/a" for "--mount" flag: target is required`},
		{"--mount|dst=/a,bind-propagation=x", `invalid argument "dst=/a,bind-propagation=x" for "--mount" flag: cannot mix 'bind-*' options with mount type 'volume'`},
		{"--mount|dst=/a,colour=x", `invalid argument "dst=/a,colour=x" for "--mount" flag: unexpected key 'colour' in 'colour=x'`},
		{"--mount|type=tmpfs,dst=/a,tmpfs-size=x", `invalid argument "type=tmpfs,dst=/a,tmpfs-size=x" for "--mount" flag: invalid value for tmpfs-size: x (a size is expected, such as 64m)`},
		{"--mount|type=tmpfs,dst=/a,tmpfs-mode=9", `invalid argument "type=tmpfs,dst=/a,tmpfs-mode=9" for "--mount" flag: invalid value for tmpfs-mode: 9 (an octal number is expected, such as 1777)`},
		{"-p|target=1,protocol=icmp", `invalid argument "target=1,protocol=icmp" for "-p, --publish" flag: invalid protocol value 'icmp': must be tcp, udp or sctp`},
		{"--secret|source=x,mode=rw", `invalid argument "source=x,mode=rw" for "--secret" flag: invalid mode specified: "rw" is not an octal number such as 0440`},
		{"--secret|target=x", `invalid argument "target=x" for "--secret" flag: source is required`},
		{"--placement-pref|pack=x", `invalid argument "pack=x" for "--placement-pref" flag: unsupported placement preference pack (only spread is supported)`},
		{"--dns|x", `invalid argument "x" for "--dns" flag: IP address is not correctly formatted: x`},
		{"--host|a:b", `invalid argument "a:b" for "--host" flag: invalid IP address in add-host: "b"`},
		{"--entrypoint|'x", `invalid argument "'x" for "--entrypoint" flag: EOF found when expecting closing quote`},
		{"--env|=x", `invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x`},
		{"--network|alias=x", `invalid argument "alias=x" for "--network" flag: network name/id is not specified`},
	}
	for _, row := range rows {
		t.Run(row.args, func(t *testing.T) {
			set := CreateFlags()
			rest, err := parse(set, append(strings.Split(row.args, "|"), "img"))
			if err == nil {
				_, err = Create(set, rest)
			}
			if err == nil || err.Error() != row.err {
				t.Errorf("error %v\nwant  %s", err, row.err)
			}
		})
	}
}

// existing is a service that has something everywhere.
const existing = `{"Name":"web","Labels":{"a":"b"},"TaskTemplate":{"ContainerSpec":{"Image":"img:1","Args":["top"],
"Env":["A=1","B=2"],"Labels":{"cl":"1"},"Mounts":[{"Type":"volume","Source":"v1","Target":"/v1"}],
"DNSConfig":{"Nameservers":["1.1.1.1"],"Search":["a.com"],"Options":["ndots:1"]},"Hosts":["1.2.3.4 foo","1.2.3.5 bar baz"],
"Groups":["adm"],"Sysctls":{"net.a":"1"},"CapabilityAdd":["CAP_NET_ADMIN"],"CapabilityDrop":["CAP_CHOWN"],
"Ulimits":[{"Name":"nofile","Hard":10,"Soft":5}],"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000}},
"Resources":{"Limits":{"MemoryBytes":64},"Reservations":{"NanoCPUs":100,"GenericResources":[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]}},
"RestartPolicy":{"Condition":"any","Delay":5},"Placement":{"Constraints":["node.role==manager"],"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.z"}}]},
"LogDriver":{"Name":"json-file"},"ForceUpdate":2},"Mode":{"Replicated":{"Replicas":3}},"UpdateConfig":{"Parallelism":2,"Monitor":7,"MaxFailureRatio":0,"Order":"stop-first"},
"EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},{"Protocol":"udp","TargetPort":53,"PublishedPort":53,"PublishMode":"ingress"}]}}`

func existingSpec(t *testing.T) swarm.ServiceSpec {
	t.Helper()
	var s swarm.ServiceSpec
	if err := json.Unmarshal([]byte(existing), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUpdateSetsTheFieldOfEveryFlag(t *testing.T) {
	rows := []flagTest{
		{"args", "--args|a 'b c'", inContainer + "Args", `["a","b c"]`},
		{"args", "--args|", inContainer + "Args", `null`},
		{"cap-add", "--cap-add|sys_admin", inContainer + "CapabilityAdd", `["CAP_NET_ADMIN","CAP_SYS_ADMIN"]`},
		{"cap-add", "--cap-add|chown", inContainer + "CapabilityDrop", `null`},
		{"cap-add", "--cap-add|chown", inContainer + "CapabilityAdd", `["CAP_NET_ADMIN"]`},
		{"cap-drop", "--cap-drop|net_admin", inContainer + "CapabilityAdd", `null`},
		{"cap-drop", "--cap-drop|kill", inContainer + "CapabilityDrop", `["CAP_CHOWN","CAP_KILL"]`},
		{"constraint-add", "--constraint-add|node.id==1", inTask + "Placement.Constraints", `["node.id==1","node.role==manager"]`},
		{"constraint-rm", "--constraint-rm|node.role==manager", inTask + "Placement.Constraints", `null`},
		{"container-label-add", "--container-label-add|x=y", inContainer + "Labels", `{"cl":"1","x":"y"}`},
		{"container-label-rm", "--container-label-rm|cl", inContainer + "Labels", `null`},
		{"credential-spec", "--credential-spec|registry://x", inContainer + "Privileges.CredentialSpec.Registry", `"x"`},
		{"dns-add", "--dns-add|9.9.9.9", inContainer + "DNSConfig.Nameservers", `["1.1.1.1","9.9.9.9"]`},
		{"dns-option-add", "--dns-option-add|x", inContainer + "DNSConfig.Options", `["ndots:1","x"]`},
		{"dns-option-rm", "--dns-option-rm|ndots:1", inContainer + "DNSConfig.Options", `null`},
		{"dns-rm", "--dns-rm|1.1.1.1", inContainer + "DNSConfig.Nameservers", `null`},
		{"dns-search-add", "--dns-search-add|z.com", inContainer + "DNSConfig.Search", `["a.com","z.com"]`},
		{"dns-search-rm", "--dns-search-rm|a.com", inContainer + "DNSConfig.Search", `null`},
		{"endpoint-mode", "--endpoint-mode|dnsrr", "EndpointSpec.Mode", `"dnsrr"`},
		{"entrypoint", "--entrypoint|x y", inContainer + "Command", `["x","y"]`},
		{"env-add", "--env-add|A=9|--env-add|N=1", inContainer + "Env", `["A=9","B=2","N=1"]`},
		{"env-rm", "--env-rm|A", inContainer + "Env", `["B=2"]`},
		{"force", "--force", inTask + "ForceUpdate", `3`},
		{"generic-resource-add", "--generic-resource-add|gpu=4|--generic-resource-add|ssd=1", inTask + "Resources.Reservations.GenericResources", `[{"DiscreteResourceSpec":{"Kind":"gpu","Value":4}},{"DiscreteResourceSpec":{"Kind":"ssd","Value":1}}]`},
		{"generic-resource-rm", "--generic-resource-rm|gpu", inTask + "Resources.Reservations", `{"NanoCPUs":100}`},
		{"group-add", "--group-add|wheel", inContainer + "Groups", `["adm","wheel"]`},
		{"group-rm", "--group-rm|adm", inContainer + "Groups", `null`},
		{"health-cmd", "--health-cmd|x", inContainer + "Healthcheck", `{"Interval":1000000000,"Test":["CMD-SHELL","x"]}`},
		{"health-interval", "--health-interval|2s", inContainer + "Healthcheck", `{"Interval":2000000000,"Test":["CMD-SHELL","true"]}`},
		{"health-retries", "--health-retries|3", inContainer + "Healthcheck.Retries", `3`},
		{"health-start-interval", "--health-start-interval|1s", inContainer + "Healthcheck.StartInterval", `1000000000`},
		{"health-start-period", "--health-start-period|1m", inContainer + "Healthcheck.StartPeriod", `60000000000`},
		{"health-timeout", "--health-timeout|3s", inContainer + "Healthcheck.Timeout", `3000000000`},
		{"host-add", "--host-add|z:9.9.9.9", inContainer + "Hosts", `["1.2.3.4 foo","1.2.3.5 bar baz","9.9.9.9 z"]`},
		{"host-rm", "--host-rm|foo|--host-rm|baz:1.2.3.5", inContainer + "Hosts", `["1.2.3.5 bar"]`},
		{"hostname", "--hostname|h", inContainer + "Hostname", `"h"`},
		{"image", "--image|img:2", inContainer + "Image", `"img:2"`},
		{"init", "--init=false", inContainer + "Init", `false`},
		{"init", "--hostname|h", inContainer + "Init", `null`},
		{"isolation", "--isolation|process", inContainer + "Isolation", `"process"`},
		{"label-add", "--label-add|x=y", "Labels", `{"a":"b","x":"y"}`},
		{"label-rm", "--label-rm|a", "Labels", `{}`},
		{"limit-cpu", "--limit-cpu|1", inTask + "Resources.Limits", `{"MemoryBytes":64,"NanoCPUs":1000000000}`},
		{"limit-memory", "--limit-memory|0", inTask + "Resources.Limits", `{}`},
		{"limit-pids", "--limit-pids|9", inTask + "Resources.Limits.Pids", `9`},
		{"log-driver", "--log-driver|none", inTask + "LogDriver", `{"Name":"none"}`},
		{"log-opt", "--log-driver|syslog|--log-opt|a=b", inTask + "LogDriver.Options", `{"a":"b"}`},
		{"mount-add", "--mount-add|src=v2,dst=/v1|--mount-add|src=v0,dst=/v0", inContainer + "Mounts", `[{"Source":"v0","Target":"/v0","Type":"volume"},{"Source":"v2","Target":"/v1","Type":"volume"}]`},
		{"mount-rm", "--mount-rm|/v1", inContainer + "Mounts", `null`},
		{"no-healthcheck", "--no-healthcheck", inContainer + "Healthcheck", `{"Test":["NONE"]}`},
		{"oom-score-adj", "--oom-score-adj|7", inContainer + "OomScoreAdj", `7`},
		{"placement-pref-add", "--placement-pref-add|spread=x", inTask + "Placement.Preferences", `[{"Spread":{"SpreadDescriptor":"node.labels.z"}},{"Spread":{"SpreadDescriptor":"x"}}]`},
		{"placement-pref-rm", "--placement-pref-rm|spread=node.labels.z", inTask + "Placement.Preferences", `null`},
		{"publish-add", "--publish-add|8081:81|--publish-add|8080:80", "EndpointSpec.Ports", `[{"Protocol":"udp","PublishMode":"ingress","PublishedPort":53,"TargetPort":53},{"Protocol":"tcp","PublishMode":"ingress","PublishedPort":8080,"TargetPort":80},{"Protocol":"tcp","PublishMode":"ingress","PublishedPort":8081,"TargetPort":81}]`},
		{"publish-rm", "--publish-rm|80|--publish-rm|53", "EndpointSpec.Ports", `[{"Protocol":"udp","PublishMode":"ingress","PublishedPort":53,"TargetPort":53}]`},
		{"publish-rm", "--publish-rm|8080:80|--publish-rm|53/udp", "EndpointSpec.Ports", `null`},
		{"read-only", "--read-only", inContainer + "ReadOnly", `true`},
		{"replicas", "--replicas|0", "Mode.Replicated.Replicas", `0`},
		{"replicas-max-per-node", "--replicas-max-per-node|9", inTask + "Placement.MaxReplicas", `9`},
		{"reserve-cpu", "--reserve-cpu|1", inTask + "Resources.Reservations.NanoCPUs", `1000000000`},
		{"reserve-memory", "--reserve-memory|1m", inTask + "Resources.Reservations.MemoryBytes", `1048576`},
		{"restart-condition", "--restart-condition|none", inTask + "RestartPolicy", `{"Condition":"none","Delay":5}`},
		{"restart-delay", "--restart-delay|1s", inTask + "RestartPolicy.Delay", `1000000000`},
		{"restart-max-attempts", "--restart-max-attempts|2", inTask + "RestartPolicy.MaxAttempts", `2`},
		{"restart-window", "--restart-window|3s", inTask + "RestartPolicy.Window", `3000000000`},
		{"rollback-delay", "--rollback-delay|1s", "RollbackConfig.Delay", `1000000000`},
		{"rollback-failure-action", "--rollback-failure-action|continue", "RollbackConfig.FailureAction", `"continue"`},
		{"rollback-max-failure-ratio", "--rollback-max-failure-ratio|.5", "RollbackConfig.MaxFailureRatio", `0.5`},
		{"rollback-monitor", "--rollback-monitor|9s", "RollbackConfig.Monitor", `9000000000`},
		{"rollback-order", "--rollback-order|start-first", "RollbackConfig.Order", `"start-first"`},
		{"rollback-parallelism", "--rollback-parallelism|5", "RollbackConfig.Parallelism", `5`},
		{"stop-grace-period", "--stop-grace-period|3s", inContainer + "StopGracePeriod", `3000000000`},
		{"stop-signal", "--stop-signal|HUP", inContainer + "StopSignal", `"HUP"`},
		{"sysctl-add", "--sysctl-add|net.b=2", inContainer + "Sysctls", `{"net.a":"1","net.b":"2"}`},
		{"sysctl-rm", "--sysctl-rm|net.a", inContainer + "Sysctls", `null`},
		{"tty", "--tty", inContainer + "TTY", `true`},
		{"ulimit-add", "--ulimit-add|core=1|--ulimit-add|nofile=7", inContainer + "Ulimits", `[{"Hard":1,"Name":"core","Soft":1},{"Hard":7,"Name":"nofile","Soft":7}]`},
		{"ulimit-rm", "--ulimit-rm|nofile", inContainer + "Ulimits", `null`},
		{"update-delay", "--update-delay|1s", "UpdateConfig", `{"Delay":1000000000,"MaxFailureRatio":0,"Monitor":7,"Order":"stop-first","Parallelism":2}`},
		{"update-failure-action", "--update-failure-action|continue", "UpdateConfig.FailureAction", `"continue"`},
		{"update-max-failure-ratio", "--update-max-failure-ratio|.5", "UpdateConfig.MaxFailureRatio", `0.5`},
		{"update-monitor", "--update-monitor|9s", "UpdateConfig.Monitor", `9000000000`},
		{"update-order", "--update-order|start-first", "UpdateConfig.Order", `"start-first"`},
		{"update-parallelism", "--update-parallelism|0", "UpdateConfig.Parallelism", `0`},
		{"user", "--user|u", inContainer + "User", `"u"`},
		{"workdir", "--workdir|/w", inContainer + "Dir", `"/w"`},
	}
	rows = append(rows, flagTest{"max-concurrent", "", "", ""}) // for jobs only: see TestUpdateOfAJob
	for _, row := range rows[:len(rows)-1] {
		t.Run(row.flag+" "+row.args, func(t *testing.T) {
			set := UpdateFlags()
			if _, err := parse(set, row.fields()); err != nil {
				t.Fatal(err)
			}
			s := existingSpec(t)
			if err := Update(set, &s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, at(t, s, row.path)); diff != "" {
				t.Error(diff)
			}
		})
	}
	covered(t, UpdateFlags(), rows, 92)
}

func TestUpdateWithoutFlagsChangesNothing(t *testing.T) {
	got := existingSpec(t)
	if err := Update(UpdateFlags(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(existingSpec(t), got); diff != "" {
		t.Error(diff)
	}
}

func TestUpdateOfAJob(t *testing.T) {
	set := UpdateFlags()
	if _, err := parse(set, []string{"--max-concurrent", "2", "--replicas", "5"}); err != nil {
		t.Fatal(err)
	}
	s := existingSpec(t)
	if err := Update(set, &s); err == nil {
		t.Error("--max-concurrent was taken for a service that is no job")
	}
	s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}}
	if err := Update(set, &s); err != nil {
		t.Fatal(err)
	}
	if got := at(t, s, "Mode"); got != `{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":5}}` {
		t.Error(got)
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// Paths that many rows begin with.
const (
	inTask = "Spec/TaskTemplate/"
	inSpec = "Spec/TaskTemplate/ContainerSpec/"

	frontNet, backNet = "10.77.1.", "10.77.2."
)

// flagGroups are the tables. What one service can not have twice, or not
// together, is in groups of its own.
var flagGroups = []flagGroup{
	{
		name:    "full",
		command: []string{testbed.WebV1, "webapp"},
		create: []flagRow{
			{flag: "replicas", values: []string{"1"}, spec: "Spec/Mode/Replicated/Replicas = 1"},
			{flag: "mode", values: []string{"replicated"}, spec: "Spec/Mode/Global = null"},
			{flag: "label", values: []string{"tier=front", "empty"}, spec: `Spec/Labels = {"empty":"","tier":"front"}`},
			{flag: "container-label", values: []string{"kind=test"}, spec: inSpec + `Labels = {"kind":"test"}`, box: `Config/Labels/kind = "test"`},
			{flag: "env", values: []string{"A=1", "B={{.Task.Slot}}"}, spec: inSpec + `Env/0 = "FROMFILE=yes"`, run: "echo $A $B", says: "1 1"},
			{flag: "env-file", values: []string{"/etc/docker/env"}, spec: inSpec + `Env/1 = "A=1"`, run: "echo $FROMFILE", says: "yes"},
			{flag: "entrypoint", values: []string{"env MARK=made"}, spec: inSpec + `Command = ["env","MARK=made"]`, box: `Config/Entrypoint = ["env","MARK=made"]`},
			{flag: "workdir", values: []string{"/tmp"}, spec: inSpec + `Dir = "/tmp"`, box: `Config/WorkingDir = "/tmp"`, run: "pwd", says: "/tmp"},
			{flag: "user", values: []string{"nobody"}, spec: inSpec + `User = "nobody"`, box: `Config/User = "nobody"`, run: "id -un", says: "nobody"},
			{flag: "group", values: []string{"17", "18"}, spec: inSpec + `Groups = ["17","18"]`, box: `HostConfig/GroupAdd = ["17","18"]`, run: "id -G", says: "17 18"},
			{flag: "hostname", values: []string{"box-{{.Task.Slot}}"}, spec: inSpec + `Hostname = "box-{{.Task.Slot}}"`, box: `Config/Hostname = "box-1"`, run: "hostname", says: "box-1"},
			{flag: "host", values: []string{"db:10.9.8.7", "db2:10.9.8.8"}, spec: inSpec + `Hosts = ["10.9.8.7 db","10.9.8.8 db2"]`, box: `HostConfig/ExtraHosts/0 = "db:10.9.8.7"`, run: "cat /etc/hosts", says: "10.9.8.8\tdb2"},
			{flag: "dns", values: []string{"10.1.1.1"}, spec: inSpec + `DNSConfig/Nameservers = ["10.1.1.1"]`, box: `HostConfig/Dns = ["10.1.1.1"]`, run: "cat /etc/resolv.conf", says: "nameserver 10.1.1.1"},
			{flag: "dns-search", values: []string{"corp.example"}, spec: inSpec + `DNSConfig/Search = ["corp.example"]`, box: `HostConfig/DnsSearch = ["corp.example"]`, run: "cat /etc/resolv.conf", says: "search corp.example"},
			{flag: "dns-option", values: []string{"ndots:2"}, spec: inSpec + `DNSConfig/Options = ["ndots:2"]`, box: `HostConfig/DnsOptions = ["ndots:2"]`, run: "cat /etc/resolv.conf", says: "options ndots:2"},
			{flag: "init", spec: inSpec + "Init = true", box: "HostConfig/Init = true", run: "cat /proc/1/comm", says: "init"},
			{flag: "tty", spec: inSpec + "TTY = true", box: "Config/Tty = true", run: "cat /proc/1/stat | cut -d' ' -f7 | sed 's/^0$/none/'", says: ""},
			{flag: "read-only", spec: inSpec + "ReadOnly = true", box: "HostConfig/ReadonlyRootfs = true", run: "grep ' / ' /proc/mounts", says: "overlay ro,"},
			{flag: "isolation", values: []string{"default"}, spec: inSpec + `Isolation = "default"`, box: `HostConfig/Isolation = "default"`},
			{flag: "stop-signal", values: []string{"SIGINT"}, spec: inSpec + `StopSignal = "SIGINT"`, box: `Config/StopSignal = "SIGINT"`},
			{flag: "stop-grace-period", values: []string{"2s"}, spec: inSpec + "StopGracePeriod = 2000000000"},
			{flag: "health-cmd", values: []string{"webapp healthcheck"}, spec: inSpec + `Healthcheck/Test = ["CMD-SHELL","webapp healthcheck"]`, box: `Config/Healthcheck/Test = ["CMD-SHELL","webapp healthcheck"]`},
			{flag: "health-interval", values: []string{"500ms"}, spec: inSpec + "Healthcheck/Interval = 500000000", box: "Config/Healthcheck/Interval = 500000000"},
			{flag: "health-timeout", values: []string{"9s"}, spec: inSpec + "Healthcheck/Timeout = 9000000000", box: "Config/Healthcheck/Timeout = 9000000000"},
			{flag: "health-retries", values: []string{"7"}, spec: inSpec + "Healthcheck/Retries = 7", box: "Config/Healthcheck/Retries = 7"},
			{flag: "health-start-period", values: []string{"8s"}, spec: inSpec + "Healthcheck/StartPeriod = 8000000000", box: "Config/Healthcheck/StartPeriod = 8000000000"},
			{flag: "cap-add", values: []string{"NET_ADMIN"}, spec: inSpec + `CapabilityAdd = ["CAP_NET_ADMIN"]`, box: `HostConfig/CapAdd = ["CAP_NET_ADMIN"]`, run: "grep CapBnd /proc/self/status", says: "a80435fa"},
			{flag: "cap-drop", values: []string{"CHOWN"}, spec: inSpec + `CapabilityDrop = ["CAP_CHOWN"]`, box: `HostConfig/CapDrop = ["CAP_CHOWN"]`, run: "grep CapBnd /proc/self/status", says: "a80435fa"},
			{flag: "sysctl", values: []string{"net.ipv4.ip_unprivileged_port_start=0"}, spec: inSpec + `Sysctls = {"net.ipv4.ip_unprivileged_port_start":"0"}`, box: `HostConfig/Sysctls = {"net.ipv4.ip_unprivileged_port_start":"0"}`, run: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", says: "0"},
			{flag: "ulimit", values: []string{"nofile=300:400"}, spec: inSpec + `Ulimits = [{"Hard":400,"Name":"nofile","Soft":300}]`, box: `HostConfig/Ulimits = [{"Hard":400,"Name":"nofile","Soft":300}]`, run: "ulimit -n; ulimit -Hn", says: "400"},
			{flag: "mount", values: []string{
				"type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=700",
				"type=bind,src=/etc/docker,dst=/bound,ro,bind-propagation=private,bind-nonrecursive",
				"type=volume,src=named,dst=/named,volume-label=a=b,volume-nocopy",
				"type=volume,src=sized,dst=/sized,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m",
				"type=volume,dst=/anonymous",
			}, spec: inSpec + `Mounts/3/VolumeOptions/DriverConfig/Options/o = "size=2m"`, box: `HostConfig/Mounts/1/BindOptions/Propagation = "private"`, run: "grep -c -e ' /scratch tmpfs rw.*size=1024k' -e ' /bound ext4 ro\\| /bound [a-z]* ro' -e ' /named ' -e ' /sized tmpfs rw.*size=2048k' -e ' /anonymous ' /proc/mounts", says: "5"},
			{flag: "limit-cpu", values: []string{"0.5"}, spec: inTask + "Resources/Limits/NanoCPUs = 500000000", box: "HostConfig/NanoCpus = 500000000"},
			{flag: "limit-memory", values: []string{"64m"}, spec: inTask + "Resources/Limits/MemoryBytes = 67108864", box: "HostConfig/Memory = 67108864"},
			{flag: "limit-pids", values: []string{"50"}, spec: inTask + "Resources/Limits/Pids = 50", box: "HostConfig/PidsLimit = 50"},
			{flag: "reserve-cpu", values: []string{"0.01"}, spec: inTask + "Resources/Reservations/NanoCPUs = 10000000"},
			{flag: "reserve-memory", values: []string{"8m"}, spec: inTask + "Resources/Reservations/MemoryBytes = 8388608", box: "HostConfig/MemoryReservation = 0"},
			{flag: "generic-resource", values: []string{"seats=1"}, spec: inTask + `Resources/Reservations/GenericResources = [{"DiscreteResourceSpec":{"Kind":"seats","Value":1}}]`, run: "echo $DOCKER_RESOURCE_SEATS", says: "1"},
			{flag: "log-driver", values: []string{"json-file"}, spec: inTask + `LogDriver/Name = "json-file"`, box: `HostConfig/LogConfig/Type = "json-file"`},
			{flag: "log-opt", values: []string{"max-size=1m", "labels=kind"}, spec: inTask + `LogDriver/Options/labels = "kind"`, box: `HostConfig/LogConfig/Config = {"labels":"kind","max-size":"1m"}`},
			{flag: "constraint", values: []string{"node.role==manager"}, spec: inTask + `Placement/Constraints = ["node.role==manager"]`},
			{flag: "placement-pref", values: []string{"spread=node.labels.rack"}, spec: inTask + `Placement/Preferences/0/Spread/SpreadDescriptor = "node.labels.rack"`},
			{flag: "replicas-max-per-node", values: []string{"3"}, spec: inTask + "Placement/MaxReplicas = 3"},
			{flag: "restart-condition", values: []string{"on-failure"}, spec: inTask + `RestartPolicy/Condition = "on-failure"`, box: `HostConfig/RestartPolicy/MaximumRetryCount = 0`},
			{flag: "restart-delay", values: []string{"2s"}, spec: inTask + "RestartPolicy/Delay = 2000000000"},
			{flag: "restart-max-attempts", values: []string{"3"}, spec: inTask + "RestartPolicy/MaxAttempts = 3"},
			{flag: "restart-window", values: []string{"30s"}, spec: inTask + "RestartPolicy/Window = 30000000000"},
			{flag: "update-parallelism", values: []string{"2"}, spec: "Spec/UpdateConfig/Parallelism = 2"},
			{flag: "update-delay", values: []string{"1s"}, spec: "Spec/UpdateConfig/Delay = 1000000000"},
			{flag: "update-monitor", values: []string{"200ms"}, spec: "Spec/UpdateConfig/Monitor = 200000000"},
			{flag: "update-failure-action", values: []string{"rollback"}, spec: `Spec/UpdateConfig/FailureAction = "rollback"`},
			{flag: "update-max-failure-ratio", values: []string{"0.5"}, spec: "Spec/UpdateConfig/MaxFailureRatio = 0.5"},
			{flag: "update-order", values: []string{"start-first"}, spec: `Spec/UpdateConfig/Order = "start-first"`},
			{flag: "rollback-parallelism", values: []string{"3"}, spec: "Spec/RollbackConfig/Parallelism = 3"},
			{flag: "rollback-delay", values: []string{"100ms"}, spec: "Spec/RollbackConfig/Delay = 100000000"},
			{flag: "rollback-monitor", values: []string{"200ms"}, spec: "Spec/RollbackConfig/Monitor = 200000000"},
			{flag: "rollback-failure-action", values: []string{"continue"}, spec: `Spec/RollbackConfig/FailureAction = "continue"`},
			{flag: "rollback-max-failure-ratio", values: []string{"0.25"}, spec: "Spec/RollbackConfig/MaxFailureRatio = 0.25"},
			{flag: "rollback-order", values: []string{"start-first"}, spec: `Spec/RollbackConfig/Order = "start-first"`},
			{flag: "endpoint-mode", values: []string{"dnsrr"}, spec: `Spec/EndpointSpec/Mode = "dnsrr"`},
		},
		change: []flagRow{
			{flag: "image", values: []string{testbed.WebV2}, spec: inSpec + `Image = "` + testbed.WebV2 + `"`, box: `Config/Image = "` + testbed.WebV2 + `"`, run: "echo $VERSION", says: "v2"},
			{flag: "args", values: []string{"SAID=args webapp"}, spec: inSpec + `Args = ["SAID=args","webapp"]`, box: `Config/Cmd = ["SAID=args","webapp"]`},
			{flag: "replicas", values: []string{"1"}, spec: "Spec/Mode/Replicated/Replicas = 1"},
			{flag: "label-add", values: []string{"tier=back", "more=1"}, spec: `Spec/Labels = {"empty":"","more":"1","tier":"back"}`},
			{flag: "container-label-add", values: []string{"kind=other", "a=b"}, spec: inSpec + `Labels = {"a":"b","kind":"other"}`, box: `Config/Labels/a = "b"`},
			{flag: "env-add", values: []string{"A=2", "C=3"}, run: "echo $A$C$FROMFILE", says: "23yes"},
			{flag: "entrypoint", values: []string{"env MARK=again"}, spec: inSpec + `Command = ["env","MARK=again"]`, box: `Config/Entrypoint = ["env","MARK=again"]`},
			{flag: "workdir", values: []string{"/scratch"}, spec: inSpec + `Dir = "/scratch"`, run: "pwd", says: "/scratch"},
			{flag: "user", values: []string{"0:0"}, spec: inSpec + `User = "0:0"`, run: "id -un", says: "root"},
			{flag: "group-add", values: []string{"19"}, spec: inSpec + `Groups = ["17","18","19"]`, run: "id -G", says: "17 18 19"},
			{flag: "hostname", values: []string{"other"}, spec: inSpec + `Hostname = "other"`, run: "hostname", says: "other"},
			{flag: "host-add", values: []string{"db3:10.9.8.9"}, run: "cat /etc/hosts", says: "10.9.8.9\tdb3"},
			{flag: "dns-add", values: []string{"10.1.1.2"}, spec: inSpec + `DNSConfig/Nameservers = ["10.1.1.1","10.1.1.2"]`, run: "cat /etc/resolv.conf", says: "nameserver 10.1.1.2"},
			{flag: "dns-search-add", values: []string{"b.example"}, run: "cat /etc/resolv.conf", says: "search b.example corp.example"},
			{flag: "dns-option-add", values: []string{"timeout:3"}, run: "cat /etc/resolv.conf", says: "options ndots:2 timeout:3"},
			{flag: "init=false", spec: inSpec + "Init = false", box: "HostConfig/Init = false", run: "cat /proc/1/comm", says: "webapp"},
			{flag: "tty=false", spec: inSpec + "TTY = null", box: "Config/Tty = false"},
			{flag: "read-only=false", spec: inSpec + "ReadOnly = null", box: "HostConfig/ReadonlyRootfs = false", run: "grep ' / ' /proc/mounts", says: "overlay rw,"},
			{flag: "isolation", values: []string{"default"}, spec: inSpec + `Isolation = "default"`},
			{flag: "stop-signal", values: []string{"SIGTERM"}, spec: inSpec + `StopSignal = "SIGTERM"`, box: `Config/StopSignal = "SIGTERM"`},
			{flag: "stop-grace-period", values: []string{"3s"}, spec: inSpec + "StopGracePeriod = 3000000000"},
			{flag: "health-cmd", values: []string{"webapp healthcheck || exit 1"}, box: `Config/Healthcheck/Test = ["CMD-SHELL","webapp healthcheck || exit 1"]`},
			{flag: "health-interval", values: []string{"600ms"}, box: "Config/Healthcheck/Interval = 600000000"},
			{flag: "health-timeout", values: []string{"10s"}, box: "Config/Healthcheck/Timeout = 10000000000"},
			{flag: "health-retries", values: []string{"6"}, box: "Config/Healthcheck/Retries = 6"},
			{flag: "health-start-period", values: []string{"7s"}, box: "Config/Healthcheck/StartPeriod = 7000000000"},
			{flag: "cap-add", values: []string{"SYS_TIME"}, box: `HostConfig/CapAdd = ["CAP_NET_ADMIN","CAP_SYS_TIME"]`, run: "grep CapBnd /proc/self/status", says: "a20435fa"},
			{flag: "cap-drop", values: []string{"MKNOD"}, box: `HostConfig/CapDrop = ["CAP_CHOWN","CAP_MKNOD"]`},
			{flag: "sysctl-add", values: []string{"net.ipv4.ip_forward=0"}, run: "cat /proc/sys/net/ipv4/ip_forward", says: "0"},
			{flag: "ulimit-add", values: []string{"nofile=310:410", "core=0:0"}, run: "ulimit -Hn", says: "410"},
			{flag: "mount-add", values: []string{"type=tmpfs,dst=/more"}, run: "grep -c -e ' /more ' -e ' /scratch ' /proc/mounts", says: "2"},
			{flag: "limit-cpu", values: []string{"0.6"}, box: "HostConfig/NanoCpus = 600000000"},
			{flag: "limit-memory", values: []string{"72m"}, box: "HostConfig/Memory = 75497472"},
			{flag: "limit-pids", values: []string{"60"}, box: "HostConfig/PidsLimit = 60"},
			{flag: "reserve-cpu", values: []string{"0.02"}, spec: inTask + "Resources/Reservations/NanoCPUs = 20000000"},
			{flag: "reserve-memory", values: []string{"9m"}, spec: inTask + "Resources/Reservations/MemoryBytes = 9437184"},
			{flag: "generic-resource-add", values: []string{"seats=2"}, spec: inTask + `Resources/Reservations/GenericResources = [{"DiscreteResourceSpec":{"Kind":"seats","Value":2}}]`, run: "echo $DOCKER_RESOURCE_SEATS", says: "2"},
			{flag: "log-driver", values: []string{"json-file"}, box: `HostConfig/LogConfig/Type = "json-file"`},
			{flag: "log-opt", values: []string{"max-size=2m"}, box: `HostConfig/LogConfig/Config = {"max-size":"2m"}`},
			{flag: "constraint-add", values: []string{"node.platform.os==linux"}, spec: inTask + `Placement/Constraints = ["node.platform.os==linux","node.role==manager"]`},
			{flag: "replicas-max-per-node", values: []string{"4"}, spec: inTask + "Placement/MaxReplicas = 4"},
			{flag: "restart-condition", values: []string{"any"}, spec: inTask + `RestartPolicy/Condition = "any"`},
			{flag: "restart-delay", values: []string{"3s"}, spec: inTask + "RestartPolicy/Delay = 3000000000"},
			{flag: "restart-max-attempts", values: []string{"4"}, spec: inTask + "RestartPolicy/MaxAttempts = 4"},
			{flag: "restart-window", values: []string{"40s"}, spec: inTask + "RestartPolicy/Window = 40000000000"},
			{flag: "update-parallelism", values: []string{"3"}, spec: "Spec/UpdateConfig/Parallelism = 3"},
			{flag: "update-delay", values: []string{"100ms"}, spec: "Spec/UpdateConfig/Delay = 100000000"},
			{flag: "update-monitor", values: []string{"300ms"}, spec: "Spec/UpdateConfig/Monitor = 300000000"},
			{flag: "update-failure-action", values: []string{"continue"}, spec: `Spec/UpdateConfig/FailureAction = "continue"`},
			{flag: "update-max-failure-ratio", values: []string{"0.75"}, spec: "Spec/UpdateConfig/MaxFailureRatio = 0.75"},
			{flag: "update-order", values: []string{"stop-first"}, spec: `Spec/UpdateConfig/Order = "stop-first"`},
			{flag: "rollback-parallelism", values: []string{"2"}, spec: "Spec/RollbackConfig/Parallelism = 2"},
			{flag: "rollback-delay", values: []string{"200ms"}, spec: "Spec/RollbackConfig/Delay = 200000000"},
			{flag: "rollback-monitor", values: []string{"300ms"}, spec: "Spec/RollbackConfig/Monitor = 300000000"},
			{flag: "rollback-failure-action", values: []string{"pause"}, spec: `Spec/RollbackConfig/FailureAction = "pause"`},
			{flag: "rollback-max-failure-ratio", values: []string{"0.5"}, spec: "Spec/RollbackConfig/MaxFailureRatio = 0.5"},
			{flag: "rollback-order", values: []string{"stop-first"}, spec: `Spec/RollbackConfig/Order = "stop-first"`},
			{flag: "endpoint-mode", values: []string{"vip"}, spec: `Spec/EndpointSpec/Mode = "vip"`},
		},
		undo: []flagRow{
			{flag: "label-rm", values: []string{"tier", "more"}, spec: `Spec/Labels = {"empty":""}`},
			{flag: "container-label-rm", values: []string{"a"}, spec: inSpec + `Labels = {"kind":"other"}`, box: "Config/Labels/a = null"},
			{flag: "env-rm", values: []string{"A", "C"}, run: "echo ${A-none}${C-none}$FROMFILE", says: "nonenoneyes"},
			{flag: "group-rm", values: []string{"17", "19"}, spec: inSpec + `Groups = ["18"]`, run: "id -G", says: "0 18"},
			{flag: "host-rm", values: []string{"db3:10.9.8.9", "db2"}, spec: inSpec + `Hosts = ["10.9.8.7 db"]`, run: "grep -c db /etc/hosts", says: "1"},
			{flag: "dns-rm", values: []string{"10.1.1.1"}, spec: inSpec + `DNSConfig/Nameservers = ["10.1.1.2"]`},
			{flag: "dns-search-rm", values: []string{"b.example"}, spec: inSpec + `DNSConfig/Search = ["corp.example"]`},
			{flag: "dns-option-rm", values: []string{"ndots:2"}, spec: inSpec + `DNSConfig/Options = ["timeout:3"]`},
			{flag: "sysctl-rm", values: []string{"net.ipv4.ip_forward"}, spec: inSpec + `Sysctls = {"net.ipv4.ip_unprivileged_port_start":"0"}`},
			{flag: "ulimit-rm", values: []string{"core"}, spec: inSpec + `Ulimits = [{"Hard":410,"Name":"nofile","Soft":310}]`},
			{flag: "mount-rm", values: []string{"/more", "/anonymous"}, run: "grep -c -e ' /more ' -e ' /anonymous ' /proc/mounts", says: "0"},
			{flag: "constraint-rm", values: []string{"node.platform.os==linux"}, spec: inTask + `Placement/Constraints = ["node.role==manager"]`},
			{flag: "generic-resource-rm", values: []string{"seats"}, spec: inTask + "Resources/Reservations/GenericResources = null", run: "echo ${DOCKER_RESOURCE_SEATS-none}", says: "none"},
			{flag: "placement-pref-rm", values: []string{"spread=node.labels.rack"}, spec: inTask + "Placement/Preferences = null"},
		},
	},
	{
		name:    "sparse",
		command: []string{testbed.WebV1},
		create: []flagRow{
			{flag: "update-monitor", values: []string{"200ms"}},
			{flag: "rollback-monitor", values: []string{"200ms"}},
			{flag: "no-healthcheck", spec: inSpec + `Healthcheck/Test = ["NONE"]`, box: `Config/Healthcheck/Test = ["NONE"]`},
			{flag: "publish", values: []string{"target=80,mode=host", "target=81,protocol=udp,mode=host"}, spec: `Spec/EndpointSpec/Ports/1/Protocol = "udp"`},
		},
		change: []flagRow{
			{flag: "publish-add", values: []string{"target=82,mode=host"}, spec: "Spec/EndpointSpec/Ports/2/TargetPort = 82"},
			{flag: "no-healthcheck", box: `Config/Healthcheck/Test = ["NONE"]`},
			{flag: "env-add", values: []string{"NEW=1"}},
			{flag: "placement-pref-add", values: []string{"spread=node.labels.row"}, spec: inTask + `Placement/Preferences/0/Spread/SpreadDescriptor = "node.labels.row"`},
		},
		undo: []flagRow{
			{flag: "publish-rm", values: []string{"target=82,mode=host", "target=81,protocol=udp,mode=host"}, spec: "Spec/EndpointSpec/Ports/1 = null"},
		},
	},
	{
		name:    "job",
		command: []string{testbed.WebV1},
		create: []flagRow{
			{flag: "mode", values: []string{"replicated-job"}, spec: "Spec/Mode/Replicated = null"},
			{flag: "replicas", values: []string{"1"}, spec: "Spec/Mode/ReplicatedJob/TotalCompletions = 1"},
			{flag: "max-concurrent", values: []string{"2"}, spec: "Spec/Mode/ReplicatedJob/MaxConcurrent = 2"},
		},
	},
	{
		name:    "files",
		command: []string{testbed.WebV1},
		create: []flagRow{
			{flag: "update-monitor", values: []string{"200ms"}},
			{flag: "rollback-monitor", values: []string{"200ms"}},
			{flag: "secret", values: []string{"source=first,target=/etc/key,uid=12,gid=13,mode=0440"}, spec: inSpec + `Secrets/0/File = {"GID":"13","Mode":288,"Name":"/etc/key","UID":"12"}`, run: "cat /etc/key; stat -c ' %u:%g %a' /etc/key", says: "secret one 12:13 440"},
			{flag: "config", values: []string{"source=first,target=/etc/conf,uid=14,gid=15,mode=0404"}, spec: inSpec + `Configs/0/File = {"GID":"15","Mode":260,"Name":"/etc/conf","UID":"14"}`, run: "cat /etc/conf; stat -c ' %u:%g %a' /etc/conf", says: "config one 14:15 404"},
		},
		change: []flagRow{
			{flag: "secret-add", values: []string{"second"}, spec: inSpec + `Secrets/1/SecretName = "second"`, run: "cat /run/secrets/second; stat -c ' %u:%g %a' /run/secrets/second", says: "secret two 0:0 444"},
			{flag: "config-add", values: []string{"second"}, spec: inSpec + `Configs/1/ConfigName = "second"`, run: "cat /second; stat -c ' %u:%g %a' /second", says: "config two 0:0 444"},
		},
		undo: []flagRow{
			{flag: "secret-rm", values: []string{"first"}, spec: inSpec + "Secrets/1 = null", run: "ls /etc/key /run/secrets/second", says: "/etc/key: No such file"},
			{flag: "config-rm", values: []string{"first"}, spec: inSpec + "Configs/1 = null", run: "ls /etc/conf /second", says: "/etc/conf: No such file"},
		},
	},
	{
		name:    "nets",
		command: []string{testbed.WebV1},
		create: []flagRow{
			{flag: "update-monitor", values: []string{"200ms"}},
			{flag: "rollback-monitor", values: []string{"200ms"}},
			{flag: "endpoint-mode", values: []string{"dnsrr"}},
			{flag: "network", values: []string{"name=front,alias=mine"}, spec: inTask + `Networks/0/Aliases = ["mine"]`, run: "busybox nslookup mine | tail -3; busybox ip -4 addr", says: frontNet},
		},
		change: []flagRow{
			{flag: "network-add", values: []string{"back"}, run: "busybox ip -4 addr | grep -c -e " + frontNet + " -e " + backNet, says: "2"},
		},
		undo: []flagRow{
			{flag: "network-rm", values: []string{"front"}, run: "busybox ip -4 addr | grep -c -e " + frontNet, says: "0"},
		},
	},
	{
		name:    "everywhere",
		command: []string{testbed.WebV1},
		create:  []flagRow{{flag: "mode", values: []string{"global"}, spec: "Spec/Mode/Global = {}", run: "echo $VERSION", says: "v1"}},
	},
	{
		name:    "late",
		command: []string{testbed.WebV1},
		alone:   true,
		create: []flagRow{
			{flag: "oom-score-adj", values: []string{"100"}, spec: inSpec + "OomScoreAdj = 100", box: "HostConfig/OomScoreAdj = 100", run: "cat /proc/1/oom_score_adj", says: "100"},
			{flag: "mount", values: []string{"type=bind,src=/etc,dst=/e,readonly,bind-recursive=writable,bind-propagation=rprivate"}, spec: inSpec + "Mounts/0/BindOptions/ReadOnlyNonRecursive = true", run: "grep ' /e ' /proc/mounts", says: " ro,"},
		},
		change: []flagRow{{flag: "oom-score-adj", values: []string{"200"}, spec: inSpec + "OomScoreAdj = 200", run: "cat /proc/1/oom_score_adj", says: "200"}},
		undo:   []flagRow{{flag: "oom-score-adj", values: []string{"0"}, box: "HostConfig/OomScoreAdj = 0"}},
	},
}

// unplaced are flags that no node here can satisfy, and what the task says.
var unplaced = []struct{ flags, says string }{
	{"--constraint node.labels.zone==none", "node.labels.zone==none"},
	{"--reserve-cpu 999", "no suitable node ("},
	{"--reserve-memory 999g", "no suitable node ("},
	{"--generic-resource gpu=1", "gpu"},
	{"--replicas-max-per-node 1 --replicas 2", "max replicas per node"},
}

// unsupported are flags that are refused by name.
var unsupported = []struct{ flags, says string }{
	{"--credential-spec file://cred.json", "credential specs are not supported"},
	{"--isolation hyperv", `isolation "hyperv" is not supported`},
	{"--mount type=cluster,src=group:x,dst=/x", "cluster volumes are not supported"},
	{"--mount type=npipe,src=x,dst=/x", "npipe"},
	{"--mount type=magic,src=/x,dst=/x", "magic"},
	{"--oom-score-adj 2000", "oom score adj"},
	{"--limit-memory 1m", "Must be at least 4MiB"},
	{"--hostname a_b!", "not valid hostname"},
	{"--health-cmd true --health-interval 1us", "Interval in HealthConfig cannot be less than 1ms"},
	{"--update-order sideways", "sideways"},
	{"--restart-condition sometimes", "sometimes"},
}

// otherTests are the flags that have no row here, and where each is tested
// instead.
var otherTests = map[string]map[string]string{
	"create": {
		"name": "in every group", "no-resolve-image": "in every group", "detach": "in every group",
		"quiet": "TestQuiet", "credential-spec": "unsupported", "with-registry-auth": "internal/control",
		"health-start-interval": "TestReady",
	},
	"update": {
		"max-concurrent":   "cli/spec", // Docker's command line takes it, and forgets it
		"no-resolve-image": "in every group", "detach": "in every group", "quiet": "TestQuiet",
		"force": "flagGroup.test", "rollback": "flagGroup.test", "credential-spec": "unsupported",
		"with-registry-auth": "internal/control", "health-start-interval": "TestReady",
	},
}

// flagObjects makes what the rows name, on both hosts and in both clusters.
func flagObjects(t *testing.T, h, peer *testbed.Host) {
	t.Helper()
	for _, in := range []struct {
		h   *testbed.Host
		ask func(args ...string) testbed.Result
		api string
	}{{h, h.Docker, "/run/shoal.sock"}, {peer, peer.EngineDocker, "/run/docker.sock"}} {
		if err := os.WriteFile(filepath.Join(in.h.Dir(), "etc/docker/env"), []byte("# variables\nFROMFILE=yes\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for name, number := range map[string]string{"first": "one", "second": "two"} {
			for _, kind := range []string{"secret", "config"} {
				r := in.h.RunInput(t.Context(), strings.NewReader(kind+" "+number), "docker", "-H", "unix://"+in.api, kind, "create", name, "-")
				testbed.Must(t, r)
			}
		}
		for name, begin := range map[string]string{"front": frontNet, "back": backNet} {
			testbed.Must(t, in.ask("network", "create", "--driver", "overlay", "--subnet", begin+"0/24", name))
		}
	}
}

package compose

import "strings"

// Support is what becomes of a field of a compose file.
type Support int

const (
	// Honoured fields do what the compose specification says they do.
	Honoured Support = iota
	// Warned fields are left out, and the user is told so with file and line. They are those that docker stack deploy
	// leaves out, too, and those without which the services run as they should.
	Warned
	// Refused fields end the command: without them the services would not be what their author meant.
	Refused
)

func (s Support) String() string {
	return [...]string{"honoured", "warning", "refused"}[s]
}

// Field is one line of the table of support. In the path, "*" is any key and "[]" any entry of a list. What lies below
// a field that is not honoured goes with it.
type Field struct {
	Path    string
	Support Support
	Note    string
}

// Fields is what shoal makes of every field that a compose file may have. The checks use it, docs/compose.md shows it,
// and a test compares it with the schema of the compose specification.
var Fields = []Field{
	{"version", Honoured, "any; it is not needed"},
	{"name", Honoured, "a warning if it is not the stack's name, which comes from the command line"},
	{"include", Honoured, ""},
	{"include[].path", Honoured, ""},
	{"include[].env_file", Honoured, ""},
	{"include[].project_directory", Honoured, ""},
	{"services", Honoured, ""},
	{"jobs", Refused, "use a service with deploy.mode replicated-job or global-job"},
	{"models", Refused, "there is no runner for models"},

	{"services.*.annotations", Refused, "services of a swarm have no annotations; use labels"},
	{"services.*.attach", Warned, "the output of a service is shown by \"shoal service logs\""},
	{"services.*.blkio_config", Refused, "not available for services"},
	{"services.*.build", Warned, "images are built and pushed before they are deployed"},
	{"services.*.cap_add", Honoured, ""},
	{"services.*.cap_drop", Honoured, ""},
	{"services.*.cgroup", Warned, "not available for services"},
	{"services.*.cgroup_parent", Warned, "not available for services"},
	{"services.*.command", Honoured, ""},
	{"services.*.configs", Honoured, ""},
	{"services.*.configs[].source", Honoured, ""},
	{"services.*.configs[].target", Honoured, ""},
	{"services.*.configs[].uid", Honoured, ""},
	{"services.*.configs[].gid", Honoured, ""},
	{"services.*.configs[].mode", Honoured, ""},
	{"services.*.container_name", Warned, "setting the container name is not supported: a service has many containers"},
	{"services.*.cpu_count", Refused, "use deploy.resources.limits.cpus"},
	{"services.*.cpu_percent", Refused, "use deploy.resources.limits.cpus"},
	{"services.*.cpu_period", Refused, "use deploy.resources.limits.cpus"},
	{"services.*.cpu_quota", Refused, "use deploy.resources.limits.cpus"},
	{"services.*.cpu_rt_period", Refused, "not available for services"},
	{"services.*.cpu_rt_runtime", Refused, "not available for services"},
	{"services.*.cpu_shares", Refused, "use deploy.resources.reservations.cpus"},
	{"services.*.cpus", Honoured, "as deploy.resources.limits.cpus"},
	{"services.*.cpuset", Refused, "not available for services"},
	{"services.*.credential_spec", Honoured, "sent to the cluster, which refuses it for Linux nodes"},
	{"services.*.credential_spec.config", Honoured, ""},
	{"services.*.credential_spec.file", Honoured, ""},
	{"services.*.credential_spec.registry", Honoured, ""},
	{"services.*.depends_on", Honoured, "on deploy: a service is created or updated when what it depends on is as far as the condition says"},
	{"services.*.depends_on.*.condition", Honoured, "service_started, service_healthy, service_completed_successfully"},
	{"services.*.depends_on.*.required", Honoured, ""},
	{"services.*.depends_on.*.restart", Warned, "an update of one service restarts no other"},
	{"services.*.deploy", Honoured, ""},
	{"services.*.deploy.endpoint_mode", Honoured, "vip, dnsrr"},
	{"services.*.deploy.labels", Honoured, "labels of the service, among them shoal's settings"},
	{"services.*.deploy.mode", Honoured, "replicated, global, replicated-job, global-job"},
	{"services.*.deploy.placement", Honoured, ""},
	{"services.*.deploy.placement.constraints", Honoured, ""},
	{"services.*.deploy.placement.max_replicas_per_node", Honoured, ""},
	{"services.*.deploy.placement.preferences", Honoured, ""},
	{"services.*.deploy.placement.preferences[].spread", Honoured, ""},
	{"services.*.deploy.replicas", Honoured, ""},
	{"services.*.deploy.resources", Honoured, ""},
	{"services.*.deploy.resources.limits", Honoured, ""},
	{"services.*.deploy.resources.limits.cpus", Honoured, ""},
	{"services.*.deploy.resources.limits.memory", Honoured, ""},
	{"services.*.deploy.resources.limits.pids", Honoured, ""},
	{"services.*.deploy.resources.reservations", Honoured, ""},
	{"services.*.deploy.resources.reservations.cpus", Honoured, ""},
	{"services.*.deploy.resources.reservations.devices", Refused, "use deploy.resources.reservations.generic_resources"},
	{"services.*.deploy.resources.reservations.generic_resources", Honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec", Honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind", Honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.value", Honoured, ""},
	{"services.*.deploy.resources.reservations.memory", Honoured, ""},
	{"services.*.deploy.restart_policy", Honoured, ""},
	{"services.*.deploy.restart_policy.condition", Honoured, "none, on-failure, any"},
	{"services.*.deploy.restart_policy.delay", Honoured, ""},
	{"services.*.deploy.restart_policy.max_attempts", Honoured, ""},
	{"services.*.deploy.restart_policy.window", Honoured, ""},
	{"services.*.deploy.rollback_config", Honoured, ""},
	{"services.*.deploy.rollback_config.delay", Honoured, ""},
	{"services.*.deploy.rollback_config.failure_action", Honoured, ""},
	{"services.*.deploy.rollback_config.max_failure_ratio", Honoured, ""},
	{"services.*.deploy.rollback_config.monitor", Honoured, ""},
	{"services.*.deploy.rollback_config.order", Honoured, ""},
	{"services.*.deploy.rollback_config.parallelism", Honoured, ""},
	{"services.*.deploy.update_config", Honoured, ""},
	{"services.*.deploy.update_config.delay", Honoured, ""},
	{"services.*.deploy.update_config.failure_action", Honoured, ""},
	{"services.*.deploy.update_config.max_failure_ratio", Honoured, ""},
	{"services.*.deploy.update_config.monitor", Honoured, ""},
	{"services.*.deploy.update_config.order", Honoured, ""},
	{"services.*.deploy.update_config.parallelism", Honoured, ""},
	{"services.*.develop", Warned, "for development only"},
	{"services.*.device_cgroup_rules", Refused, "not available for services"},
	{"services.*.devices", Honoured, "as the label shoal.devices, if the swarm allows it; docker stack deploy leaves it out"},
	{"services.*.devices[].permissions", Honoured, ""},
	{"services.*.devices[].source", Honoured, ""},
	{"services.*.devices[].target", Honoured, ""},
	{"services.*.dns", Honoured, ""},
	{"services.*.dns_opt", Honoured, ""},
	{"services.*.dns_search", Honoured, ""},
	{"services.*.domainname", Warned, "not available for services"},
	{"services.*.entrypoint", Honoured, ""},
	{"services.*.env_file", Honoured, "a plain name is read as docker stack deploy reads it: lines of KEY=VALUE, quotes are part of the value"},
	{"services.*.env_file[].format", Honoured, "raw; without it quotes and variables are interpreted, as Compose does"},
	{"services.*.env_file[].path", Honoured, ""},
	{"services.*.env_file[].required", Honoured, ""},
	{"services.*.environment", Honoured, "an empty value is taken from the environment of the command, as by docker stack deploy"},
	{"services.*.expose", Warned, "unnecessary: services on the same network reach each other on every port"},
	{"services.*.extends", Honoured, ""},
	{"services.*.extends.file", Honoured, ""},
	{"services.*.extends.service", Honoured, ""},
	{"services.*.external_links", Warned, "use a network that both services are on"},
	{"services.*.extra_hosts", Honoured, ""},
	{"services.*.gpus", Refused, "use the label shoal.gpus in deploy.labels"},
	{"services.*.group_add", Honoured, ""},
	{"services.*.healthcheck", Honoured, ""},
	{"services.*.healthcheck.disable", Honoured, ""},
	{"services.*.healthcheck.interval", Honoured, ""},
	{"services.*.healthcheck.retries", Honoured, ""},
	{"services.*.healthcheck.start_interval", Honoured, ""},
	{"services.*.healthcheck.start_period", Honoured, ""},
	{"services.*.healthcheck.test", Honoured, ""},
	{"services.*.healthcheck.timeout", Honoured, ""},
	{"services.*.hostname", Honoured, ""},
	{"services.*.image", Honoured, ""},
	{"services.*.init", Honoured, ""},
	{"services.*.ipc", Warned, "not available for services"},
	{"services.*.isolation", Honoured, ""},
	{"services.*.label_file", Honoured, ""},
	{"services.*.labels", Honoured, "labels of the containers; those of the service are in deploy.labels"},
	{"services.*.links", Warned, "unnecessary: services on the same network find each other by name"},
	{"services.*.logging", Honoured, ""},
	{"services.*.logging.driver", Honoured, ""},
	{"services.*.logging.options", Honoured, ""},
	{"services.*.mac_address", Warned, "addresses are given by the cluster"},
	{"services.*.mem_limit", Honoured, "as deploy.resources.limits.memory"},
	{"services.*.mem_reservation", Honoured, "as deploy.resources.reservations.memory"},
	{"services.*.mem_swappiness", Refused, "not available for services"},
	{"services.*.memswap_limit", Refused, "not available for services"},
	{"services.*.models", Refused, "there is no runner for models"},
	{"services.*.network_mode", Warned, "use networks; the host's network is one that is external and has the name host"},
	{"services.*.networks", Honoured, ""},
	{"services.*.networks.*.aliases", Honoured, ""},
	{"services.*.networks.*.driver_opts", Honoured, ""},
	{"services.*.networks.*.gw_priority", Warned, "not available for services"},
	{"services.*.networks.*.interface_name", Refused, "not available for services"},
	{"services.*.networks.*.ipv4_address", Refused, "a service has many containers, whose addresses are given by the cluster; reach it by its name"},
	{"services.*.networks.*.ipv6_address", Refused, "a service has many containers, whose addresses are given by the cluster; reach it by its name"},
	{"services.*.networks.*.link_local_ips", Refused, "addresses are given by the cluster"},
	{"services.*.networks.*.mac_address", Refused, "addresses are given by the cluster"},
	{"services.*.networks.*.priority", Warned, "not available for services"},
	{"services.*.networks.*.use_service_name_alias", Honoured, ""},
	{"services.*.oom_kill_disable", Refused, "not available for services"},
	{"services.*.oom_score_adj", Honoured, ""},
	{"services.*.pid", Warned, "not available for services"},
	{"services.*.pids_limit", Honoured, "as deploy.resources.limits.pids"},
	{"services.*.platform", Warned, "tasks are placed by the platforms of the image; or use a constraint on node.platform.arch"},
	{"services.*.ports", Honoured, ""},
	{"services.*.ports[].app_protocol", Warned, "the mesh looks at no protocol above TCP and UDP"},
	{"services.*.ports[].host_ip", Refused, "a port is published on every node; without the address it would be open to the world"},
	{"services.*.ports[].mode", Honoured, "ingress, host"},
	{"services.*.ports[].name", Warned, "ports of services have no names"},
	{"services.*.ports[].protocol", Honoured, "tcp, udp, sctp"},
	{"services.*.ports[].published", Honoured, ""},
	{"services.*.ports[].target", Honoured, ""},
	{"services.*.post_start", Refused, "not available for services"},
	{"services.*.pre_start", Refused, "use a service with deploy.mode replicated-job, and depends_on"},
	{"services.*.pre_stop", Refused, "not available for services"},
	{"services.*.privileged", Honoured, "as the label shoal.privileged, if the swarm allows it; docker stack deploy leaves it out"},
	{"services.*.profiles", Honoured, "chosen with --profile or COMPOSE_PROFILES"},
	{"services.*.provider", Refused, "not available for services"},
	{"services.*.pull_policy", Warned, "an image is pulled where it is missing; --resolve-image decides whether a tag is looked up"},
	{"services.*.pull_refresh_after", Warned, "an image is pulled where it is missing"},
	{"services.*.read_only", Honoured, ""},
	{"services.*.restart", Honoured, "without deploy.restart_policy; a warning for \"no\", which docker stack deploy does not honour: use deploy.restart_policy"},
	{"services.*.runtime", Refused, "not available for services"},
	{"services.*.scale", Honoured, "as deploy.replicas"},
	{"services.*.secrets", Honoured, ""},
	{"services.*.secrets[].source", Honoured, ""},
	{"services.*.secrets[].target", Honoured, ""},
	{"services.*.secrets[].uid", Honoured, ""},
	{"services.*.secrets[].gid", Honoured, ""},
	{"services.*.secrets[].mode", Honoured, ""},
	{"services.*.security_opt", Warned, "as by docker stack deploy"},
	{"services.*.shm_size", Warned, "mount a tmpfs at /dev/shm"},
	{"services.*.stdin_open", Honoured, ""},
	{"services.*.stop_grace_period", Honoured, ""},
	{"services.*.stop_signal", Honoured, ""},
	{"services.*.storage_opt", Refused, "not available for services"},
	{"services.*.sysctls", Honoured, ""},
	{"services.*.tmpfs", Honoured, "as volumes of type tmpfs; docker stack deploy leaves them out"},
	{"services.*.tty", Honoured, ""},
	{"services.*.ulimits", Honoured, ""},
	{"services.*.ulimits.*.hard", Honoured, ""},
	{"services.*.ulimits.*.soft", Honoured, ""},
	{"services.*.umask", Refused, "not available for services"},
	{"services.*.use_api_socket", Refused, "mount the socket as a volume of type bind"},
	{"services.*.user", Honoured, ""},
	{"services.*.userns_mode", Warned, "not available for services"},
	{"services.*.uts", Refused, "not available for services"},
	{"services.*.volumes", Honoured, ""},
	{"services.*.volumes[].bind", Honoured, ""},
	{"services.*.volumes[].bind.create_host_path", Warned, "what is bound must exist on the node"},
	{"services.*.volumes[].bind.propagation", Honoured, ""},
	{"services.*.volumes[].bind.recursive", Honoured, ""},
	{"services.*.volumes[].bind.selinux", Warned, "label the directory on the nodes"},
	{"services.*.volumes[].consistency", Honoured, ""},
	{"services.*.volumes[].image", Refused, "not available for services"},
	{"services.*.volumes[].read_only", Honoured, ""},
	{"services.*.volumes[].source", Honoured, ""},
	{"services.*.volumes[].target", Honoured, ""},
	{"services.*.volumes[].tmpfs", Honoured, ""},
	{"services.*.volumes[].tmpfs.mode", Honoured, ""},
	{"services.*.volumes[].tmpfs.size", Honoured, ""},
	{"services.*.volumes[].type", Honoured, "volume, bind, tmpfs; cluster, npipe and image are refused"},
	{"services.*.volumes[].volume", Honoured, ""},
	{"services.*.volumes[].volume.labels", Honoured, ""},
	{"services.*.volumes[].volume.nocopy", Honoured, ""},
	{"services.*.volumes[].volume.subpath", Honoured, ""},
	{"services.*.volumes_from", Refused, "name the volume, and mount it in both services"},
	{"services.*.working_dir", Honoured, ""},

	{"networks", Honoured, ""},
	{"networks.*.attachable", Honoured, ""},
	{"networks.*.driver", Honoured, "overlay if not given"},
	{"networks.*.driver_opts", Honoured, ""},
	{"networks.*.enable_ipv4", Refused, "networks of a swarm have IPv4"},
	{"networks.*.enable_ipv6", Honoured, "sent to the cluster, which refuses it where it can not be done"},
	{"networks.*.external", Honoured, ""},
	{"networks.*.external.name", Honoured, ""},
	{"networks.*.internal", Honoured, ""},
	{"networks.*.ipam", Honoured, ""},
	{"networks.*.ipam.config", Honoured, ""},
	{"networks.*.ipam.config[].aux_addresses", Honoured, ""},
	{"networks.*.ipam.config[].gateway", Honoured, ""},
	{"networks.*.ipam.config[].ip_range", Honoured, ""},
	{"networks.*.ipam.config[].subnet", Honoured, ""},
	{"networks.*.ipam.driver", Honoured, ""},
	{"networks.*.ipam.options", Honoured, ""},
	{"networks.*.labels", Honoured, ""},
	{"networks.*.name", Honoured, ""},

	{"volumes", Honoured, "made on a node when a task needs them there"},
	{"volumes.*.driver", Honoured, ""},
	{"volumes.*.driver_opts", Honoured, ""},
	{"volumes.*.external", Honoured, ""},
	{"volumes.*.external.name", Honoured, ""},
	{"volumes.*.labels", Honoured, ""},
	{"volumes.*.name", Honoured, ""},

	{"secrets", Honoured, ""},
	{"secrets.*.driver", Honoured, "sent to the cluster, which refuses drivers that it does not have"},
	{"secrets.*.driver_opts", Honoured, ""},
	{"secrets.*.environment", Honoured, ""},
	{"secrets.*.external", Honoured, ""},
	{"secrets.*.external.name", Honoured, ""},
	{"secrets.*.file", Honoured, ""},
	{"secrets.*.labels", Honoured, ""},
	{"secrets.*.name", Honoured, ""},
	{"secrets.*.template_driver", Honoured, ""},

	{"configs", Honoured, ""},
	{"configs.*.content", Honoured, ""},
	{"configs.*.environment", Honoured, ""},
	{"configs.*.external", Honoured, ""},
	{"configs.*.external.name", Honoured, ""},
	{"configs.*.file", Honoured, ""},
	{"configs.*.labels", Honoured, ""},
	{"configs.*.name", Honoured, ""},
	{"configs.*.template_driver", Honoured, ""},
}

// table is Fields arranged for looking up.
type table struct {
	field map[string]Field
	// parent has the paths below which there are fields, and named those below which there are names.
	parent, named map[string]bool
}

func newTable(fields []Field) table {
	t := table{map[string]Field{}, map[string]bool{"": true}, map[string]bool{}}
	for _, f := range fields {
		t.field[f.Path] = f
		for path := f.Path; path != ""; {
			var key string
			path, key = cutLast(path)
			t.parent[path] = true
			if key == "*" {
				t.named[path] = true
			}
		}
	}
	return t
}

// cutLast cuts a path at its last step.
func cutLast(path string) (before, last string) {
	if strings.HasSuffix(path, "[]") {
		return strings.TrimSuffix(path, "[]"), "[]"
	}
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

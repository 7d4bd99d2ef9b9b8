// Package spec turns the flags of service create and service update into a service spec. It decides and does no I/O,
// save for reading --env-file and the environment, which are part of the flags' meaning.
package spec

import "shoal/cli/flags"

// CreateFlags are the flags of service create.
func CreateFlags() flags.Set {
	set := append(commonFlags(true),
		flags.Many("config", "", "config", "Specify configurations to expose to the service", ParseFile),
		flags.Many("constraint", "", "list", "Placement constraints", asIs),
		flags.Many("container-label", "", "list", "Container labels", ParseLabel),
		flags.Many("dns", "", "list", "Set custom DNS servers", ParseIP),
		flags.Many("dns-option", "", "list", "Set DNS options", asIs),
		flags.Many("dns-search", "", "list", "Set custom DNS search domains", ParseSearch),
		flags.Many("env", "e", "list", "Set environment variables", ParseEnv),
		flags.List("env-file", "", "Read in a file of environment variables"),
		flags.Many("generic-resource", "", "list", "User defined resources", ParseGenericResource),
		flags.List("group", "", "Set one or more supplementary user groups for the container"),
		flags.Many("host", "", "list", "Set one or more custom host-to-IP mappings (host:ip)", ParseHost),
		flags.Many("label", "l", "list", "Service labels", ParseLabel),
		flags.Text("mode", "", `Service mode ("replicated", "global", "replicated-job", "global-job")`).WithDefault(`"replicated"`),
		flags.Many("mount", "", "mount", "Attach a filesystem mount to the service", ParseMount),
		flags.Text("name", "", "Service name"),
		flags.Many("network", "", "network", "Network attachments", ParseNetwork),
		flags.Many("placement-pref", "", "pref", "Add a placement preference", ParsePreference),
		flags.Many("publish", "p", "port", "Publish a port as a node port", ParsePorts),
		flags.Many("secret", "", "secret", "Specify secrets to expose to the service", ParseFile),
		flags.List("sysctl", "", "Sysctl options"),
		flags.Many("ulimit", "", "ulimit", "Ulimit options", ParseUlimit),
	)
	return set
}

// UpdateFlags are the flags of service update.
func UpdateFlags() flags.Set {
	set := append(commonFlags(false),
		flags.Var("args", "", "command", "Service command args", ParseWords),
		flags.Many("config-add", "", "config", "Add or update a config file on a service", ParseFile),
		flags.List("config-rm", "", "Remove a configuration file"),
		flags.List("constraint-add", "", "Add or update a placement constraint"),
		flags.List("constraint-rm", "", "Remove a constraint"),
		flags.Many("container-label-add", "", "list", "Add or update a container label", ParseLabel),
		flags.List("container-label-rm", "", "Remove a container label by its key"),
		flags.Many("dns-add", "", "list", "Add or update a custom DNS server", ParseIP),
		flags.List("dns-option-add", "", "Add or update a DNS option"),
		flags.List("dns-option-rm", "", "Remove a DNS option"),
		flags.List("dns-rm", "", "Remove a custom DNS server"),
		flags.Many("dns-search-add", "", "list", "Add or update a custom DNS search domain", ParseSearch),
		flags.List("dns-search-rm", "", "Remove a DNS search domain"),
		flags.Many("env-add", "", "list", "Add or update an environment variable", ParseEnv),
		flags.List("env-rm", "", "Remove an environment variable"),
		flags.Bool("force", "", "Force update even if no changes require it"),
		flags.Many("generic-resource-add", "", "list", "Add a Generic resource", ParseGenericResource),
		flags.List("generic-resource-rm", "", "Remove a Generic resource"),
		flags.List("group-add", "", "Add an additional supplementary user group to the container"),
		flags.List("group-rm", "", "Remove a previously added supplementary user group from the container"),
		flags.Many("host-add", "", "list", `Add a custom host-to-IP mapping ("host:ip")`, ParseHost),
		flags.Many("host-rm", "", "list", `Remove a custom host-to-IP mapping ("host:ip")`, asIs),
		flags.Text("image", "", "Service image tag"),
		flags.Many("label-add", "", "list", "Add or update a service label", ParseLabel),
		flags.List("label-rm", "", "Remove a label by its key"),
		flags.Many("mount-add", "", "mount", "Add or update a mount on a service", ParseMount),
		flags.List("mount-rm", "", "Remove a mount by its target path"),
		flags.Many("network-add", "", "network", "Add a network", ParseNetwork),
		flags.List("network-rm", "", "Remove a network"),
		flags.Many("placement-pref-add", "", "pref", "Add a placement preference", ParsePreference),
		flags.Many("placement-pref-rm", "", "pref", "Remove a placement preference", ParsePreference),
		flags.Many("publish-add", "", "port", "Add or update a published port", ParsePorts),
		flags.Many("publish-rm", "", "port", "Remove a published port by its target port", parseTargetPort),
		flags.Bool("rollback", "", "Rollback to previous specification"),
		flags.Many("secret-add", "", "secret", "Add or update a secret on a service", ParseFile),
		flags.List("secret-rm", "", "Remove a secret"),
		flags.List("sysctl-add", "", "Add or update a Sysctl option"),
		flags.List("sysctl-rm", "", "Remove a Sysctl option"),
		flags.Many("ulimit-add", "", "ulimit", "Add or update a ulimit option", ParseUlimit),
		flags.List("ulimit-rm", "", "Remove a ulimit option"),
	)
	return set
}

// commonFlags mean the same in create and update. Only create shows defaults: update leaves what was not given.
func commonFlags(create bool) flags.Set {
	def := func(f *flags.Flag, text string) *flags.Flag {
		if create {
			return f.WithDefault(text)
		}
		return f
	}
	const units, short = " (ns|us|ms|s|m|h)", " (ms|s|m|h)"
	return flags.Set{
		flags.List("cap-add", "", "Add Linux capabilities"),
		flags.List("cap-drop", "", "Drop Linux capabilities"),
		flags.Var("credential-spec", "", "credential-spec", "Credential spec for managed service account (Windows only)", ParseCredentialSpec),
		flags.Bool("detach", "d", "Exit immediately instead of waiting for the service to converge"),
		def(flags.Text("endpoint-mode", "", "Endpoint mode (vip or dnsrr)"), `"vip"`),
		flags.Var("entrypoint", "", "command", "Overwrite the default ENTRYPOINT of the image", ParseWords),
		flags.Text("health-cmd", "", "Command to run to check health"),
		flags.Duration("health-interval", "Time between running the check"+short),
		flags.Int("health-retries", "Consecutive failures needed to report unhealthy"),
		flags.Duration("health-start-interval", "Time between running the check during the start period"+short),
		flags.Duration("health-start-period", "Start period for the container to initialize before counting retries towards unstable"+short),
		flags.Duration("health-timeout", "Maximum time to allow one check to run"+short),
		flags.Text("hostname", "", "Container hostname"),
		flags.Bool("init", "", "Use an init inside each service container to forward signals and reap processes"),
		flags.Text("isolation", "", "Service container isolation mode"),
		flags.CPUs("limit-cpu", "Limit CPUs"),
		flags.Bytes("limit-memory", "Limit Memory"),
		flags.Int("limit-pids", "Limit maximum number of processes (default 0 = unlimited)"),
		flags.Text("log-driver", "", "Logging driver for service"),
		flags.List("log-opt", "", "Logging driver options"),
		flags.Uint("max-concurrent", "Number of job tasks to run concurrently (default equal to --replicas)"),
		flags.Bool("no-healthcheck", "", "Disable any container-specified HEALTHCHECK"),
		flags.Bool("no-resolve-image", "", "Do not query the registry to resolve image digest and supported platforms"),
		flags.Int("oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)"),
		flags.Bool("quiet", "q", "Suppress progress output"),
		flags.Bool("read-only", "", "Mount the container's root filesystem as read only"),
		flags.Uint("replicas", "Number of tasks"),
		flags.Uint("replicas-max-per-node", "Maximum number of tasks per node (default 0 = unlimited)"),
		flags.CPUs("reserve-cpu", "Reserve CPUs"),
		flags.Bytes("reserve-memory", "Reserve Memory"),
		def(flags.Text("restart-condition", "", `Restart when condition is met ("none", "on-failure", "any")`), `"any"`),
		def(flags.Duration("restart-delay", "Delay between restart attempts"+units), "1s"),
		flags.Uint("restart-max-attempts", "Maximum number of restarts before giving up"),
		flags.Duration("restart-window", "Window used to evaluate the restart policy"+units),
		def(flags.Duration("rollback-delay", "Delay between task rollbacks"+units), "0s"),
		def(flags.Text("rollback-failure-action", "", `Action on rollback failure ("pause", "continue")`), `"pause"`),
		def(flags.Float("rollback-max-failure-ratio", "Failure rate to tolerate during a rollback"), "0"),
		def(flags.Duration("rollback-monitor", "Duration after each task rollback to monitor for failure"+units), "5s"),
		def(flags.Text("rollback-order", "", `Rollback order ("start-first", "stop-first")`), `"stop-first"`),
		def(flags.Uint("rollback-parallelism", "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)"), "1"),
		def(flags.Duration("stop-grace-period", "Time to wait before force killing a container"+units), "10s"),
		flags.Text("stop-signal", "", "Signal to stop the container"),
		flags.Bool("tty", "t", "Allocate a pseudo-TTY"),
		def(flags.Duration("update-delay", "Delay between updates"+units), "0s"),
		def(flags.Text("update-failure-action", "", `Action on update failure ("pause", "continue", "rollback")`), `"pause"`),
		def(flags.Float("update-max-failure-ratio", "Failure rate to tolerate during an update"), "0"),
		def(flags.Duration("update-monitor", "Duration after each task update to monitor for failure"+units), "5s"),
		def(flags.Text("update-order", "", `Update order ("start-first", "stop-first")`), `"stop-first"`),
		def(flags.Uint("update-parallelism", "Maximum number of tasks updated simultaneously (0 to update all at once)"), "1"),
		flags.Text("user", "u", "Username or UID (format: <name|uid>[:<group|gid>])"),
		flags.Bool("with-registry-auth", "", "Send registry authentication details to swarm agents"),
		flags.Text("workdir", "w", "Working directory inside the container"),
	}
}

func asIs(s string) (string, error) { return s, nil }

package e2e

import (
	"testing"

	"shoal/internal/testbed"
)

// TestPrivileged: nobody has more of a host than Swarm gives, until an
// administrator allows it.
func TestPrivileged(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	says := []string{"is not allowed in this swarm", "shoal swarm update --allow-privileged"}
	for _, label := range []string{"shoal.privileged=true", "shoal.devices=/dev/null:/dev/nothing", "shoal.gpus=all"} {
		for _, ask := range []func(...string) testbed.Result{h.Shoal, h.Docker} {
			refused(t, ask("service", "create", "-d", "--no-resolve-image", "--label", label, testbed.WebV1), says...)
		}
	}
	create(t, h, "--name", "plain", testbed.WebV1)
	refused(t, h.Shoal("exec", "--privileged", "plain", "true"), says...)
	refused(t, h.Shoal("service", "update", "--no-resolve-image", "--label-add", "shoal.privileged=true", "plain"), says...)

	testbed.Must(t, h.Shoal("swarm", "update", "--allow-privileged"))
	testbed.Must(t, h.Shoal("service", "create", "-d", "--no-resolve-image", "--name", "mighty", "--label", "shoal.privileged=true", testbed.WebV1))
	create(t, h, "--name", "device", "--label", "shoal.devices=/dev/null:/dev/nothing:rw", testbed.WebV1)
	// Where the whole machine has not all privileges it does not start; but it is
	// made so.
	testbed.Eventually(t, patience, func() error {
		made := containers(t, h, "com.docker.swarm.service.name=mighty")
		if len(made) == 0 {
			return errNotYet
		}
		if !inspect(t, h, made[0]).HostConfig.Privileged {
			t.Error("the container is not privileged")
		}
		return nil
	})
	contains(t, testbed.Must(t, h.Shoal("exec", "device", "ls", "-l", "/dev/nothing")), "1,   3")
	before := ids(t, h, "device")
	update(t, h, "--label-add", "shoal.devices=/dev/null:/dev/void", "device")
	for id := range ids(t, h, "device") {
		if _, same := before[id]; same {
			t.Error("another device made no new task")
		}
	}
	// An engine that has none says so.
	testbed.Must(t, h.Shoal("service", "create", "-d", "--no-resolve-image", "--restart-condition", "none", "--name", "gpu", "--label", "shoal.gpus=all", testbed.WebV1))
	testbed.Eventually(t, patience, func() error {
		for _, line := range history(t, h, "gpu", "{{.CurrentState}} {{.Error}}") {
			if missing(line, "could not select device driver") == "" {
				return nil
			}
		}
		return errNotYet
	})
	testbed.Must(t, h.Shoal("swarm", "update", "--allow-privileged=false"))
	refused(t, h.Shoal("service", "create", "-d", "--no-resolve-image", "--label", "shoal.privileged=true", testbed.WebV1), says...)
	testbed.Must(t, h.Shoal("service", "update", "-d", "--no-resolve-image", "--replicas", "2", "mighty")) // what it has it keeps
}

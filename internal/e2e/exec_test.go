package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestExec runs commands in tasks on other nodes, from a manager that does not
// lead and from the one that does.
func TestExec(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 2)
	h, other := bed.Host(0), bed.Host(1)
	testbed.Must(t, h.Shoal("swarm", "init"))
	join(t, h, other, "manager")
	create(t, h, "--name", "web", "--replicas", "2", "--replicas-max-per-node", "1", testbed.WebV1)
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for _, from := range []*testbed.Host{h, other} {
		for _, task := range tasks(t, h, "web") {
			name := fmt.Sprintf("web.%d", task.Slot)
			exec := func(args ...string) testbed.Result {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				return from.RunInput(ctx, bytes.NewReader(noise), append([]string{"shoal", "exec"}, args...)...)
			}
			if got := testbed.Must(t, exec(name, "hostname")); got != task.Status.ContainerStatus.ContainerID[:12]+"\n" {
				t.Errorf("%s from %s ran in %s", name, from.Name, got)
			}
			if r := exec(name, "sh", "-c", "echo out; echo err >&2; exit 7"); r.Code != 7 || r.Stdout != "out\n" || r.Stderr != "err\n" {
				t.Errorf("a command that fails: %+v", r)
			}
			if got := testbed.Must(t, exec("-i", task.ID, "sha256sum")); got != fmt.Sprintf("%x  -\n", sha256.Sum256(noise)) {
				t.Errorf("of the input arrived: %s", got)
			}
			if got := testbed.Must(t, exec("-i", task.ID[:12], "cat")); got != string(noise) {
				t.Errorf("of %d bytes came back %d", len(noise), len(got))
			}
			if got := testbed.Must(t, exec(name, "cat")); got != "" { // without -i there is no input
				t.Errorf("cat of nothing: %q", got)
			}
			if r := exec("-i", name, "true"); r.Code != 0 { // that does not read its input
				t.Errorf("true: %+v", r)
			}
			got := testbed.Must(t, exec("-u", "nobody", "-w", "/tmp", "-e", "A=1", "--env", "B=2", name+"."+task.ID, "sh", "-c", "id -un; pwd; echo $A$B"))
			if got != "nobody\n/tmp\n12\n" {
				t.Errorf("user, directory, variables: %q", got)
			}
			if got := testbed.Must(t, exec("-d", name, "sh", "-c", "echo $$ >/tmp/ran")); got != "" {
				t.Errorf("exec --detach printed %q", got)
			}
			testbed.Eventually(t, patience, func() error { return exec(name, "test", "-s", "/tmp/ran").Err() })
			tty := from.Run(t.Context(), "script", "-qec", "stty rows 33 cols 77; shoal exec -it "+name+` sh -c 'tty; until [ "$(stty size 2>/dev/null)" = "33 77" ]; do sleep 0.1; done; stty size; exit 4'`, "/dev/null")
			if tty.Code != 4 || missing(tty.Stdout, "/dev/pts/", "33 77") != "" {
				t.Errorf("on a terminal: %+v", tty)
			}
		}
		refused(t, from.Shoal("exec", "web", "true"), "web has 2 running tasks", "web.1, web.2")
		refused(t, from.Shoal("exec", "web.9", "true"), "task web.9 not found")
		refused(t, from.Shoal("exec", "-it", "web.1", "true"), "the input device is not a TTY")
		refused(t, from.Shoal("exec", "web.1"), "'shoal exec' requires at least 2 arguments")
		if r := from.Shoal("exec", "web.1", "none-such"); r.Code != 126 && r.Code != 127 {
			t.Errorf("a command that does not exist: %+v", r)
		}
	}

	// One task needs no number; one that has ended is not taken for one that runs.
	testbed.Must(t, h.Shoal("service", "scale", "web=1"))
	contains(t, testbed.Must(t, other.Shoal("exec", "web", "echo", "one")), "one")
	testbed.Must(t, h.Shoal("service", "update", "-d", "--no-resolve-image", "--restart-condition", "none", "--args", "false", "web"))
	testbed.Eventually(t, patience, func() error {
		for _, line := range history(t, h, "web", "{{.CurrentState}}") {
			if strings.HasPrefix(line, "Failed") {
				return nil
			}
		}
		return errNotYet
	})
	refused(t, h.Shoal("exec", "web.1", "true"), "is not running: it is "+string(swarm.TaskStateFailed))

	// A worker says whom to ask.
	testbed.Must(t, h.Shoal("node", "demote", other.Name))
	testbed.Eventually(t, patience, func() error {
		if r := other.Shoal("exec", "web.1", "true"); r.Code == 0 || missing(r.Stderr, "Worker nodes can't be used") != "" {
			return fmt.Errorf("on a worker: %+v", r)
		}
		return nil
	})
}

package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// The canaries are what must not be found anywhere. Their length is a multiple of
// three, so that they look the same in base64 wherever data begins with them.
const (
	canary  = "canary-0f3e-of-a-secret-first!"
	canary2 = "canary-77aa-of-a-secret-other!"
)

// TestSecrets tells the story of secrets, configs and registry credentials on two
// hosts, the second of which is a mere worker.
func TestSecrets(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 2, testbed.WithFlags("--log-level", "debug"))
	m, w := bed.Host(0), bed.Host(1)
	testbed.Must(t, m.Shoal("swarm", "init", "--advertise-addr", m.IP.String()))
	token := strings.TrimSpace(testbed.Must(t, m.Shoal("swarm", "join-token", "-q", "worker")))
	testbed.Must(t, w.Shoal("swarm", "join", "--token", token, m.IP.String()+":2377"))
	testbed.Must(t, m.Shoal("node", "update", "--label-add", "rack=r7", nodeID(t, w)))

	for _, step := range []struct {
		name string
		test func(t *testing.T, bed *testbed.Bed, m, w *testbed.Host)
	}{
		{"Files", secretFiles},
		{"Templates", secretTemplates},
		{"Versions", secretVersions},
		{"Docker", secretsByDocker},
		{"Restarts", secretRestarts},
		{"Registry", registryLogins},
		{"Nowhere", secretsNowhere},
	} {
		t.Run(step.name, func(t *testing.T) { step.test(t, bed, m, w) })
	}
}

func nodeID(t *testing.T, h *testbed.Host) string {
	t.Helper()
	return strings.TrimSpace(testbed.Must(t, h.Docker("info", "--format", "{{.Swarm.NodeID}}")))
}

// pipe runs a command of shoal's with standard input.
func pipe(t *testing.T, h *testbed.Host, input string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(testbed.Must(t, h.RunInput(t.Context(), strings.NewReader(input), append([]string{h.ShoalBinary()}, args...)...)))
}

// onWorker are the flags of services here: all run on the worker.
func onWorker(more ...string) []string {
	return append([]string{"--constraint", "node.role==worker", "--stop-grace-period", "1s"}, more...)
}

// read runs a shell command in the one task of a service.
func read(t *testing.T, m, w *testbed.Host, service, command string) string {
	t.Helper()
	var out string
	testbed.Eventually(t, patience, func() error {
		for _, task := range tasks(t, m, service) {
			if task.Status.State == swarm.TaskStateRunning {
				r := w.EngineDocker("exec", containerOf(task), "sh", "-c", command)
				out = r.Stdout
				return r.Err()
			}
		}
		return fmt.Errorf("no task of %s runs", service)
	})
	return out
}

// reads waits until a command in the task of a service says something.
func reads(t *testing.T, m, w *testbed.Host, service, command, want string) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		if got := read(t, m, w, service, command); got != want {
			return fmt.Errorf("%s in %s: %q, want %q", command, service, got, want)
		}
		return nil
	})
}

// secretFiles: files with owner and mode, in memory, in a read-only container of
// a user that is not root.
func secretFiles(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	pipe(t, m, canary, "secret", "create", "key", "-")
	pipe(t, m, "conf 1\n", "config", "create", "conf", "-")
	large := strings.Repeat("0123456789abcde\n", 1000<<10/16)
	pipe(t, m, large[:1000<<10-1], "config", "create", "large", "-")
	create(t, m, onWorker("--name", "app", "--read-only", "--user", "1234:1235",
		"--secret", "source=key,target=k,uid=1234,gid=1235,mode=0400", "--secret", "key",
		"--config", "source=conf,target=/etc/app/conf.d/main", "--config", "large", testbed.WebV1)...)
	reads(t, m, w, "app", "cat /run/secrets/k; stat -c ' %u:%g %a' /run/secrets/k /run/secrets/key /etc/app/conf.d/main; cat /etc/app/conf.d/main; wc -c </large",
		canary+" 1234:1235 400\n 0:0 444\n 0:0 444\nconf 1\n1023999\n")
	mounts := read(t, m, w, "app", "grep ' /run/secrets/k ' /proc/mounts")
	contains(t, mounts, "tmpfs", " ro,")
	if r := m.Shoal("secret", "rm", "key"); r.Code == 0 || !strings.Contains(r.Stderr, "secret 'key' is in use by the following service: app") {
		t.Errorf("removal of what is in use: %+v", r)
	}
	testbed.Must(t, m.Shoal("service", "rm", "app"))
	testbed.Must(t, m.Shoal("config", "rm", "large", "conf"))
	testbed.Eventually(t, patience, func() error {
		if left := strings.TrimSpace(testbed.Must(t, w.Run(t.Context(), "sh", "-c", "ls /run/shoal/files-*"))); left != "" {
			return fmt.Errorf("files of tasks that are gone: %s", left)
		}
		return nil
	})
}

func secretTemplates(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	pipe(t, m, `{{.Service.Name}}.{{.Task.Slot}} {{.Node.Hostname}} {{index .Node.Labels "rack"}} {{index .Service.Labels "tier"}} {{env "MODE"}} {{secret "key"}}`,
		"config", "create", "--template-driver", "golang", "tmpl", "-")
	create(t, m, onWorker("--name", "tmpl", "--label", "tier=front", "--env", `MODE=rack-{{index .Node.Labels "rack"}}`,
		"--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "--secret", "key", "--config", "source=tmpl,target=/tmpl", testbed.WebV1)...)
	host := strings.TrimSpace(testbed.Must(t, m.Docker("node", "inspect", nodeID(t, w), "--format", "{{.Description.Hostname}}")))
	reads(t, m, w, "tmpl", "cat /tmpl; echo; hostname; echo $MODE",
		fmt.Sprintf("tmpl.1 %s r7 front rack-r7 %s\ntmpl-1\nrack-r7\n", host, canary))
	if r := m.RunInput(t.Context(), strings.NewReader("{{"+canary), m.ShoalBinary(), "secret", "create", "--template-driver", "golang", "bad", "-"); r.Code == 0 ||
		!strings.Contains(r.Stderr, "placeholder in line 1: it is malformed") || strings.Contains(r.Stderr, canary) {
		t.Errorf("a malformed template: %+v", r)
	}
	testbed.Must(t, m.Shoal("service", "rm", "tmpl"))
}

// secretVersions: a change of a secret rolls who uses it, and nobody else; a
// rollback brings the old one back.
func secretVersions(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	create(t, m, onWorker("--name", "user", "--secret", "key", testbed.WebV1)...)
	create(t, m, onWorker("--name", "other", testbed.WebV1)...)
	other := ids(t, m, "other")
	pipe(t, m, canary2, "secret", "update", "key", "-")
	reads(t, m, w, "user", "cat /run/secrets/key", canary2)
	contains(t, testbed.Must(t, m.Shoal("secret", "ls")), " key@1 ", " key ")
	testbed.Must(t, m.Shoal("service", "rollback", "user"))
	reads(t, m, w, "user", "cat /run/secrets/key", canary)
	if now := ids(t, m, "other"); fmt.Sprint(now) != fmt.Sprint(other) {
		t.Errorf("a service that does not use the secret was touched: %v, was %v", now, other)
	}
	testbed.Must(t, m.Shoal("service", "rm", "user", "other"))
	testbed.Eventually(t, patience, func() error {
		if list := testbed.Must(t, m.Shoal("secret", "ls", "--format", "{{.Name}}")); strings.Contains(list, "@") {
			return fmt.Errorf("old versions that nobody uses: %s", list)
		}
		return nil
	})
}

// secretsByDocker: the same through the stock client.
func secretsByDocker(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	docker := func(input string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(testbed.Must(t, m.RunInput(t.Context(), strings.NewReader(input), append([]string{"docker", "-H", "unix:///run/shoal.sock"}, args...)...)))
	}
	docker("one", "secret", "create", "--label", "a=b", "d1", "-")
	docker("two", "secret", "create", "d2", "-")
	docker("conf", "config", "create", "dc", "-")
	args := append([]string{"service", "create", "-d", "--no-resolve-image", "--name", "dock", "--secret", "d1", "--config", "source=dc,target=/dc"}, onWorker(testbed.WebV1)...)
	docker("", args...)
	reads(t, m, w, "dock", "cat /run/secrets/d1 /dc", "oneconf")
	docker("", "service", "update", "-d", "--no-resolve-image", "--secret-rm", "d1", "--secret-add", "source=d2,target=d1", "--config-rm", "dc", "dock")
	reads(t, m, w, "dock", "cat /run/secrets/d1; ls /dc 2>/dev/null || echo none", "twonone\n")
	docker("", "secret", "rm", "d1")
	if r := m.Docker("secret", "rm", "d2"); r.Code == 0 || !strings.Contains(r.Stderr, "secret 'd2' is in use by the following service: dock") {
		t.Errorf("%+v", r)
	}
	// Both say how long ago things were made, and one may ask a second later.
	testbed.Eventually(t, patience, func() error {
		for _, args := range [][]string{{"secret", "inspect", "--pretty", "d2"}, {"config", "inspect", "--pretty", "dc"}, {"secret", "ls"}} {
			if theirs, ours := docker("", args...), strings.TrimSpace(testbed.Must(t, m.Shoal(args...))); theirs != ours {
				return fmt.Errorf("%v: docker shows\n%s\nand shoal\n%s", args, theirs, ours)
			}
		}
		return nil
	})
	docker("", "service", "rm", "dock")
	docker("", "secret", "rm", "d2")
	docker("", "config", "rm", "dc")
}

// secretRestarts: daemons come and go, managers are away, the host is rebooted.
func secretRestarts(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	create(t, m, onWorker("--name", "keep", "--secret", "key", testbed.WebV1)...)
	before := tasks(t, m, "keep")[0]
	do(t, w.KillShoal)
	do(t, func(ctx context.Context) error { return w.StartShoal(ctx, "--log-level", "debug") })
	do(t, m.StopShoal)
	testbed.Eventually(t, patience, func() error {
		if log := strings.Join(logLines(t, w), "\n"); !strings.Contains(log, "session lost") {
			return errNotYet
		}
		return nil
	})
	crash(t, w, before)
	runs(t, w, before)
	if out := testbed.Must(t, w.EngineDocker("exec", containerOf(before), "cat", "/run/secrets/key")); out != canary2 {
		t.Errorf("after a restart without managers: %q", out)
	}
	do(t, func(ctx context.Context) error { return m.StartShoal(ctx, "--log-level", "debug") })
	testbed.Eventually(t, patience, func() error { return m.Shoal("service", "ls").Err() })
	testbed.Eventually(t, patience, running(t, m, "keep", 1))

	do(t, w.Crash)
	do(t, w.Boot)
	testbed.Eventually(t, patience, func() error {
		for _, task := range tasks(t, m, "keep") {
			if task.ID != before.ID && task.Status.State == swarm.TaskStateRunning {
				return nil
			}
		}
		return errNotYet
	})
	reads(t, m, w, "keep", "cat /run/secrets/key", canary2)
}

// registryUsers are lines of an htpasswd file: alice has the password one, then
// the password two.
const (
	aliceOne = "alice:$2y$05$rMSStI.3jPxLdB/Icl5exOA5cJa7pJGXHQx4eLO4BgyLalvMnL4wq"
	aliceTwo = "alice:$2y$05$dxHYH/Vi8XCYlspgWCuwteZn1Nnwvij7yLsG/RCVs64tG1f0pobYG"
)

// registryLogins: the cluster's credentials let every node pull, now and later;
// changing them touches no task; a registry that is down stops no redeploy.
func registryLogins(t *testing.T, bed *testbed.Bed, m, w *testbed.Host) {
	address, err := bed.StartRegistry(t.Context(), aliceOne)
	if err != nil {
		t.Fatal(err)
	}
	image := address + "/private:v1"
	if err := m.Push(t.Context(), testbed.WebV1, image, registry.AuthConfig{Username: "alice", Password: "one"}); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"service", "create", "-d", "--name", "private"}, onWorker(image)...)
	testbed.Must(t, m.Shoal(args...))
	says(t, m, "private", "Rejected", "No such image")
	if r := m.RunInput(t.Context(), strings.NewReader("wrong"), m.ShoalBinary(), "registry", "login", "-u", "alice", "--password-stdin", address); r.Code == 0 {
		t.Errorf("wrong credentials were kept: %+v", r)
	}
	pipe(t, m, "one", "registry", "login", "-u", "alice", "--password-stdin", address)
	testbed.Eventually(t, patience, running(t, m, "private", 1))
	testbed.Must(t, m.Shoal("service", "rm", "private"))

	testbed.Must(t, m.Shoal(append([]string{"service", "create", "-d", "--name", "pinned"}, onWorker(image)...)...))
	testbed.Eventually(t, patience, running(t, m, "pinned", 1))
	if img := service(t, m, "pinned").Spec.TaskTemplate.ContainerSpec.Image; !strings.HasPrefix(img, image+"@sha256:") {
		t.Errorf("the cluster's credentials did not help to find the digest: %s", img)
	}
	before := ids(t, m, "pinned")
	do(t, bed.StopRegistry)
	if _, err := bed.StartRegistry(t.Context(), aliceTwo); err != nil {
		t.Fatal(err)
	}
	pipe(t, m, "two", "registry", "login", "-u", "alice", "--password-stdin", address)
	contains(t, testbed.Must(t, m.Shoal("registry", "ls")), address, "alice")
	if now := ids(t, m, "pinned"); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("new credentials replaced tasks: %v, was %v", now, before)
	}
	do(t, bed.StopRegistry)
	testbed.Must(t, m.Shoal("service", "update", "-d", "--force", "pinned"))
	testbed.Eventually(t, patience, func() error {
		for id := range ids(t, m, "pinned") {
			if before[id] == "" {
				return running(t, m, "pinned", 1)()
			}
		}
		return errNotYet
	})
	testbed.Must(t, m.Shoal("registry", "logout", address))
	if r := m.Shoal("registry", "logout", address); r.Code == 0 {
		t.Error("logged out twice")
	}
}

// secretsNowhere looks for the canaries wherever they must not be: on the disks of
// both hosts, which hold logs, raft's files and the engine's; and in what the
// engine tells of containers. A task that uses a secret runs meanwhile.
func secretsNowhere(t *testing.T, _ *testbed.Bed, m, w *testbed.Host) {
	testbed.Eventually(t, patience, running(t, m, "keep", 1))
	for _, c := range []string{canary, canary2} {
		needles := []string{c, base64.StdEncoding.EncodeToString([]byte(c))}
		for _, h := range []*testbed.Host{m, w} {
			for _, file := range filesWith(t, h.Dir(), needles...) {
				t.Errorf("%s holds a secret", file)
			}
		}
		all := testbed.Must(t, w.Run(t.Context(), "sh", "-c", "docker -H unix:///run/docker.sock inspect $(docker -H unix:///run/docker.sock ps -aq)")) +
			testbed.Must(t, m.Docker("service", "inspect", "keep")) + testbed.Must(t, m.Docker("secret", "inspect", "key"))
		for _, n := range needles {
			if strings.Contains(all, n) {
				t.Error("an inspection shows a secret")
			}
		}
	}
	// Who looks must be able to find.
	if len(filesWith(t, filepath.Join(w.Dir(), "log"), "debug")) == 0 {
		t.Error("the search finds nothing that is there")
	}
}

// filesWith lists the files below a directory that hold one of the texts.
func filesWith(t *testing.T, dir string, texts ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what goes meanwhile
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, text := range texts {
			if strings.Contains(string(data), text) {
				found = append(found, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

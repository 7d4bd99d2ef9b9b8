package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// TestDocker uses the stock docker command on shoal's socket, in every version
// that this machine has: the cluster and the engine look like one daemon.
func TestDocker(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	for _, binary := range dockers(t) {
		version := strings.TrimSpace(h.Run(t.Context(), binary, "--version").Stdout)
		t.Run(version, func(t *testing.T) {
			d := docker{h, binary}
			d.services(t, outside)
			d.containers(t)
		})
	}
}

// dockers are the docker commands on this machine: the distribution's, and
// another one if somebody installed it.
func dockers(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"/usr/bin", "/usr/local/bin"} {
		file, err := filepath.EvalSymlinks(filepath.Join(dir, "docker"))
		if err == nil && !slices.Contains(found, file) {
			found = append(found, file)
		}
	}
	if len(found) == 0 {
		t.Fatal("no docker command on this machine")
	}
	return found
}

type docker struct {
	host   *testbed.Host
	binary string
}

func (d docker) try(args ...string) testbed.Result {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return d.host.Run(ctx, append([]string{d.binary, "-H", "unix:///run/shoal.sock"}, args...)...)
}

func (d docker) must(t *testing.T, args ...string) string {
	t.Helper()
	return testbed.Must(t, d.try(args...))
}

func (d docker) services(t *testing.T, outside *testbed.Host) {
	contains(t, d.must(t, "node", "ls"), "h1", "Ready", "Active", "Leader")
	contains(t, d.must(t, "node", "inspect", "self", "--pretty"), "Hostname:", "h1", "Reachable")
	contains(t, d.must(t, "info"), "Swarm: active", "Is Manager: true", "Managers: 1")
	contains(t, d.must(t, "version"), "Server:", "shoal:")

	out := d.must(t, "service", "create", "--name", "web", "--replicas", "2", "--publish", "8080:80",
		"--update-monitor", "300ms", "--no-resolve-image", testbed.WebV1)
	id, _, _ := strings.Cut(out, "\n")
	contains(t, out, "2/2", "onverged")
	if _, err := answers(outside, url(d.host, "8080"), 2); err != nil {
		t.Error(err)
	}
	contains(t, d.must(t, "service", "ls"), "web", "replicated", "2/2", "*:8080->80/tcp")
	contains(t, d.must(t, "service", "ps", "web"), "web.1", "web.2", "h1", "Running")
	if got := d.must(t, "service", "inspect", "web", "--format", "{{.ID}}"); got != id+"\n" {
		t.Errorf("inspect gave %q, create %q", got, id)
	}
	contains(t, d.must(t, "service", "scale", "web=3"), "web scaled to 3")
	d.must(t, "service", "update", "--image", testbed.WebV2, "--no-resolve-image", "web")
	if got, err := answers(outside, url(d.host, "8080"), 3); err != nil {
		t.Error(err)
	} else {
		for _, a := range got {
			if a.Version != "v2" {
				t.Errorf("after the update, %s answers", a.Version)
			}
		}
	}
	d.must(t, "service", "rollback", "-q", "web")
	contains(t, d.must(t, "service", "logs", "web"), "web.1.", "web.3.", "@h1", "listening on")
	contains(t, d.must(t, "service", "logs", "--tail", "1", strings.Fields(d.must(t, "service", "ps", "-q", "web"))[0]), "listening on")
	contains(t, d.must(t, "ps", "--format", "{{.Names}} {{.Image}}"), "web.1.", testbed.WebV1)
	contains(t, d.must(t, "node", "ps"), "web.1")

	refused(t, d.try("service", "create", "--no-resolve-image", "--name", "web", testbed.WebV1), "web already exists")
	refused(t, d.try("service", "inspect", "none"), "no such service: none")
	refused(t, d.try("swarm", "init"), "This node is already part of a swarm")
	refused(t, d.try("swarm", "leave"), "--force")
	if got := d.must(t, "service", "rm", "web"); got != "web\n" {
		t.Errorf("rm printed %q", got)
	}
	if got := d.must(t, "service", "ls", "-q"); got != "" {
		t.Errorf("service ls -q after rm: %q", got)
	}
}

// containers are the engine's own: everything about them passes through,
// streams in both directions as well.
func (d docker) containers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sock := []string{d.binary, "-H", "unix:///run/shoal.sock"}
	long := strings.Repeat("a line of text\n", 20000)
	r := d.host.RunInput(ctx, strings.NewReader(long), append(sock, "run", "-i", "--rm", testbed.WebV1, "cat")...)
	if err := r.Err(); err != nil || r.Stdout != long {
		t.Errorf("run with input: %d of %d bytes came back, %v", len(r.Stdout), len(long), err)
	}
	if r := d.try("run", "--rm", testbed.WebV1, "sh", "-c", "echo out; echo err >&2; exit 7"); r.Code != 7 || r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("run that fails: %+v", r)
	}
	d.must(t, "run", "-d", "--name", "box", "-p", "8090:80", testbed.WebV1)
	defer d.must(t, "rm", "-f", "box")
	r = d.host.RunInput(ctx, strings.NewReader("hello"), append(sock, "exec", "-i", "box", "sh", "-c", "cat; hostname >&2; exit 3")...)
	if r.Code != 3 || r.Stdout != "hello" || len(r.Stderr) < 12 {
		t.Errorf("exec: %+v", r)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must(t, "cp", file, "box:/tmp/copy")
	if got := d.must(t, "exec", "box", "cat", "/tmp/copy"); got != "content" {
		t.Errorf("cp brought %q", got)
	}
	contains(t, d.must(t, "logs", "box"), "listening on")
	if got := d.must(t, "inspect", "--format", "{{.State.Status}}", "box"); got != "running\n" {
		t.Errorf("inspect: %q", got)
	}
	contains(t, d.must(t, "images"), testbed.Web)
	d.must(t, "network", "inspect", "bridge")
	d.must(t, "volume", "ls")
	tty := d.host.Run(ctx, "script", "-qec", strings.Join(append(sock, "run", "--rm", "-it", testbed.WebV1, "tty"), " "), "/dev/null")
	if err := tty.Err(); err != nil || !strings.Contains(tty.Stdout, "/dev/pts/0") {
		t.Errorf("run on a terminal: %v", tty)
	}
}

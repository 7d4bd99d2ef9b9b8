//go:build linux

package httpapi

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// cli runs the stock docker command against a harness in front of a real engine.
type cli struct {
	*harness
}

// TestDocker uses one engine of its own for all, as each starts for seconds.
func TestDocker(t *testing.T) {
	engine := "unix://" + testbed.StartEngine(t).EngineSocket()
	t.Run("SwarmCommands", func(t *testing.T) { testSwarmCommands(t, &cli{newHarness(t, engine)}) })
	t.Run("EngineCommands", func(t *testing.T) { testEngineCommands(t, &cli{newHarness(t, engine)}) })
}

// with runs a command with this input and returns what it printed.
func (c *cli) with(input string, args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "docker", append([]string{"-H", "unix://" + c.socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+c.t.TempDir(), "DOCKER_HOST=")
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ok runs a command that has to succeed and to print all of want.
func (c *cli) ok(want []string, args ...string) string {
	c.t.Helper()
	start := time.Now()
	out, err := c.with("", args...)
	if err != nil {
		c.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			c.t.Fatalf("docker %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
	c.t.Logf("docker %s (%s)\n%s", strings.Join(args, " "), time.Since(start).Round(time.Millisecond), out)
	return out
}

// fails runs a command that has to fail with this text.
func (c *cli) fails(want string, args ...string) {
	c.t.Helper()
	out, err := c.with("", args...)
	if err == nil || !strings.Contains(out, want) {
		c.t.Fatalf("docker %s: want failure with %q, got %v\n%s", strings.Join(args, " "), want, err, out)
	}
}

func testSwarmCommands(t *testing.T, c *cli) {
	c.fails("This node is not a swarm manager.", "node", "ls")
	c.fails("This node is not a swarm manager.", "service", "ls")
	c.fails("This node is not part of a swarm", "swarm", "leave")
	c.ok([]string{"Swarm: inactive"}, "info")
	c.ok([]string{"is now a manager", "docker swarm join --token SWMTKN-1-digest-worker 10.9.9.1:2377"}, "swarm", "init")
	c.fails("This node is already part of a swarm.", "swarm", "init")
	c.fails("Removing the last manager erases all current state", "swarm", "leave")
	c.watchServices()

	c.ok([]string{"nodenodenodenodenodenoden *", "n1", "Ready", "Active", "Leader"}, "node", "ls")
	c.ok([]string{`"Hostname": "n1"`}, "node", "inspect", "self")
	c.ok([]string{"Hostname:"}, "node", "inspect", "--pretty", "n1")
	c.ok(nil, "node", "update", "--label-add", "zone=a", "n1")
	c.ok([]string{"nodenodenode"}, "node", "ls", "--filter", "node.label=zone=a")
	c.fails("attempting to demote the last manager of the swarm", "node", "demote", "n1")
	c.ok([]string{"Swarm: active", "Is Manager: true", "Managers: 1"}, "info")
	c.ok([]string{"API version:      1.50", "shoal:", "DataPlane:        nft", "GitCommit:        0123456", "BuildTime:        2026-01-02T03:04:05Z"}, "version")

	c.ok([]string{"verify: Service"}, "service", "create", "--no-resolve-image", "--name", "web", "--replicas", "3", "--update-monitor", "1ms", "-p", "8080:80", "busybox", "top")
	c.ok(nil, "service", "create", "-d", "--no-resolve-image", "--name", "api", "-p", "81", "busybox", "top")
	start := time.Now()
	c.ok([]string{"could not be accessed on a registry"}, "service", "create", "-d", "--name", "unresolved", "registry.invalid/a:1")
	if took := time.Since(start); took > distributionTime+10*time.Second {
		t.Errorf("create waited %s for a registry", took)
	}
	c.ok(nil, "service", "rm", "unresolved")
	c.ok([]string{"web", "3/3", "*:8080->80/tcp", "api", "1/1", "*:30000->81/tcp"}, "service", "ls")
	c.ok([]string{"web.1", "web.2", "web.3", "Running", "n1"}, "service", "ps", "web")
	c.ok([]string{"Image:		busybox:latest", "Max failure ratio"}, "service", "inspect", "--pretty", "web")
	c.ok([]string{`"Spec": {`, `"UpdateConfig"`}, "inspect", "web")
	c.ok([]string{"web scaled to 5"}, "service", "scale", "-d", "web=5")
	c.ok([]string{"web"}, "service", "update", "-q", "--env-add", "A=1", "--image", "busybox:new", "--no-resolve-image", "web")
	c.ok([]string{"5/5", "busybox:new"}, "service", "ls")
	c.ok([]string{"web"}, "service", "rollback", "-q", "-d", "web")
	c.ok([]string{"busybox:latest"}, "service", "ls")
	c.ok([]string{"web.1", "hello from", "oops from"}, "service", "logs", "web")
	c.ok([]string{"hello from", "2026-11-22T10:00:01.000000001Z"}, "service", "logs", "-t", "--raw", "--tail", "1", "api")
	c.fails("port '8080' is already in use by service 'web'", "service", "create", "-d", "--no-resolve-image", "-p", "8080:1", "busybox")
	c.fails("service web already exists", "service", "create", "-d", "--no-resolve-image", "--name", "web", "busybox")
	c.fails("No such object: nosuchthing", "inspect", "nosuchthing")
	c.ok(nil, "stack", "ls")
	c.ok(nil, "secret", "ls")
	c.ok(nil, "config", "ls")
	c.ok([]string{"web", "api"}, "service", "rm", "web", "api")
	c.fails("service web not found", "service", "rm", "web")
	c.ok([]string{"Node left the swarm."}, "swarm", "leave", "--force")
}

// watchServices starts the fake orchestrator on the cluster that a client made.
func (c *cli) watchServices() {
	ctx := c.t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		orchestrate(ctx, c.t, c.node.store)
	}()
	c.t.Cleanup(func() { <-done }) // the test's context ends before its clean-ups
}

func testEngineCommands(t *testing.T, c *cli) {
	image := c.importBusybox()
	const name = "shoal-api"
	c.ok([]string{image}, "images")
	if out, err := c.with("through stdin", "run", "-i", "--rm", "--network", "none", image, "/bin/busybox", "cat"); err != nil || out != "through stdin" {
		t.Fatalf("run -i: %q %v", out, err)
	}
	c.ok(nil, "run", "-d", "--network", "none", "--name", name, image, "/bin/busybox", "sleep", "600")
	c.ok([]string{name}, "ps")
	if out, err := c.with("data", "exec", "-i", name, "/bin/busybox", "cat"); err != nil || out != "data" {
		t.Fatalf("exec -i: %q %v", out, err)
	}
	if _, err := c.with("", "exec", name, "/bin/busybox", "sh", "-c", "exit 3"); err == nil || err.Error() != "exit status 3" {
		t.Fatalf("exec: want exit status 3, got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 3<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok(nil, "cp", file, name+":/copied")
	c.ok([]string{"3145728"}, "exec", name, "/bin/busybox", "wc", "-c", "/copied")
	c.ok([]string{name}, "inspect", name)
	c.ok([]string{"CPU %"}, "stats", "--no-stream", name)
	c.ok([]string{"TYPE"}, "system", "df")
	c.ok([]string{"container", "start"}, "events", "--since", "1m", "--until", "0s", "--filter", "container="+name)
	c.ok([]string{"to stdout"}, "run", "--rm", "--network", "none", "--name", name+"-log", image, "/bin/busybox", "echo", "to stdout")
	if out, err := c.with("FROM "+image+"\nLABEL a=b\n", "build", "-q", "-"); err != nil || !strings.Contains(out, "sha256:") {
		t.Fatalf("build: %v %s", err, out)
	} else {
		id := strings.TrimSpace(out[strings.Index(out, "sha256:"):])
		c.ok([]string{"a:b"}, "image", "inspect", "--format", "{{.Config.Labels}}", id)
		c.ok(nil, "rmi", id)
	}
	if out, err := c.with("", "kill", name); err != nil {
		t.Fatalf("kill: %v %s", err, out)
	}
	c.ok([]string{"137"}, "wait", name)
}

// importBusybox makes a tiny image without a registry.
func (c *cli) importBusybox() string {
	c.t.Helper()
	binary, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		c.t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{{"bin/busybox", 0o755, binary}, {"etc/passwd", 0o644, []byte("root:x:0:0::/:/bin/busybox\n")}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			c.t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		c.t.Fatal(err)
	}
	const image = "shoal-api-test"
	if out, err := c.with(b.String(), "import", "-", image); err != nil {
		c.t.Fatalf("import: %v %s", err, out)
	}
	return image
}

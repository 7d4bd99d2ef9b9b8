package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// stackFile has one of everything. The stock docker command, which knows
// version 3 only, is given its short form of depends_on.
const stackFile = `
version: "3.8"
x-web: &web
  image: ` + testbed.WebV1 + `
  stop_grace_period: 1s
x-quick: &quick {monitor: 300ms}
services:
  db:
    <<: *web
    secrets: [password]
    networks: [back]
    environment: {HEALTHY_AFTER: 1s}
    healthcheck: {test: [CMD, webapp, healthcheck], interval: 200ms, retries: 50}
    deploy:
      placement: {constraints: [node.role == manager]}
      update_config: *quick
  front:
    <<: *web
    DEPENDS
    networks: [back, default]
    ports: ["8080:80"]
    configs: [{source: motd, target: /etc/motd}]
    deploy:
      replicas: 2
      update_config: {<<: *quick, order: start-first}
  agent:
    <<: *web
    configs: [{source: settings, target: /etc/settings}]
    deploy: {mode: global, update_config: *quick}
networks:
  back:
secrets:
  password: {file: ./password}
configs:
  motd: {file: ./motd}
  settings: {file: ./settings}
`

// TestStack deploys a stack on two hosts, with shoal and with the stock docker
// command, again and again: only what has changed is ever touched.
func TestStack(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 2)
	m, w := bed.Host(0), bed.Host(1)
	testbed.Must(t, m.Shoal("swarm", "init", "--advertise-addr", m.IP.String()))
	token := strings.TrimSpace(testbed.Must(t, m.Shoal("swarm", "join-token", "-q", "worker")))
	testbed.Must(t, w.Shoal("swarm", "join", "--token", token, m.IP.String()+":2377"))

	s := stack{dir: t.TempDir(), m: m}
	s.write(t, "stack.yml", strings.Replace(stackFile, "DEPENDS", "depends_on: {db: {condition: service_healthy}}", 1))
	s.write(t, "docker.yml", strings.Replace(stackFile, "DEPENDS", "depends_on: [db]", 1))
	s.write(t, "password", "s3cret")
	s.write(t, "settings", "a=b")
	s.write(t, "motd", "first")

	out := s.deploy(t, 0, "stack.yml", "app")
	contains(t, out, "Creating network app_back", "Creating secret app_password", "Creating config app_motd",
		"Service app_front waits for app_db: service_healthy")
	if healthy, created := strings.Index(out, "app_db     1 out of 1"), strings.Index(out, "Creating service app_front"); healthy < 0 || created < healthy {
		t.Errorf("app_front did not wait for app_db:\n%s", out)
	}
	if _, err := answers(bed.Client(), url(w, "8080"), 2); err != nil {
		t.Error(err)
	}
	contains(t, testbed.Must(t, m.Shoal("exec", "app_front.1", "webapp", "get", "http://db/")), `"path":"/"`)
	for task, says := range map[string]string{"app_db.1 cat /run/secrets/password": "s3cret", "app_front.2 cat /etc/motd": "first"} {
		if got := testbed.Must(t, m.Shoal(append([]string{"exec"}, strings.Fields(task)...)...)); got != says {
			t.Errorf("%s: %q", task, got)
		}
	}
	contains(t, testbed.Must(t, m.Shoal("stack", "services", "app")), "app_agent", "2/2", "app_db", "1/1", "app_front", "*:8080->80/tcp")
	contains(t, testbed.Must(t, m.Shoal("stack", "ps", "app")), "app_front.1", "app_front.2", "app_db.1", "h1", "h2")
	contains(t, testbed.Must(t, m.Docker("stack", "ls")), "app", "3")

	t.Run("Again", func(t *testing.T) {
		before := s.tasks(t)
		contains(t, s.deploy(t, 0, "stack.yml", "app"), "app_db", "nothing to change")
		testbed.Must(t, m.Docker("stack", "deploy", "--resolve-image", "never", "-c", filepath.Join(s.dir, "docker.yml"), "app"))
		if after := s.tasks(t); !maps.Equal(before, after) {
			t.Errorf("the same file replaced tasks:\n%v\n%v", before, after)
		}
	})
	t.Run("Changed", func(t *testing.T) {
		before := s.tasks(t)
		s.write(t, "motd", "second")
		contains(t, testbed.Must(t, m.Shoal("stack", "plan", "--resolve-image", "never", "-c", filepath.Join(s.dir, "stack.yml"), "app")),
			"config app_motd: tasks are replaced", "replace 1, remove 0; 7 unchanged")
		index := strings.TrimSpace(testbed.Must(t, m.Shoal("stack", "plan", "--resolve-image", "never", "--format", "{{.Index}}", "-c", filepath.Join(s.dir, "stack.yml"), "app")))
		contains(t, s.deploy(t, 0, "stack.yml", "app", "--if-index", index), "Updating config app_motd to version 2")
		contains(t, s.deploy(t, 1, "stack.yml", "app", "--if-index", index), "the cluster has moved on")
		after := s.tasks(t)
		for name, id := range before {
			if front := strings.HasPrefix(name, "app_front."); front == (after[name] == id) {
				t.Errorf("%s was %s and is %s", name, id, after[name])
			}
		}
		if got := testbed.Must(t, m.Shoal("exec", "app_front.1", "cat", "/etc/motd")); got != "second" {
			t.Errorf("the config that was changed says %q", got)
		}
	})
	t.Run("ByDocker", func(t *testing.T) { // whose own manager refuses it
		before := s.tasks(t)
		s.write(t, "password", "changed")
		contains(t, testbed.Must(t, m.Shoal("stack", "plan", "--resolve-image", "never", "-c", filepath.Join(s.dir, "stack.yml"), "app")),
			"secret app_password: tasks are replaced", "what it holds is new, for app_db")
		testbed.Must(t, m.Docker("stack", "deploy", "--resolve-image", "never", "-c", filepath.Join(s.dir, "docker.yml"), "app"))
		testbed.Eventually(t, patience, func() error {
			if r := m.Shoal("exec", "app_db.1", "cat", "/run/secrets/password"); r.Stdout != "changed" {
				return fmt.Errorf("%q, %w", r.Stdout, r.Err())
			}
			return nil
		})
		after := s.tasks(t)
		for name, id := range before {
			if db := strings.HasPrefix(name, "app_db."); db == (after[name] == id) {
				t.Errorf("%s was %s and is %s", name, id, after[name])
			}
		}
	})
	t.Run("Codes", func(t *testing.T) { s.codes(t) })

	testbed.Must(t, m.Shoal("stack", "rm", "--detach=false", "app", "failing", "nowhere", "late"))
	for _, kind := range []string{"stack", "service", "secret", "config"} {
		if left := lines(testbed.Must(t, m.Shoal(kind, "ls", "--format", "{{.Name}}"))); len(left) > 0 {
			t.Errorf("%s ls after rm: %q", kind, left)
		}
	}
	if left := lines(testbed.Must(t, m.Shoal("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}"))); len(left) != 1 {
		t.Errorf("networks after rm: %q, want only ingress", left)
	}
}

// stack is a folder of files to deploy from a host.
type stack struct {
	dir string
	m   *testbed.Host
}

func (s stack) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// deploy fails unless the command ends with the code. It returns all output.
func (s stack) deploy(t *testing.T, code int, file, name string, more ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	args := append([]string{s.m.ShoalBinary(), "stack", "deploy", "--resolve-image", "never", "-c", filepath.Join(s.dir, file)}, more...)
	r := s.m.Run(ctx, append(args, name)...)
	if r.Code != code {
		t.Fatalf("stack deploy ended with %d, want %d:\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	return r.Stdout + r.Stderr
}

// tasks are the IDs of those that should run, by name.
func (s stack) tasks(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, line := range lines(testbed.Must(t, s.m.Shoal("stack", "ps", "--no-trunc", "--filter", "desired-state=running",
		"--format", "{{.Name}} {{.ID}}", "app"))) {
		name, id, _ := strings.Cut(line, " ")
		out[name] = id
	}
	return out
}

// codes: what stack deploy exits with tells what became of it, and why.
func (s stack) codes(t *testing.T) {
	service := func(more string) string {
		return fmt.Sprintf("services:\n  it:\n    image: %s\n    stop_grace_period: 0s\n%s", testbed.WebV1, more)
	}
	s.write(t, "failing.yml", service(`
    command: [sh, -c, "echo why it fails; exit 3"]
    deploy: {restart_policy: {condition: none}}
`))
	contains(t, s.deploy(t, 1, "failing.yml", "failing"), "failing_it.1", "non-zero exit (3)", "| why it fails")

	s.write(t, "nowhere.yml", service(`
    deploy: {placement: {constraints: [node.labels.gpu == yes]}}
`))
	contains(t, s.deploy(t, 3, "nowhere.yml", "nowhere", "--timeout", "2s"), "nowhere_it.1 is pending: no suitable node", "node.labels.gpu==yes not satisfied on 2 nodes")

	s.write(t, "late.yml", service(`
    healthcheck: {test: [CMD, "false"], interval: 60s, start_period: 600s}
  after:
    image: `+testbed.WebV1+`
    depends_on: {it: {condition: service_healthy}}
`))
	contains(t, s.deploy(t, 4, "late.yml", "late", "--timeout", "2s"), "late_it: not converged after 2s", "not created or updated", "late_after")
}

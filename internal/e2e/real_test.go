package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/internal/testbed"
)

// TestRealSoftware deploys stacks of nginx, redis and postgres on two hosts, and
// has their own clients use them: through published ports from outside, and
// between the hosts from tasks.
func TestRealSoftware(t *testing.T) {
	t.Parallel()
	debian, err := testbed.MakeDebian(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bed := testbed.Start(t, 2, testbed.WithoutImages())
	group, ctx := errgroup.WithContext(t.Context())
	for _, h := range bed.Hosts() {
		group.Go(func() error { return debian.Import(ctx, h) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	m, w := bed.Host(0), bed.Host(1)
	testbed.Must(t, m.Shoal("swarm", "init"))
	join(t, m, w, "worker")
	testbed.Must(t, m.Shoal("node", "update", "--label-add", "disk=ssd", w.Name))

	r := real{stack: stack{dir: t.TempDir(), m: m}, bed: bed, debian: debian}
	files, err := filepath.Glob("testdata/real/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.write(t, filepath.Base(file), string(text))
	}
	r.write(t, "password", password)
	t.Run("Web", r.web)
	t.Run("Cache", r.cache)
	t.Run("Database", r.database)
}

const password = "correct horse"

// real is a bed on which real software runs.
type real struct {
	stack
	bed    *testbed.Bed
	debian testbed.Debian
}

// outside runs a client on a machine that is in no swarm.
func (r real) outside(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return testbed.Must(t, r.bed.Client().Run(ctx, r.debian.Command(argv...)...))
}

// output is what a job wrote.
func (r real) output(t *testing.T, service string) string {
	t.Helper()
	return testbed.Must(t, r.m.Shoal("service", "logs", "--raw", service))
}

// rate is the first number that the pattern finds, which has to be above 0.
func rate(t *testing.T, what, text, pattern string) {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		t.Errorf("%s: %q is not in:\n%s", what, pattern, text)
		return
	}
	if n, err := strconv.ParseFloat(found[1], 64); err != nil || n <= 0 {
		t.Errorf("%s: %s, %v", what, found[1], err)
	}
	t.Logf("%s: %s a second", what, found[1])
}

// web is deployed by the stock client, that of a page's next version included. All
// the while wrk asks, and no request fails.
func (r real) web(t *testing.T) {
	deploy := func(version string) {
		t.Helper()
		r.write(t, "page.html", version+" {{.Task.Name}}\n")
		testbed.Must(t, r.m.Docker("stack", "deploy", "--resolve-image", "never", "-c", filepath.Join(r.dir, "web.yml"), "web"))
		for service, n := range map[string]int{"web_proxy": 2, "web_pages": 3} {
			testbed.Eventually(t, patience, running(t, r.m, service, n))
		}
	}
	// pages are those that answer, by version.
	pages := func(h *testbed.Host) map[string][]string {
		t.Helper()
		seen := map[string][]string{}
		args := []string{"curl", "-fsS"}
		for range 30 {
			args = append(args, url(h, "8080"))
		}
		for _, line := range lines(r.outside(t, args...)) {
			version, task, _ := strings.Cut(line, " ")
			if !slices.Contains(seen[version], task) {
				seen[version] = append(seen[version], task)
			}
		}
		return seen
	}
	deploy("first")
	for _, h := range r.bed.Hosts() {
		testbed.Eventually(t, patience, func() error {
			if got := pages(h); len(got) != 1 || len(got["first"]) != 3 {
				return fmt.Errorf("by %s: %v", h.Name, got)
			}
			return nil
		})
		// The address that the proxy saw, which the page's server was told.
		headers := r.outside(t, "curl", "-fsS", "-D", "-", "-o", "/dev/null", url(h, "8080"))
		contains(t, headers, "X-Caller: "+r.bed.Client().IP.String())
	}

	before := r.tasksOf(t, "web_proxy")
	asked := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		res := r.bed.Client().Run(ctx, r.debian.Command("wrk", "--timeout", "60s", "-t", "1", "-c", "8", "-d", "10s", url(r.m, "8080"))...)
		asked <- res.Stdout + res.Stderr
	}()
	deploy("second")
	testbed.Eventually(t, patience, func() error {
		if got := pages(r.bed.Host(1)); len(got) != 1 || len(got["second"]) != 3 {
			return fmt.Errorf("after the update: %v", got)
		}
		return nil
	})
	out := <-asked
	rate(t, "nginx behind nginx, while it is updated", out, `Requests/sec:\s+([\d.]+)`)
	for _, bad := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(out, bad) {
			t.Errorf("requests failed:\n%s", out)
		}
	}
	if after := r.tasksOf(t, "web_proxy"); !maps.Equal(before, after) {
		t.Errorf("the proxy uses no page, and was replaced: %v, %v", before, after)
	}
	if listed := testbed.Must(t, r.m.Docker("config", "ls", "--format", "{{.Name}}")); strings.Contains(listed, "@") {
		t.Errorf("docker, which would remove each of them, is shown old versions: %s", listed)
	}
	testbed.Must(t, r.m.Docker("stack", "rm", "web"))
}

func (r real) tasksOf(t *testing.T, service string) map[string]string { return ids(t, r.m, service) }

// cache: redis keeps what it was given through a change of its password, which is a
// new version of a secret.
func (r real) cache(t *testing.T) {
	r.deploy(t, 0, "cache.yml", "cache")
	for _, op := range []string{"SET", "GET", "INCR"} {
		rate(t, "redis between hosts, "+op, r.output(t, "cache_bench"), `"`+op+`","([\d.]+)"`)
	}
	cli := func(pass string, args ...string) string {
		t.Helper()
		return r.outside(t, append([]string{"redis-cli", "-h", r.m.IP.String(), "--no-auth-warning", "-a", pass}, args...)...)
	}
	out := r.outside(t, "redis-benchmark", "-h", r.m.IP.String(), "-a", password, "-t", "set", "-n", "10000", "-c", "10", "--csv")
	rate(t, "redis through a published port", out, `"SET","([\d.]+)"`)
	if got := cli(password, "set", "kept", "yes"); got != "OK\n" {
		t.Fatalf("set: %q", got)
	}

	r.write(t, "password", "another")
	defer r.write(t, "password", password)
	contains(t, r.deploy(t, 0, "cache.yml", "cache"), "Updating secret cache_password to version 2")
	if got := cli("another", "get", "kept"); got != "yes\n" {
		t.Errorf("after the password changed: %q", got)
	}
	contains(t, cli(password, "get", "kept"), "NOAUTH")
	testbed.Must(t, r.m.Shoal("stack", "rm", "cache"))
}

// database: pgbench makes its tables, and then uses them, from the other host. What
// is written is there when postgres has been replaced.
func (r real) database(t *testing.T) {
	out := r.deploy(t, 0, "database.yml", "db")
	contains(t, out, "Service db_schema waits for db_database: service_healthy", "Service db_load waits for db_schema: service_completed_successfully")
	load := r.output(t, "db_load")
	rate(t, "postgres between hosts, transactions", load, `tps = ([\d.]+)`)
	contains(t, load, "number of failed transactions: 0 ")

	sql := func(statement string) string {
		t.Helper()
		args := r.debian.Command("psql", "-h", r.m.IP.String(), "-U", "postgres", "-Atc", statement)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return strings.TrimSpace(testbed.Must(t, r.bed.Client().Run(ctx, append([]string{"env", "PGPASSWORD=" + password}, args...)...)))
	}
	written := sql("select count(*) from pgbench_history")
	if n, err := strconv.Atoi(written); err != nil || n == 0 {
		t.Fatalf("%q transactions left a trace", written)
	}
	if got := sql("show max_connections"); got != "50" {
		t.Errorf("max_connections: %s", got)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	testbed.Must(t, r.m.Run(ctx, "env", "MAX_CONNECTIONS=30", r.m.ShoalBinary(), "stack", "deploy", "--resolve-image", "never",
		"-c", filepath.Join(r.dir, "database.yml"), "db"))
	t.Logf("another configuration, and running again: %s", time.Since(began).Round(10*time.Millisecond))
	if got := sql("show max_connections"); got != "30" {
		t.Errorf("max_connections after the change: %s", got)
	}
	if got := sql("select count(*) from pgbench_history"); got != written {
		t.Errorf("%s transactions before, %s after", written, got)
	}
	testbed.Must(t, r.m.Shoal("stack", "rm", "db"))
}

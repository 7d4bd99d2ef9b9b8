package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// TestLook asks for everything that can be looked at, in the forms that scripts
// rely on.
func TestLook(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	create(t, h, "--name", "web", "--replicas", "2", "--publish", "8080:80", "--label", "tier=front", testbed.WebV1)
	create(t, h, "--name", "worker", testbed.WebV2)
	web := service(t, h, "web")
	all := tasks(t, h, "web")
	slices.SortFunc(all, func(a, b swarm.Task) int { return a.Slot - b.Slot })
	self := all[0].NodeID

	for _, c := range []struct {
		args string
		want string // exactly; "" for words
		has  []string
	}{
		{"service ls", "", []string{"ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS", "replicated   2/2", "*:8080->80/tcp"}},
		{"service ls -q --filter name=web", web.ID[:12] + "\n", nil},
		{"service ls --filter label=tier=front --format {{.Name}}", "web\n", nil},
		{"service ls --filter label=tier=back --format {{.Name}}", "", nil},
		{"service ls --filter mode=replicated --format {{.Name}}={{.Replicas}}", "web=2/2\nworker=1/1\n", nil},
		{"service ls --format json --filter name=worker", "", []string{`"Name":"worker"`, `"Replicas":"1/1"`}},
		{"service ps web", "", []string{"ID", "DESIRED STATE", "CURRENT STATE", "web.1", "web.2", "h1", "Running"}},
		{"service ps -q --no-trunc web", all[0].ID + "\n" + all[1].ID + "\n", nil},
		{"service ps --filter name=web.2 --format {{.Name}}:{{.DesiredState}} web", "web.2:Running\n", nil},
		{"service ps --filter desired-state=shutdown -q web", "", nil},
		{"service ps --no-trunc --format {{.Name}} web", "", []string{"web.1", "web.2"}},
		{"service ps --no-resolve --format {{.Node}} worker", self + "\n", nil},
		{"service inspect --format {{.Spec.Name}} " + web.ID[:5], "web\n", nil},
		{"service inspect --pretty web", "", []string{"Name:\t\tweb", "Replicas:\t2", "PublishedPort = 8080", "tier=front"}},
		{"node ls", "", []string{"HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION", self + " *", "Ready", "Active", "Leader"}},
		{"node ls -q", self + "\n", nil},
		{"node ls --filter role=worker -q", "", nil},
		{"node ls --format {{.Hostname}}", "h1\n", nil},
		{"node inspect self --format {{.Status.Addr}}", h.IP.String() + "\n", nil},
		{"node inspect h1 --pretty", "", []string{"Hostname:", "h1", "Leader:\t\tYes"}},
		{"node ps --format {{.Name}}", "web.1\nweb.2\nworker.1\n", nil},
		{"info --format {{.Swarm.LocalNodeState}}", "active\n", nil},
		{"info", "", []string{"Swarm: active", "Is Manager: true", h.IP.String() + ":2377", "Data Plane: nft"}},
		{"version", "", []string{"Client:", "Server:", "shoal:", "DataPlane:", "nft"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			out := testbed.Must(t, h.Shoal(strings.Fields(c.args)...))
			if len(c.has) == 0 && sorted(out) != sorted(c.want) {
				t.Errorf("printed %q, want %q", out, c.want)
			}
			contains(t, out, c.has...)
		})
	}
	var whole []swarm.Service
	if err := json.Unmarshal([]byte(testbed.Must(t, h.Shoal("service", "inspect", "web", "worker"))), &whole); err != nil || len(whole) != 2 {
		t.Errorf("inspect of two gave %d, %v", len(whole), err)
	}

	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"service inspect none", 1, "no such service: none"},
		{"service rm none", 1, "none"},
		{"service ps none", 1, "no such service: none"},
		{"service update none", 1, "none"},
		{"service logs none", 1, "no such task or service: none"},
		{"service create --no-resolve-image --name web " + testbed.WebV1, 1, "web already exists"},
		{"service create --no-resolve-image --name bad/name " + testbed.WebV1, 1, "name must be valid as a DNS name component"},
		{"service ls --filter nothing=x", 1, "invalid filter 'nothing'"},
		{"service ls --format {{.Nothing}}", 1, "Nothing"},
		{"service inspect --format {{ web", 1, "template"},
		{"service", 0, ""},
		{"service nothing", 1, "unknown command"},
		{"service create", 1, "requires at least 1 argument"},
		{"service ls --nothing", 125, "unknown flag: --nothing"},
		{"node inspect none", 1, "none"},
		{"-H unix:///run/none.sock service ls", 1, "/run/none.sock"},
	} {
		r := h.Shoal(strings.Fields(c.args)...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s: exit code %d, want %d; said %q, want %q", c.args, r.Code, c.code, r.Stderr, c.says)
		}
	}
	// Several at once: what can be done is done, and the failure is told.
	r := h.Shoal("service", "rm", "none", "worker")
	if r.Code != 1 || r.Stdout != "worker\n" || !strings.Contains(r.Stderr, "none") {
		t.Errorf("rm of one that is not there and one that is: %+v", r)
	}
}

func sorted(text string) string {
	all := lines(text)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// TestLogs reads what several tasks print: all of it, its end, and what is yet
// to come.
func TestLogs(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	const say = `n=0; while true; do n=$((n+1)); echo "line $n"; echo "error $n" >&2; sleep 0.2; done`
	create(t, h, "--name", "talk", "--replicas", "2", testbed.WebV1, "sh", "-c", say)
	all := tasks(t, h, "talk")
	name := func(task swarm.Task) string { return fmt.Sprintf("talk.%d.%s@h1", task.Slot, task.ID[:12]) }
	testbed.Eventually(t, patience, func() error {
		r := h.Shoal("service", "logs", "talk")
		if err := r.Err(); err != nil {
			return err
		}
		for _, task := range all {
			if !slices.ContainsFunc(lines(r.Stdout), func(l string) bool { return strings.HasPrefix(l, name(task)) && strings.HasSuffix(l, "| line 3") }) {
				return fmt.Errorf("no line 3 of %s:\n%s", name(task), r.Stdout)
			}
			if !slices.ContainsFunc(lines(r.Stderr), func(l string) bool { return strings.HasPrefix(l, name(task)) && strings.HasSuffix(l, "| error 3") }) {
				return fmt.Errorf("no error 3 of %s:\n%s", name(task), r.Stderr)
			}
		}
		return nil
	})
	if out := lines(testbed.Must(t, h.Shoal("service", "logs", "--tail", "2", "--raw", all[0].ID))); len(out) == 0 || len(out) > 2 {
		t.Errorf("the last two lines of a task: %q", out)
	}
	// Two lines of each task, on both streams together.
	r := h.Shoal("service", "logs", "-n", "2", "talk")
	testbed.Must(t, r)
	if n := len(lines(r.Stdout + r.Stderr)); n != 4 {
		t.Errorf("the last two lines of two tasks are %d:\n%s%s", n, r.Stdout, r.Stderr)
	}

	// Following shows what comes, of tasks that come later as well, and ends
	// with the service.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	follow := h.Command(ctx, "shoal", "service", "logs", "-f", "--tail", "0", "talk")
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.StartOn(follow); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			seen <- s.Text()
		}
	}()
	await := func(prefix string) {
		t.Helper()
		for {
			select {
			case line, ok := <-seen:
				if !ok {
					t.Fatalf("following ended before a line of %s", prefix)
				}
				if strings.HasPrefix(line, prefix) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no line of %s", prefix)
			}
		}
	}
	await("talk.1.")
	await("talk.2.")
	testbed.Must(t, h.Shoal("service", "scale", "talk=3"))
	await("talk.3.")
	testbed.Must(t, h.Shoal("service", "rm", "talk"))
	for range seen {
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("following a service that ends: %v", err)
	}
	if ctx.Err() != nil {
		t.Error("following did not end with the service")
	}
}

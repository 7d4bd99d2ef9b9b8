package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

// flagRow is one flag of service create or update: how it is set, and where it
// shows. flags_table_test.go has one for each flag that there is.
type flagRow struct {
	flag   string
	values []string // each is one use of the flag; none for a switch, or one that is set to false
	spec   string   // a path in the service, " = ", and what is there, in JSON
	box    string   // the same in the container, as its engine inspects it
	run    string   // a command within the container,
	says   string   // and a part of what it prints
}

func (r flagRow) args() []string {
	if len(r.values) == 0 {
		return []string{"--" + r.flag}
	}
	var args []string
	for _, v := range r.values {
		args = append(args, "--"+r.flag, v)
	}
	return args
}

func argsOf(rows []flagRow) (args []string) {
	for _, r := range rows {
		args = append(args, r.args()...)
	}
	return args
}

// way is one way to ask for a service: a command line, and the cluster and
// the engine behind it.
type way struct {
	name   string
	ask    func(args ...string) testbed.Result
	api    *client.Client // of the cluster
	engine *client.Client
}

// ways are shoal through its own command line, shoal through the stock one,
// and Docker Swarm: the same words must lead to the same service and to the same
// container everywhere.
func ways(t *testing.T, h, peer *testbed.Host) []way {
	t.Helper()
	open := func(f func() (*client.Client, error)) *client.Client {
		c, err := f()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ours, engine, swarm := open(h.API), open(h.Engine), open(peer.Engine)
	return []way{
		{"shoal", h.Shoal, ours, engine},
		{"stock", h.Docker, ours, engine},
		{"swarm", peer.EngineDocker, swarm, swarm},
	}
}

// flagBed is a bed with a cluster of shoal on the first host and one of Docker
// Swarm on the second.
func flagBed(t *testing.T) (h, peer *testbed.Host) {
	t.Helper()
	bed := testbed.Start(t, 2)
	h, peer = bed.Host(0), bed.Host(1)
	for _, h := range bed.Hosts() {
		offerSeats(t, h)
	}
	testbed.Must(t, h.Shoal("swarm", "init"))
	if err := peer.StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, peer.EngineDocker("swarm", "init", "--advertise-addr", peer.IP.String()))
	return h, peer
}

// offerSeats has an engine offer a resource that no rule of the engine's knows.
func offerSeats(t *testing.T, h *testbed.Host) {
	t.Helper()
	name := filepath.Join(h.Dir(), "etc/docker/daemon.json")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	config["node-generic-resources"] = []string{"seats=16"}
	if raw, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	do(t, h.StopEngine)
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, h.StartEngine)
}

// check holds what is seen against the rows.
func (c way) check(t *testing.T, s seen, rows []flagRow) {
	said := c.inside(t, s.id, rows)
	for i, r := range rows {
		t.Run(c.name+"/"+r.flag, func(t *testing.T) {
			at(t, "service", s.spec, r.spec)
			at(t, "container", s.box, r.box)
			if !strings.Contains(said[i], r.says) {
				t.Errorf("%s within the container says %q, want %q", r.run, said[i], r.says)
			}
		})
	}
}

// inside runs the rows' commands within a container, in one go.
func (c way) inside(t *testing.T, id string, rows []flagRow) []string {
	t.Helper()
	var script strings.Builder
	for _, r := range rows {
		script.WriteString(r.run + "\necho '----'\n")
	}
	ctx := t.Context()
	made, err := c.engine.ContainerExecCreate(ctx, id, container.ExecOptions{
		AttachStdout: true, Tty: true, Cmd: []string{"busybox", "sh", "-c", script.String()},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.engine.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var out strings.Builder
	if _, err := conn.Reader.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(out.String(), "----\r\n")
	if len(parts) != len(rows)+1 {
		t.Fatalf("%s: the commands within the container printed %q", c.name, out.String())
	}
	return parts
}

// each does something with all clusters at once.
func each[T any](t *testing.T, all []way, do func(c way) T) []T {
	t.Helper()
	out := make([]T, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() { out[i] = do(c) })
	}
	wg.Wait()
	return out
}

// suffix tells apart the services of two command lines in one cluster.
func suffix(c way) string {
	if c.name == "shoal" {
		return "-s"
	}
	return ""
}

// TestEveryFlag: every flag of service create and service update, set with shoal's
// command line and with the stock one, arrives in the container, and is given
// back as Docker Swarm gives it back.
func TestEveryFlag(t *testing.T) {
	compared(t)
	t.Parallel()
	h, peer := flagBed(t)
	all := ways(t, h, peer)
	flagObjects(t, h, peer)
	t.Run("every flag has a row", func(t *testing.T) { everyFlag(t, h) })
	for _, g := range flagGroups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			g.test(t, all)
		})
	}
	t.Run("unplaced", func(t *testing.T) {
		t.Parallel()
		for i, u := range unplaced {
			args := append(strings.Fields("service create -d --no-resolve-image --name nowhere"+strconv.Itoa(i)), strings.Fields(u.flags)...)
			testbed.Must(t, all[i%2].ask(append(args, testbed.WebV1)...))
		}
		for i, u := range unplaced {
			testbed.Eventually(t, patience, func() error {
				got := history(t, h, "nowhere"+strconv.Itoa(i), "{{.CurrentState}} {{.Error}}")
				if all := strings.Join(got, "\n"); missing(all, "Pending", u.says) != "" {
					return fmt.Errorf("%s: %s", u.flags, all)
				}
				return nil
			})
		}
	})
	t.Run("unsupported", func(t *testing.T) {
		t.Parallel()
		for _, u := range unsupported {
			args := append(strings.Fields("service create -d --no-resolve-image --name never"), strings.Fields(u.flags)...)
			for _, c := range all[:2] {
				refused(t, c.ask(append(args, testbed.WebV1)...), u.says)
			}
		}
	})
}

// TestQuiet: with --quiet the commands wait and print what scripts read alone.
func TestQuiet(t *testing.T) {
	t.Parallel()
	h, _ := node(t)
	for _, c := range []way{{name: "shoal", ask: h.Shoal}, {name: "stock", ask: h.Docker}} {
		out := testbed.Must(t, c.ask("service", "create", "--quiet", "--update-monitor", "300ms", "--no-resolve-image", "--name", c.name, testbed.WebV1))
		if id := service(t, h, c.name).ID; out != id+"\n" {
			t.Errorf("create --quiet printed %q, want %s", out, id)
		}
		if err := running(t, h, c.name, 1)(); err != nil {
			t.Errorf("create --quiet did not wait: %v", err)
		}
		if out := testbed.Must(t, c.ask("service", "update", "--quiet", "--force", "--no-resolve-image", c.name)); out != c.name+"\n" {
			t.Errorf("update --quiet printed %q", out)
		}
		if n := service(t, h, c.name).Spec.TaskTemplate.ForceUpdate; n != 1 {
			t.Errorf("ForceUpdate is %d after update --force", n)
		}
	}
}

// everyFlag holds the tables against the helps: of the stock command line, and of
// shoal's own.
func everyFlag(t *testing.T, h *testbed.Host) {
	word := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z0-9-]+)`)
	for _, command := range []string{"create", "update"} {
		rows := map[string]bool{"help": true}
		for flag := range otherTests[command] {
			rows[flag] = true
		}
		for _, g := range flagGroups {
			stage := g.create
			if command == "update" {
				stage = slices.Concat(g.change, g.undo)
			}
			for _, r := range stage {
				name, _, _ := strings.Cut(r.flag, "=")
				rows[name] = true
			}
		}
		for name, help := range map[string]string{
			"docker": testbed.Must(t, h.Docker("service", command, "--help")),
			"shoal":  testbed.Must(t, h.Shoal("service", command, "--help")),
		} {
			found := word.FindAllStringSubmatch(help, -1)
			if len(found) < 60 {
				t.Errorf("only %d flags in the help of %s service %s:\n%s", len(found), name, command, help)
			}
			for _, f := range found {
				if !rows[f[1]] {
					t.Errorf("%s service %s --%s has no row", name, command, f[1])
				}
			}
		}
	}
}

// repeated are the flags that do something each time: Docker's command line adds
// as often as it is told to, puts in any order, or refuses.
var repeated = []string{"group-add", "constraint-add", "env-add", "secret-add", "config-add", "network-add", "placement-pref-add"}

// flagGroup is flags that one service can have at the same time.
type flagGroup struct {
	name    string
	command []string  // image, command and arguments
	create  []flagRow // of service create
	change  []flagRow // of service update, all at once
	undo    []flagRow // of service update, after that
	alone   bool      // Docker Swarm on the engine of the test does not know them
}

func (g flagGroup) test(t *testing.T, all []way) {
	if g.alone {
		all = all[:2]
	}
	ask := func(args func(c way) []string) {
		t.Helper()
		for i, err := range each(t, all, func(c way) error { return c.ask(args(c)...).Err() }) {
			if err != nil {
				t.Fatalf("%s: %v", all[i].name, err)
			}
		}
	}
	quick := []string{"--detach", "--no-resolve-image"}
	update := func(flags ...string) {
		t.Helper()
		ask(func(c way) []string {
			return slices.Concat([]string{"service", "update"}, flags, []string{g.name + suffix(c)})
		})
	}
	look := func(rows []flagRow, unlike []seen) []seen {
		t.Helper()
		got := make([]seen, len(all))
		for i, c := range all {
			before := ""
			if unlike != nil {
				before = unlike[i].id
			}
			got[i] = c.see(t, g.name+suffix(c), before)
			c.check(t, got[i], rows)
		}
		if !g.alone {
			same(t, all, got, g.name)
		}
		return got
	}
	ask(func(c way) []string {
		return slices.Concat([]string{"service", "create", "--name", g.name + suffix(c)}, quick, argsOf(g.create), g.command)
	})
	last := look(g.create, nil)
	next := func(replaces bool, rows []flagRow, flags ...string) {
		t.Helper()
		update(flags...)
		if replaces {
			last = look(rows, last) // waits until each has another container
			return
		}
		now := look(rows, nil)
		for i := range all {
			if last[i].id != now[i].id {
				t.Errorf("%s: the container was replaced, though nothing changed", all[i].name)
			}
		}
		last = now
	}
	if len(g.change) > 0 {
		next(true, g.change, append(argsOf(g.change), quick...)...)
		// The same once more changes nothing.
		again := slices.DeleteFunc(slices.Clone(g.change), func(r flagRow) bool { return slices.Contains(repeated, r.flag) })
		if len(again) > 0 {
			next(false, again, append(argsOf(again), quick...)...)
		}
		next(true, g.undo, append(argsOf(g.undo), quick...)...)
		next(true, []flagRow{{flag: "force", spec: inTask + "ForceUpdate = 1"}}, append(quick, "--force")...)
		next(true, []flagRow{{flag: "rollback", spec: inTask + "ForceUpdate = 0"}}, "--detach", "--rollback")
	}
	for _, c := range all {
		if err := c.api.ServiceRemove(context.Background(), g.name+suffix(c)); err != nil {
			t.Error(err)
		}
	}
}

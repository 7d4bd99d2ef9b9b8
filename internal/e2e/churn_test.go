package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

const (
	// churnRounds is how many redeploys are made in every run.
	churnRounds = 5
	// healed is how long after a fault every kernel may differ from what the
	// managers want. Only whoever has a machine for the soak is held to it.
	healed = 5 * time.Second
)

// churn is three services on one small network, so that addresses come round
// again soon, and a watcher on every node.
type churn struct {
	bed   *testbed.Bed
	rnd   *rand.Rand
	ports map[string]string // by service
	seen  map[string]string // who had an address last: service and node
	again int               // how often one went to another
}

// TestChurn redeploys services while hosts are cut off and daemons killed at
// random. Soon after each healing all kernels have what the managers want, and at
// no time does anybody reach a service that he did not ask for.
func TestChurn(t *testing.T) {
	t.Parallel()
	n := rounds(t, churnRounds)
	c := &churn{bed: swarmOf(t, 3, 0), ports: map[string]string{"a": "7001", "b": "7002", "c": "7003"}, seen: map[string]string{}}
	c.rnd, _ = seeded(t)
	h := c.bed.Host(0)
	testbed.Must(t, h.Shoal("network", "create", "-d", "overlay", "--subnet", "10.66.0.0/27", "churn"))
	for name, port := range c.ports {
		create(t, h, "-d", "--name", name, "--replicas", "3", "--network", "churn", "--publish", port+":80", "--env", "TASK="+name,
			"--update-parallelism", "0", "--stop-grace-period", "2s", testbed.WebV1)
	}
	create(t, h, "--name", "watch", "--mode", "global", "--network", "churn", "--env", "TASK=watch", testbed.WebV1)
	for name := range c.ports {
		testbed.Eventually(t, patience, running(t, h, name, 3))
	}
	asked := c.ask(t)
	var took []time.Duration
	for i := range n {
		took = append(took, c.round(t, i))
		c.fromWithin(t)
		if t.Failed() {
			break
		}
	}
	asked.end()
	slices.Sort(took)
	t.Logf("%d redeploys: equal after %s at the median, %s at most; %d requests, %d not answered, %d by the wrong service; %d addresses went to another task",
		len(took), took[len(took)/2], took[len(took)-1], asked.all, asked.failed, len(asked.wrong), c.again)
	for _, w := range asked.wrong {
		t.Error(w)
	}
	if len(asked.wrong) == 0 && asked.all < 10*n {
		t.Errorf("only %d requests: this shows nothing", asked.all)
	}
}

// round redeploys a service in the middle of a fault, and says how long after it
// all kernels were right.
func (c *churn) round(t *testing.T, i int) time.Duration {
	t.Helper()
	hosts := c.bed.Hosts()
	victim, by := hosts[c.rnd.IntN(len(hosts))], hosts[c.rnd.IntN(len(hosts))]
	name := []string{"a", "b", "c"}[c.rnd.IntN(3)]
	// One that is busy with the last fault's consequences takes no update yet.
	testbed.Eventually(t, patience, func() error {
		return by.Shoal("service", "update", "-d", "--force", "--no-resolve-image", name).Err()
	})
	lasts(t.Context(), c.rnd, 0, time.Second)
	what := "the daemon killed"
	if cut := c.rnd.IntN(2) == 0; cut {
		what = "cut off"
		do(t, func(context.Context) error { return victim.LinkDown() })
		lasts(t.Context(), c.rnd, 0, 6*time.Second)
		do(t, func(context.Context) error { return victim.LinkUp() })
	} else {
		do(t, victim.KillShoal)
		lasts(t.Context(), c.rnd, 0, 4*time.Second)
		do(t, startShoal(victim))
	}
	began, within := time.Now(), patience
	if os.Getenv(soakEnv) != "" {
		within = healed
	}
	var last error
	for _, h := range hosts {
		if err := testbed.Poll(t.Context(), max(within-time.Since(began), 10*time.Millisecond), func() error {
			last = c.equal(h)
			return last
		}); err != nil {
			t.Errorf("round %d, %s redeployed by %s, %s %s: after %s, %s has not what the managers want: %v", i, name, by.Name, victim.Name, what, within, h.Name, last)
		}
	}
	took := time.Since(began).Round(time.Millisecond)
	t.Logf("round %d: %s redeployed by %s, %s %s: equal after %s", i, name, by.Name, victim.Name, what, took)
	return took
}

// Lines of the kernel: what the mesh sends a port to, and the ways to tasks.
var (
	backendLine = regexp.MustCompile(`tcp \. (\d+) \. 0x[0-9a-f]+ : ([0-9.]+) \. 80`)
	routeLine   = regexp.MustCompile(`(?m)^([0-9.]+) via ([0-9.]+) dev shoal0`)
)

// equal compares a host's kernel with what the managers say.
func (c *churn) equal(h *testbed.Host) error {
	tasks, err := c.want(h)
	if err != nil {
		return err
	}
	ctx := context.Background()
	table := h.Run(ctx, "nft", "list", "map", "ip", "shoal_lb", "port_backends")
	ways := h.Run(ctx, "ip", "-4", "route", "show", "proto", "83")
	if err := errors.Join(table.Err(), ways.Err()); err != nil {
		return err
	}
	have := map[string][]string{}
	for _, m := range backendLine.FindAllStringSubmatch(table.Stdout, -1) {
		have[m[1]] = append(have[m[1]], m[2])
	}
	via := map[string]string{}
	for _, m := range routeLine.FindAllStringSubmatch(ways.Stdout, -1) {
		via[m[1]] = m[2]
	}
	known := map[string]bool{}
	for name, port := range c.ports {
		var want []string
		for _, task := range tasks {
			for _, addr := range task.addrs {
				known[addr] = true
			}
			if task.service != name || !task.serves {
				continue
			}
			want = append(want, task.addrs["ingress"])
			for network, addr := range task.addrs {
				if task.node != h.IP.String() && via[addr] != task.node {
					return fmt.Errorf("the way to a task of %s on %s, %s, is by %q, want %s", name, network, addr, via[addr], task.node)
				}
			}
		}
		slices.Sort(want)
		slices.Sort(have[port])
		if !slices.Equal(want, have[port]) {
			return fmt.Errorf("%s is served by %v, want %v", name, have[port], want)
		}
	}
	for addr, node := range via {
		if !known[addr] {
			return fmt.Errorf("there is a way to %s by %s, which is nobody's", addr, node)
		}
	}
	return nil
}

type churned struct {
	service, node string // the node's address
	serves        bool
	addrs         map[string]string // by network
}

// want is what the managers say of all tasks that have not ended.
func (c *churn) want(h *testbed.Host) (out []churned, err error) {
	api, err := h.API()
	if err != nil {
		return nil, err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	nodes, err := api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return nil, err
	}
	services, err := api.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return nil, err
	}
	all, err := api.TaskList(ctx, swarm.TaskListOptions{})
	if err != nil {
		return nil, err
	}
	at, called := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		at[n.ID] = n.Status.Addr
	}
	for _, s := range services {
		called[s.ID] = s.Spec.Name
	}
	for _, task := range all {
		switch task.Status.State {
		case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateOrphaned:
			continue
		}
		o := churned{
			service: called[task.ServiceID], node: at[task.NodeID], addrs: map[string]string{},
			serves: task.Status.State == swarm.TaskStateRunning && task.DesiredState == swarm.TaskStateRunning,
		}
		for _, n := range task.NetworksAttachments {
			o.addrs[n.Network.Spec.Name] = netip.MustParsePrefix(n.Addresses[0]).Addr().String()
		}
		out = append(out, o)
	}
	return out, nil
}

// fromWithin asks from inside a task: every address that a name gives is one of
// that service's tasks.
func (c *churn) fromWithin(t *testing.T) {
	t.Helper()
	h := c.bed.Hosts()[c.rnd.IntN(3)]
	tasks, err := c.want(h)
	if err != nil {
		t.Logf("not asked from within: %v", err)
		return
	}
	for _, task := range tasks {
		if addr, owner := task.addrs["churn"], task.service+" on "+task.node; addr != "" && task.serves && c.seen[addr] != owner {
			if c.seen[addr] != "" {
				c.again++
			}
			c.seen[addr] = owner
		}
	}
	id := strings.TrimSpace(testbed.Must(t, h.EngineDocker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=watch")))
	if id == "" || strings.Contains(id, "\n") {
		t.Logf("the watchers on %s: %q", h.Name, id)
		return
	}
	watch := spot{host: h, id: id}
	var names []string
	var questions []webapp.Question
	for name := range c.ports {
		names = append(names, name)
		questions = append(questions, webapp.Question{"name", "tasks." + name})
	}
	replies, err := watch.talk(t, questions...)
	if err != nil {
		t.Logf("from within %s: %v", h.Name, err)
		return
	}
	var of []string
	questions = nil
	for i, r := range replies {
		for range 3 {
			of, questions = append(of, names[i]), append(questions, webapp.Question{"get", "http://" + names[i] + "/"})
		}
		for _, addr := range r.Names {
			of, questions = append(of, names[i]), append(questions, webapp.Question{"get", "http://" + addr + "/"})
		}
	}
	if replies, err = watch.talk(t, questions...); err != nil {
		t.Logf("from within %s: %v", h.Name, err)
		return
	}
	for i, r := range replies {
		if r.Error == "" && r.Task != of[i] {
			t.Errorf("from within %s: %v is answered by %s, want %s", h.Name, questions[i], r.Task, of[i])
		}
	}
}

// census is steady traffic to all services by all nodes.
type census struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu          sync.Mutex
	all, failed int
	wrong       []string
}

func (c *churn) ask(t *testing.T) *census {
	ctx, stop := context.WithCancel(t.Context())
	a := &census{stop: stop}
	t.Cleanup(a.end)
	from := c.bed.Client()
	for name, port := range c.ports {
		for _, h := range c.bed.Hosts() {
			page, client := url(h, port), &http.Client{
				Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}, Timeout: 2 * time.Second,
			}
			a.wait.Go(func() { a.run(ctx, client, page, name) })
		}
	}
	return a
}

func (a *census) run(ctx context.Context, c *http.Client, page, name string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		who, err := whoAnswers(ctx, c, page)
		a.mu.Lock()
		switch a.all++; {
		case err != nil:
			a.failed++
		case who != name:
			a.wrong = append(a.wrong, fmt.Sprintf("%s: %s is answered by %s", time.Now().Format("15:04:05.000"), page, strconv.Quote(who)))
		}
		a.mu.Unlock()
	}
}

func whoAnswers(ctx context.Context, c *http.Client, page string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Task"), nil
}

func (a *census) end() {
	a.stop()
	a.wait.Wait()
}

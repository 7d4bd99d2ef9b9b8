package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/testbed"
)

// seedEnv repeats a run: tests that draw at random print the seed they used.
const seedEnv = "SHOAL_FAULT_SEED"

func seeded(t testing.TB) (*rand.Rand, uint64) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("repeat with %s=%d", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

// dialed opens the API, or the engine, for the length of a test.
func dialed(t testing.TB, open func() (*client.Client, error)) *client.Client {
	t.Helper()
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// webSpec is a service of the test image, as a client would ask for it.
func webSpec(name string, replicas uint64, published uint32) swarm.ServiceSpec {
	s := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name}}
	s.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Image: testbed.WebV1,
		Env:   []string{"TASK={{.Task.ID}}"},
	}
	s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	if published != 0 {
		s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{
			Protocol: swarm.PortConfigProtocolTCP, PublishedPort: published, TargetPort: 80,
		}}}
	}
	return s
}

// deploy creates a service of the test image and waits until it runs.
func deploy(t testing.TB, h *testbed.Host, name string, replicas uint64, published uint32) {
	t.Helper()
	if _, err := dialed(t, h.API).ServiceCreate(t.Context(), webSpec(name, replicas, published), swarm.ServiceCreateOptions{}); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error { return settled(h, name, int(replicas)) })
}

// life is what must not change about a container that was left alone.
type life struct {
	Container string
	Started   string
	Restarts  int
}

// lives gives the running containers of a service, by task.
func lives(h *testbed.Host, service string) (map[string]life, error) {
	engine, err := h.Engine()
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := engine.ContainerList(ctx, container.ListOptions{Filters: filters.NewArgs(
		filters.Arg("label", "com.docker.swarm.service.name="+service))})
	if err != nil {
		return nil, err
	}
	out := map[string]life{}
	for _, c := range list {
		in, err := engine.ContainerInspect(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		task := c.Labels["com.docker.swarm.task.id"]
		if two, ok := out[task]; ok {
			return nil, fmt.Errorf("task %s has two containers: %s and %s", task, two.Container, c.ID)
		}
		out[task] = life{c.ID, in.State.StartedAt, in.RestartCount}
	}
	return out, nil
}

func mustLive(t testing.TB, h *testbed.Host, service string) map[string]life {
	t.Helper()
	l, err := lives(h, service)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// untouched fails the test unless a service has the very containers it had.
func untouched(t testing.TB, h *testbed.Host, service string, before map[string]life) {
	t.Helper()
	if after := mustLive(t, h, service); !maps.Equal(before, after) {
		t.Errorf("containers of %s were touched:\nbefore %v\nafter  %v", service, before, after)
	}
}

// settled tells whether a service runs as it should and says so truthfully: n
// tasks run, each in the one container that it names, at an address of its own,
// and the engine runs nothing else of the service.
func settled(h *testbed.Host, service string, n int) error {
	c, err := h.API()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := c.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", service))})
	if err != nil {
		return err
	}
	real, err := lives(h, service)
	if err != nil {
		return err
	}
	up, slots, addrs := 0, map[int]bool{}, map[netip.Addr]string{}
	for _, task := range all {
		if task.Status.State != swarm.TaskStateRunning {
			if _, runs := real[task.ID]; runs {
				return fmt.Errorf("task %s is said to be %s, and its container runs", task.ID, task.Status.State)
			}
			continue
		}
		up++
		if task.DesiredState != swarm.TaskStateRunning {
			return fmt.Errorf("task %s runs and should be %s", task.ID, task.DesiredState)
		}
		if slots[task.Slot] {
			return fmt.Errorf("two tasks run in slot %d", task.Slot)
		}
		slots[task.Slot] = true
		if st := task.Status.ContainerStatus; st == nil || st.ContainerID != real[task.ID].Container {
			return fmt.Errorf("task %s is said to run in container %v; the engine has %q", task.ID, st, real[task.ID].Container)
		}
		for _, at := range task.NetworksAttachments {
			for _, a := range at.Addresses {
				p, err := netip.ParsePrefix(a)
				if err != nil {
					return fmt.Errorf("task %s: address %q: %w", task.ID, a, err)
				}
				if other, taken := addrs[p.Addr()]; taken {
					return fmt.Errorf("tasks %s and %s both have address %s", other, task.ID, p.Addr())
				}
				addrs[p.Addr()] = task.ID
			}
		}
	}
	if up != n || len(real) != n {
		return fmt.Errorf("%d tasks of %s are said to run and the engine runs %d containers, want %d", up, service, len(real), n)
	}
	return nil
}

// meshed tells whether exactly the n running tasks of a service answer at a
// published port.
func meshed(from *testbed.Host, h *testbed.Host, service string, port, n int) error {
	seen, err := answers(from, fmt.Sprintf("http://%s:%d/", h.IP, port), n)
	if err != nil {
		return err
	}
	real, err := lives(h, service)
	if err != nil {
		return err
	}
	for _, a := range seen {
		if _, ok := real[a.Env["TASK"]]; !ok {
			return fmt.Errorf("%q answered, which is no running task of %s", a.Env["TASK"], service)
		}
	}
	return nil
}

const (
	// flowEvery is the pace of a flow: enough to hit every gap of note, and
	// little enough to leave the machine to what is tested.
	flowEvery = 20 * time.Millisecond
	// flowTime is what a request of a flow may take. Nothing that it asks for
	// is slow, so this is about a busy machine; the kernel's retransmission of
	// a lost SYN after one second would show as such a request.
	flowTime = 10 * time.Second
)

// flow is steady traffic over a connection per request.
type flow struct {
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	began   time.Time
	served  int
	failed  []string
	slowest time.Duration
}

func startFlow(t testing.TB, from *testbed.Host, url string) *flow {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &flow{stop: cancel, done: make(chan struct{}), began: time.Now()}
	go f.run(ctx, from.HTTP(), url)
	t.Cleanup(f.end)
	return f
}

func (f *flow) run(ctx context.Context, c *http.Client, url string) {
	c.Timeout = flowTime
	tick := time.NewTicker(flowEvery)
	var wg sync.WaitGroup
	defer close(f.done)
	defer wg.Wait()
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wg.Go(func() {
			begin := time.Now()
			err := fetch(c, url)
			f.mu.Lock()
			defer f.mu.Unlock()
			if took := time.Since(begin); took > f.slowest {
				f.slowest = took
			}
			if err != nil {
				f.failed = append(f.failed, begin.Format("15:04:05.000 ")+err.Error())
			} else {
				f.served++
			}
		})
	}
}

func fetch(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

func (f *flow) end() {
	f.stop()
	<-f.done
}

// check ends the flow and fails the test if any of it was lost, or if it was
// no stream at all.
func (f *flow) check(t testing.TB) {
	t.Helper()
	f.end()
	took := time.Since(f.began)
	t.Logf("traffic: %d requests in %s, slowest %s, %d failed", f.served, took.Round(time.Millisecond), f.slowest.Round(time.Millisecond), len(f.failed))
	if len(f.failed) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(f.failed), f.served+len(f.failed), strings.Join(f.failed[:min(5, len(f.failed))], "; "))
	}
	if want := int(took / flowEvery / 2); f.served < want {
		t.Errorf("only %d requests in %s, want at least %d", f.served, took, want)
	}
}

// quiet scans the daemon's log at the end of a test: no crash, no data race,
// and no error but those that the test provokes.
func quiet(t testing.TB, h *testbed.Host, expected ...string) {
	t.Helper()
	res := make([]*regexp.Regexp, 0, len(expected))
	for _, e := range expected {
		res = append(res, regexp.MustCompile(e))
	}
	t.Cleanup(func() {
		for _, line := range logLines(t, h) {
			bad := strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic") || strings.Contains(line, "fatal error")
			if strings.Contains(line, "\tERROR\t") {
				bad = bad || !slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(line) })
			}
			if bad {
				t.Errorf("in the log of %s: %s", h.Name, line)
			}
		}
	})
}

func logLines(t testing.TB, h *testbed.Host) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(h.LogDir(), "shoal.log"))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	return lines
}

// do fails the test if a step of its story could not be made.
func do(t testing.TB, step func(context.Context) error) {
	t.Helper()
	if err := step(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func startShoal(h *testbed.Host) func(context.Context) error {
	return func(ctx context.Context) error { return h.StartShoal(ctx) }
}

// lasts is how long a fault goes on, between these two, unless the test ends.
func lasts(ctx context.Context, rnd *rand.Rand, least, most time.Duration) {
	select {
	case <-time.After(least + time.Duration(rnd.Int64N(int64(most-least)))):
	case <-ctx.Done():
	}
}

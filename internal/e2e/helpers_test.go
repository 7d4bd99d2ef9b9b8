package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// quick are flags that leave out what only guards against slow failures: the
// seconds in which an update, or a create, is watched for them.
var quick = []string{"--update-monitor", "300ms", "--rollback-monitor", "300ms", "--no-resolve-image"}

// healthy are flags that a service needs for updates that nobody notices: a task
// counts as running once it answers; and one that is to stop still accepts, for
// a moment, who connected just before it was taken out of the mesh. A server
// that closes its socket at once resets those that it has not accepted yet.
var healthy = []string{
	"--health-cmd", "webapp healthcheck", "--health-interval", "100ms", "--health-retries", "2", "--health-start-period", "3s",
	"--env", "STOP_DELAY=200ms",
}

// compared marks a test that lets Docker Swarm do the same beside us, command by
// command. That takes minutes and is no part of every run: see make compare.
func compared(t *testing.T) {
	t.Helper()
	if os.Getenv("SHOAL_COMPARE") == "" {
		t.Skip("compares with Docker Swarm: make compare")
	}
}

// create makes a service, waits for it, and returns its ID.
func create(t testing.TB, h *testbed.Host, args ...string) string {
	t.Helper()
	args = append(append([]string{"service", "create"}, quick...), args...)
	id, _, _ := strings.Cut(testbed.Must(t, h.Shoal(args...)), "\n")
	return id
}

// update changes a service and waits for it.
func update(t testing.TB, h *testbed.Host, args ...string) {
	t.Helper()
	testbed.Must(t, h.Shoal(append([]string{"service", "update", "--no-resolve-image"}, args...)...))
}

// url is a page of a published port.
func url(h *testbed.Host, port string) string { return "http://" + h.IP.String() + ":" + port + "/" }

// service is one service as the API gives it.
func service(t testing.TB, h *testbed.Host, name string) swarm.Service {
	t.Helper()
	c, err := h.API()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, _, err := c.ServiceInspectWithRaw(context.Background(), name, swarm.ServiceInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ids are the tasks of a service that should run, each with its container.
func ids(t testing.TB, h *testbed.Host, service string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, task := range tasks(t, h, service) {
		out[task.ID] = containerOf(task)
	}
	return out
}

func containerOf(task swarm.Task) string {
	if s := task.Status.ContainerStatus; s != nil {
		return s.ContainerID
	}
	return ""
}

// history lists all tasks of a service that are known, the newest of each slot
// first, as `service ps --no-trunc` shows them.
func history(t testing.TB, h *testbed.Host, service, format string) []string {
	t.Helper()
	return lines(testbed.Must(t, h.Shoal("service", "ps", "--no-trunc", "--format", format, service)))
}

// says waits until a task of the service has ended with all of the words.
func says(t testing.TB, h *testbed.Host, service string, words ...string) string {
	t.Helper()
	var found string
	testbed.Eventually(t, patience, func() error {
		all := history(t, h, service, "{{.Name}}\t{{.CurrentState}}\t{{.Error}}")
		for _, line := range all {
			if missing(line, words...) == "" {
				found = line
				return nil
			}
		}
		return fmt.Errorf("no task of %s says %q:\n%s", service, words, strings.Join(all, "\n"))
	})
	return found
}

// missing is the first of the words that a text lacks, "" if it has them all.
func missing(text string, words ...string) string {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return w
		}
	}
	return ""
}

// contains fails unless a text has all of the words.
func contains(t testing.TB, text string, words ...string) {
	t.Helper()
	if w := missing(text, words...); w != "" {
		t.Errorf("%q is not in:\n%s", w, text)
	}
}

// lines are the lines of a text that are not empty.
func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \r\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// inside gets a page, or sends a datagram, from within a container.
func inside(h *testbed.Host, container string, question ...string) (webapp.Report, error) {
	r := h.EngineDocker(append([]string{"exec", container, "webapp"}, question...)...)
	if err := r.Err(); err != nil {
		return webapp.Report{}, err
	}
	var rep webapp.Report
	if err := json.Unmarshal([]byte(r.Stdout), &rep); err != nil {
		return webapp.Report{}, fmt.Errorf("decode %q: %w", r.Stdout, err)
	}
	return rep, nil
}

// inspect asks the engine itself about a container.
func inspect(t testing.TB, h *testbed.Host, id string) container.InspectResponse {
	t.Helper()
	c, err := h.Engine()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info, err := c.ContainerInspect(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// load is a steady stream of requests.
type load struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu     sync.Mutex
	asked  int
	failed []error
	seen   map[string]int // by version
}

// startLoad asks for a page all the time, over a new connection for each
// request and over one that is kept, until the test ends it.
func startLoad(t testing.TB, from *testbed.Host, page string) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop, seen: map[string]int{}}
	for _, keep := range []bool{false, false, true, true} {
		transport := &http.Transport{DialContext: from.Dial, DisableKeepAlives: !keep}
		l.wait.Go(func() {
			defer transport.CloseIdleConnections()
			l.run(ctx, &http.Client{Transport: transport, Timeout: 10 * time.Second}, page)
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) run(ctx context.Context, c *http.Client, page string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		version, err := ask(c, page)
		l.mu.Lock()
		l.asked++
		l.seen[version]++
		if err != nil {
			l.failed = append(l.failed, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
		}
		l.mu.Unlock()
	}
}

func ask(c *http.Client, page string) (version string, err error) {
	resp, err := c.Get(page)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	return resp.Header.Get("X-Version"), nil
}

// met tells whether a version has answered.
func (l *load) met(version string) func() error {
	return func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.seen[version] == 0 {
			return fmt.Errorf("%d requests, by version: %v; none by %s", l.asked, l.seen, version)
		}
		return nil
	}
}

func (l *load) end() {
	l.stop()
	l.wait.Wait()
}

// unharmed ends the load and fails if a request did. It returns how many were
// answered by each version.
func (l *load) unharmed(t testing.TB) map[string]int {
	t.Helper()
	l.end()
	if len(l.failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(l.failed), l.asked, l.failed[0])
	}
	if l.asked < 20 {
		t.Errorf("only %d requests: this shows nothing", l.asked)
	}
	t.Logf("%d requests, by version: %v", l.asked, l.seen)
	return l.seen
}

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// soakEnv is how many rounds the tests that go in rounds make, for those who
// have the time.
const soakEnv = "SHOAL_SOAK"

func rounds(t testing.TB, otherwise int) int {
	n := otherwise
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number of rounds", soakEnv, s)
		}
	}
	return n
}

// streams are connections that stay open for a while, one after another.
type streams struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu     sync.Mutex
	opened int
	broken []error
}

// streamTime is how long a client stays: well within a task's grace period.
const streamTime = 2 * time.Second

// startStreams keeps n such connections open to each of the pages.
func startStreams(t testing.TB, from *testbed.Host, n int, pages ...string) *streams {
	ctx, stop := context.WithCancel(t.Context())
	s := &streams{stop: stop}
	for _, page := range pages {
		for i := range n {
			s.wait.Go(func() {
				pause := time.After(time.Duration(i) * streamTime / time.Duration(n))
				for {
					select {
					case <-ctx.Done():
						return
					case <-pause:
					}
					err := s.one(ctx, from, page+"stream?ms=50")
					if ctx.Err() != nil {
						return
					}
					s.mu.Lock()
					s.opened++
					if err != nil {
						s.broken = append(s.broken, fmt.Errorf("%s %s: %w", time.Now().Format("15:04:05.000"), page, err))
					}
					s.mu.Unlock()
					pause = time.After(0)
				}
			})
		}
	}
	t.Cleanup(s.end)
	return s
}

// one opens a connection and reads until it hangs up by itself.
func (s *streams) one(ctx context.Context, from *testbed.Host, page string) error {
	transport := &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for start := time.Now(); time.Since(start) < streamTime; {
		if !lines.Scan() {
			return fmt.Errorf("cut after %s: %v", time.Since(start).Round(time.Millisecond), lines.Err())
		}
	}
	return nil
}

func (s *streams) end() {
	s.stop()
	s.wait.Wait()
}

func (s *streams) unharmed(t testing.TB) {
	t.Helper()
	s.end()
	if len(s.broken) > 0 {
		t.Errorf("%d of %d long-lived connections broke; the first: %v", len(s.broken), s.opened, s.broken[0])
	}
	t.Logf("%d long-lived connections", s.opened)
}

// TestNothingIsLost asks every node of a cluster all the time, over new, kept and
// long-lived connections, while tasks are replaced, removed and moved in all the
// ways there are. The server does nothing for it but what any server should: on
// its stop signal it takes no more connections and ends those that it has.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	bed := swarmOf(t, 1, 2)
	h1, h2, h3 := bed.Host(0), bed.Host(1), bed.Host(2)
	create(t, h1, "--name", "web", "--replicas", "3", "--publish", "8080:80",
		"--update-delay", "0s", "--update-parallelism", "1", testbed.WebV1)
	var pages []string
	for _, h := range bed.Hosts() {
		pages = append(pages, url(h, "8080"))
		testbed.Eventually(t, patience, func() error { _, err := answers(bed.Client(), url(h, "8080"), 3); return err })
	}
	under := func(t *testing.T, change func()) {
		t.Helper()
		var all []*load
		for _, page := range pages {
			all = append(all, startLoad(t, bed.Client(), page))
		}
		long := startStreams(t, bed.Client(), 3, pages...)
		change()
		long.unharmed(t)
		for _, l := range all {
			l.unharmed(t)
		}
	}
	version := 0
	next := func(order string) {
		version++
		update(t, h1, "--update-order", order, "--update-monitor", "300ms", "--env-add", "VERSION=n"+strconv.Itoa(version), "web")
	}
	drained := func(t *testing.T, h *testbed.Host) {
		t.Helper()
		if out := strings.TrimSpace(testbed.Must(t, h.EngineDocker("ps", "-q"))); out != "" {
			t.Errorf("%s is said to be drained, and runs %s", h.Name, out)
		}
	}
	for range rounds(t, 1) {
		t.Run("update, stop first", func(t *testing.T) { under(t, func() { next("stop-first") }) })
		t.Run("update, start first", func(t *testing.T) { under(t, func() { next("start-first") }) })
		t.Run("scaled up and down", func(t *testing.T) {
			under(t, func() {
				testbed.Must(t, h1.Shoal("service", "scale", "web=5"))
				testbed.Must(t, h1.Shoal("service", "scale", "web=2"))
				testbed.Eventually(t, patience, running(t, h1, "web", 2))
				testbed.Must(t, h1.Shoal("service", "scale", "web=3"))
			})
		})
		t.Run("drained", func(t *testing.T) {
			under(t, func() {
				for _, h := range []*testbed.Host{h2, h3} {
					testbed.Must(t, h1.Shoal("node", "update", "--availability", "drain", "--wait", h.Name))
					drained(t, h)
				}
			})
		})
		t.Run("back again, and drained with docker", func(t *testing.T) {
			under(t, func() {
				for _, h := range []*testbed.Host{h2, h3} {
					testbed.Must(t, h1.Docker("node", "update", "--availability", "active", h.Name))
				}
				testbed.Must(t, h1.Docker("node", "update", "--availability", "drain", h1.Name))
				testbed.Eventually(t, patience, func() error {
					if out := strings.TrimSpace(testbed.Must(t, h1.EngineDocker("ps", "-q"))); out != "" {
						return fmt.Errorf("%s still runs %s", h1.Name, out)
					}
					return nil
				})
				testbed.Must(t, h1.Docker("node", "update", "--availability", "active", h1.Name))
			})
		})
		t.Run("a daemon restarts during an update", func(t *testing.T) {
			under(t, func() {
				done := make(chan struct{})
				go func() {
					defer close(done)
					next("start-first")
				}()
				if err := h2.KillShoal(t.Context()); err != nil {
					t.Error(err)
				}
				if err := h2.StartShoal(t.Context()); err != nil {
					t.Error(err)
				}
				<-done
			})
		})
	}
}

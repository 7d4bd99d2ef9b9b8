package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/internal/testbed"
)

// TestLogsFollow: what is followed goes on, with no line lost and none told
// twice, while the leader, the task's node and its engine end and come back.
func TestLogsFollow(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 3)
	first, asked, far := bed.Host(0), bed.Host(1), bed.Host(2)
	testbed.Must(t, first.Shoal("swarm", "init"))
	join(t, first, asked, "manager")
	join(t, first, far, "manager")
	count := "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"
	create(t, first, "--name", "count", "--constraint", "node.hostname=="+far.Name, testbed.WebV1, "sh", "-c", count)
	create(t, first, "--name", "web", "--replicas", "0", testbed.WebV1)

	ours := follow(t, asked, "shoal", "service", "logs", "-f", "--raw", "count")
	stock := follow(t, asked, "docker", "-H", "unix:///run/shoal.sock", "service", "logs", "-f", "--raw", "--tail", "3", "count")
	tasks := follow(t, asked, "shoal", "service", "logs", "-f", "--no-trunc", "web")
	grow := func(what string) {
		t.Helper()
		for _, f := range []*following{ours, stock} {
			f.grows(t, what)
		}
	}
	grow("at first")
	if err := first.KillShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	grow("after the leader was killed")
	if err := first.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := far.KillShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := far.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	grow("after the daemon of the task's node was killed")

	// Tasks that come later are followed, too.
	testbed.Must(t, asked.Shoal("service", "scale", "web=2"))
	testbed.Eventually(t, patience, func() error {
		if said := tasks.text(); missing(said, "web.1.", "web.2.", "listening on") != "" {
			return fmt.Errorf("after scaling up, the log says: %s", said)
		}
		return nil
	})
	for _, f := range []*following{ours, stock} {
		f.counts(t)
	}
	// What is not followed ends by itself, and the end of the service is the end.
	testbed.Must(t, asked.Shoal("service", "logs", "--tail", "2", "count"))
	testbed.Must(t, asked.Shoal("service", "rm", "web"))
	tasks.ends(t)
}

// following is a command that goes on printing.
type following struct {
	args []string
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func follow(t *testing.T, h *testbed.Host, args ...string) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{args: args, done: make(chan struct{})}
	cmd := h.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGKILL) }
	if err := h.StartOn(cmd); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(f.done); _ = cmd.Wait() }()
	t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *following) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(p)
}

func (f *following) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

// grows waits for more lines than there are now.
func (f *following) grows(t *testing.T, when string) {
	t.Helper()
	before := len(lines(f.text()))
	testbed.Eventually(t, patience, func() error {
		if now := lines(f.text()); len(now) < before+10 {
			return fmt.Errorf("%s, %v has %d lines and had %d; the last: %q", when, f.args, len(now), before, now[max(0, len(now)-3):])
		}
		return nil
	})
}

// counts fails unless each line is the number after the one before.
func (f *following) counts(t *testing.T) {
	t.Helper()
	last := 0
	for _, line := range lines(f.text()[:strings.LastIndex(f.text(), "\n")+1]) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Errorf("%v says %q", f.args, line)
		} else if last != 0 && n != last+1 {
			t.Errorf("%v: %d comes after %d", f.args, n, last)
		}
		last = n
	}
}

func (f *following) ends(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		select {
		case <-f.done:
			return nil
		default:
			return fmt.Errorf("%v goes on: %s", f.args, f.text())
		}
	})
}

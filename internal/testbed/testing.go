package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sync/errgroup"
)

// LogsEnv names the directory that gets the logs of failed tests.
const LogsEnv = "SHOAL_TESTBED_LOGS"

// ShoalEnv names a shoal binary to test; without it one is built.
const ShoalEnv = "SHOAL_BIN"

// beds counts the beds of this process, as one test may start several.
var beds atomic.Int32

type options struct {
	shoal  bool
	flags  []string
	images bool
}

// Option changes what Start starts.
type Option func(*options)

// WithoutShoal leaves the hosts without a daemon.
func WithoutShoal() Option { return func(o *options) { o.shoal = false } }

// WithFlags gives `shoal daemon` further flags.
func WithFlags(flags ...string) Option { return func(o *options) { o.flags = flags } }

// WithoutImages leaves the engines empty.
func WithoutImages() Option { return func(o *options) { o.images = false } }

// Start gives a test n hosts, each with an engine that has the test images and
// a shoal daemon that is in no swarm yet. They go when the test ends; if it
// failed, the end of every log is printed and the whole is kept.
func Start(t testing.TB, n int, opts ...Option) *Bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes network namespaces and runs Docker engines; try `make test` as root")
	}
	o := options{shoal: true, images: true}
	for _, opt := range opts {
		opt(&o)
	}
	ctx := t.Context()
	log := zaptest.NewLogger(t)
	if err := Sweep(ctx, log); err != nil {
		t.Fatal(err)
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	shoal := ""
	if o.shoal {
		if shoal, err = shoalBinary(ctx, t, root); err != nil {
			t.Fatal(err)
		}
	}
	bed, err := New(Config{
		Name:  fmt.Sprintf("t%d-%d", os.Getpid(), beds.Add(1)),
		Hosts: n,
		Shoal: shoal,
		Owner: os.Getpid(),
		Log:   log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bed.finish(t) })
	if err := bed.Up(ctx); err != nil {
		t.Fatal(err)
	}
	if o.images {
		if err := bed.ImportWeb(ctx, root); err != nil {
			t.Fatal(err)
		}
	}
	if o.shoal {
		if err := bed.StartShoal(ctx, o.flags...); err != nil {
			t.Fatal(err)
		}
	}
	return bed
}

// StartEngine gives a test one host with an empty engine and nothing else: for
// parts that speak to an engine, and must never use the machine's own.
func StartEngine(t testing.TB) *Host {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an engine of its own, which takes seconds to start")
	}
	return Start(t, 1, WithoutShoal(), WithoutImages()).Host(0)
}

// StartShoal starts the daemon on every host.
func (b *Bed) StartShoal(ctx context.Context, flags ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range b.hosts {
		group.Go(func() error { return h.StartShoal(ctx, flags...) })
	}
	return group.Wait()
}

// finish ends a test's bed. The test's context is over by now.
func (b *Bed) finish(t testing.TB) {
	ctx := context.WithoutCancel(t.Context())
	if t.Failed() {
		for _, h := range append([]*Host{b.client}, b.hosts...) {
			if logs := h.TailLogs(40); logs != "" {
				t.Logf("end of the logs:\n%s", logs)
			}
		}
		dir := filepath.Join(logsDir(), unsafeInPaths.ReplaceAllString(t.Name(), "_"), time.Now().Format("150405.000"))
		if err := b.SaveLogs(dir); err != nil {
			t.Error(err)
		} else {
			t.Logf("whole logs: %s", dir)
		}
	}
	if err := b.Down(ctx); err != nil {
		t.Error(err)
	}
}

var unsafeInPaths = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func logsDir() string {
	if dir := os.Getenv(LogsEnv); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "shoal-testbed-logs")
}

// shoalBinary is the binary to test: the one that was given, or one built for
// this test. Building again costs little, as Go keeps what has not changed.
func shoalBinary(ctx context.Context, t testing.TB, root string) (string, error) {
	if path := os.Getenv(ShoalEnv); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(t.TempDir(), "shoal")
	return path, goBuild(ctx, root, path, "shoal")
}

// moduleRoot is the directory of this module's go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Eventually waits until cond returns nil, and fails the test with its last
// error if that takes longer than within.
func Eventually(t testing.TB, within time.Duration, cond func() error) {
	t.Helper()
	if err := Poll(t.Context(), within, cond); err != nil {
		t.Fatalf("not within %s: %v", within, err)
	}
}

// Must returns a command's standard output and fails the test if it failed.
func Must(t testing.TB, r Result) string {
	t.Helper()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

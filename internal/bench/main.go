// Command bench measures shoal against what it is made of and what it replaces:
// the Docker engine alone, and Docker Swarm. Each question is one table.
//
// Only ratios within one table mean much: what is compared takes turns, round
// after round, so that whatever else the machine does troubles all alike.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"shoal/internal/testbed"
)

// bedName is the bed that is made for the measurements and removed after them.
const bedName = "bench"

func main() {
	var (
		shoal  = flag.String("shoal", "bin/shoal", "binary to measure")
		rounds = flag.Int("rounds", 7, "how often each thing is measured")
		only   = flag.String("only", "", "measure only these, by name, with commas between: "+strings.Join(names(), ", "))
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *shoal, *rounds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// experiment is one question that is answered by measuring.
type experiment struct {
	name string
	run  func(ctx context.Context, l *lab) error
}

func experiments() []experiment {
	return []experiment{
		{"size", size},
		{"start", start},
		{"idle", idle},
		{"mesh", mesh},
		{"across", across},
		{"failover", failover},
		{"handover", handover},
		{"hostloss", hostloss},
		{"writes", writes},
	}
}

func names() (ns []string) {
	for _, e := range experiments() {
		ns = append(ns, e.name)
	}
	return ns
}

// lab is where experiments take place: on two machines with an engine each,
// shoal leading the one and Docker Swarm the other, and a client beside them.
type lab struct {
	shoalPath   string
	shoal, peer *testbed.Host
	client      *testbed.Host
	rounds      int
}

func measure(ctx context.Context, shoal string, rounds int, only string) (err error) {
	if err := testbed.Remove(ctx, bedName, zap.NewNop()); err != nil {
		return err
	}
	bed, err := testbed.New(testbed.Config{Name: bedName, Hosts: 2, Shoal: shoal, Owner: os.Getpid()})
	if err != nil {
		return err
	}
	defer func() {
		// The signal that ended ctx must not leave a bed behind.
		if derr := bed.Down(context.WithoutCancel(ctx)); err == nil {
			err = derr
		}
	}()
	if err := bed.Up(ctx); err != nil {
		return err
	}
	if err := bed.ImportWeb(ctx, "."); err != nil {
		return err
	}
	l := &lab{shoalPath: shoal, shoal: bed.Host(0), peer: bed.Host(1), client: bed.Client(), rounds: rounds}
	if err := l.found(ctx); err != nil {
		return err
	}
	fmt.Printf("%s, load average %s\n", time.Now().Format(time.DateTime), loadAverage())
	for _, e := range experiments() {
		if only != "" && !slices.Contains(strings.Split(only, ","), e.name) {
			continue
		}
		if err := e.run(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	fmt.Printf("\nload average %s\n", loadAverage())
	return nil
}

// found makes both clusters.
func (l *lab) found(ctx context.Context) error {
	if err := l.shoal.StartShoal(ctx); err != nil {
		return err
	}
	if err := l.shoal.Shoal("swarm", "init").Err(); err != nil {
		return err
	}
	return l.peer.EngineDocker("swarm", "init", "--advertise-addr", l.peer.IP.String()).Err()
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}

// Command demo shows the product's first minute on hosts of its own: it makes
// a bed, runs a service on it, breaks things, and leaves it up for a closer
// look.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"

	"shoal/internal/testbed"
)

// bedName is what `make demo-down` removes.
const bedName = "demo"

func main() {
	var (
		hosts = flag.Int("hosts", 3, "number of hosts")
		shoal = flag.String("shoal", "bin/shoal", "binary to show")
		pause = flag.Duration("pause", time.Second, "time to read, on a terminal")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := newStage(os.Stdout, *pause)
	if err := demonstrate(ctx, s, *hosts, *shoal); err != nil {
		s.printf("\n%s %v\n", s.paint(red, "The demonstration stopped:"), err)
		s.printf("Logs: go run ./internal/testbed/cmd/testbed -b %s logs    Clean up: make demo-down\n", bedName)
		os.Exit(1)
	}
}

func demonstrate(ctx context.Context, s *stage, hosts int, shoal string) error {
	if err := testbed.Remove(ctx, bedName, zap.NewNop()); err != nil {
		return err
	}
	bed, err := testbed.New(testbed.Config{Name: bedName, Hosts: hosts, Shoal: shoal})
	if err != nil {
		return err
	}
	story := &story{stage: s, bed: bed, shoal: shoal}
	for _, chapter := range []func(context.Context) error{
		story.machines,
		story.swarm,
		story.service,
		story.traffic,
		story.scale,
		story.failure,
		story.hostLoss,
		story.hostBack,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	story.farewell()
	return nil
}

// plural is for the only noun the story counts.
func plural(n int) string {
	if n == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", n)
}

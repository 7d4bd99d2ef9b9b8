package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	idleTasks = 20
	// settling is how long a daemon is left alone before it counts as idle, and
	// idleTime how long it is then watched: several times its slowest clock
	// that matters.
	settling = 10 * time.Second
	idleTime = 20 * time.Second
)

// size tells how large the binary is, as it is installed.
func size(_ context.Context, l *lab) error {
	info, err := os.Stat(l.shoalPath)
	if err != nil {
		return err
	}
	fmt.Printf("\nBinary: %.1f MB\n", float64(info.Size())/1e6)
	return nil
}

// idle measures what daemons take while nothing happens: with no task and with
// twenty.
func idle(ctx context.Context, l *lab) error {
	fmt.Printf("\nIdle daemons, over %s\n", idleTime)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\ttasks\tRSS MB\tPSS MB\tCPU ms/s\twith children\twakeups/s\t")
	if err := l.watchIdle(ctx, t, 0); err != nil {
		return err
	}
	shoal, err := l.shoal.API()
	if err != nil {
		return err
	}
	defer shoal.Close()
	engine, err := l.shoal.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	peer, err := l.peer.Engine()
	if err != nil {
		return err
	}
	defer peer.Close()
	spec := publish(webService(idleTasks), meshPort)
	if err := createService(ctx, shoal, spec); err != nil {
		return err
	}
	if err := createService(ctx, peer, webService(idleTasks)); err != nil {
		return err
	}
	if err := l.watchIdle(ctx, t, idleTasks); err != nil {
		return err
	}
	if err := removeService(ctx, shoal, engine, spec.Name); err != nil {
		return err
	}
	if err := removeService(ctx, peer, peer, spec.Name); err != nil {
		return err
	}
	return t.Flush()
}

// watchIdle watches all daemons at once.
func (l *lab) watchIdle(ctx context.Context, t *tabwriter.Writer, tasks int) error {
	shoal, err := l.shoal.ShoalPID()
	if err != nil {
		return err
	}
	engine, err := l.shoal.EnginePID()
	if err != nil {
		return err
	}
	peer, err := l.peer.EnginePID()
	if err != nil {
		return err
	}
	daemons := []struct {
		name          string
		pid           int
		before, after usage
	}{
		{name: "shoal daemon", pid: shoal},
		{name: "its engine", pid: engine},
		{name: "engine in swarm mode", pid: peer},
	}
	if err := pause(ctx, settling); err != nil {
		return err
	}
	for i := range daemons {
		if daemons[i].before, err = usageOf(daemons[i].pid); err != nil {
			return err
		}
	}
	if err := pause(ctx, idleTime); err != nil {
		return err
	}
	for _, d := range daemons {
		if d.after, err = usageOf(d.pid); err != nil {
			return err
		}
		per := func(before, after time.Duration) float64 { return milliseconds(after-before) / idleTime.Seconds() }
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\t\n", d.name, tasks, d.after.rss, d.after.pss,
			per(d.before.cpu, d.after.cpu), per(d.before.all, d.after.all),
			float64(d.after.wakeups-d.before.wakeups)/idleTime.Seconds())
	}
	return nil
}

// usage is what a process takes.
type usage struct {
	rss, pss float64       // in MB
	cpu      time.Duration // its own
	all      time.Duration // with that of the commands it ran
	wakeups  int           // how often one of its threads began to run
}

// tick is the unit of processor times in /proc.
const tick = 10 * time.Millisecond

func usageOf(pid int) (u usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	memory, err := fields(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return u, err
	}
	u.rss, u.pss = float64(memory["Rss"])/1000, float64(memory["Pss"])/1000
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// The name, in parentheses, may hold anything; what follows is numbers.
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	words := strings.Fields(string(rest))
	const utime = 11 // followed by stime, cutime and cstime
	for i, w := range words[utime : utime+4] {
		n, err := strconv.Atoi(w)
		if err != nil {
			return u, fmt.Errorf("%s/stat: %w", dir, err)
		}
		u.all += time.Duration(n) * tick
		if i < 2 {
			u.cpu += time.Duration(n) * tick
		}
	}
	threads, err := filepath.Glob(filepath.Join(dir, "task/*/status"))
	if err != nil {
		return u, err
	}
	for _, path := range threads {
		status, err := fields(path)
		if err != nil {
			return u, err
		}
		u.wakeups += status["voluntary_ctxt_switches"]
	}
	return u, nil
}

// fields reads the numbers of a file with lines such as "Pss: 12 kB".
func fields(path string) (map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		words := strings.Fields(value)
		if len(words) == 0 {
			continue
		}
		if n, err := strconv.Atoi(words[0]); err == nil {
			found[name] = n
		}
	}
	return found, lines.Err()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package webapp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrCrashed is how Run ends when CRASH_AFTER is over.
var ErrCrashed = errors.New("crashed, as CRASH_AFTER asked")

// Run serves until ctx ends, then answers what is in flight and returns nil.
// ready is called with the address once the server listens.
func (a *App) Run(ctx context.Context, ready func(addr net.Addr)) error {
	if !pause(ctx, a.cfg.StartDelay) {
		return nil
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(a.cfg.Port))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	udp, err := net.ListenPacket("udp", ":"+strconv.Itoa(a.cfg.Port))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer udp.Close()
	ready(listener.Addr())

	server := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	group.Go(func() error { return a.EchoUDP(udp) })
	group.Go(func() error {
		if a.cfg.CrashAfter > 0 && pause(gctx, a.cfg.CrashAfter) {
			a.exit(1)
			return errors.Join(ErrCrashed, server.Close(), udp.Close())
		}
		<-gctx.Done()
		// ctx is over, so the delay runs on the clock alone.
		pause(context.WithoutCancel(gctx), a.cfg.StopDelay)
		defer udp.Close()
		// No deadline of its own: whoever stops the task decides how long
		// connections may take, and kills it after that.
		if err := server.Shutdown(context.WithoutCancel(gctx)); err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// CheckHealth is the image's health check: an error means unhealthy.
func CheckHealth(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/health", port), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: %s", resp.Status)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"shoal/internal/testbed"
)

const (
	connections = 16
	loadTime    = 2 * time.Second
	patience    = 10 * time.Second // with an answer; a busy machine is slow, and that is a figure too
	meshPort    = 8080
	enginePort  = 8081
	directPort  = 8082
)

// mesh measures what the way through a published port costs. One container
// answers in every case, so that only the way differs.
func mesh(ctx context.Context, l *lab) (err error) {
	w, err := l.serve(ctx)
	defer func() { err = errors.Join(err, w.close(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	for _, h := range []*testbed.Host{l.client, l.shoal} {
		if err := manyPorts(ctx, h); err != nil {
			return err
		}
	}
	for _, kind := range []struct {
		name  string
		flags []string
	}{
		{"connections kept alive", nil},
		{"a connection for each request", []string{"-H", "Connection: close"}},
	} {
		load := func(from *testbed.Host, url string) func(context.Context) ([]float64, error) {
			return func(ctx context.Context) ([]float64, error) {
				if err := l.forgetConnections(ctx); err != nil {
					return nil, err
				}
				return wrk(ctx, from, url, kind.flags)
			}
		}
		outside := []*subject{
			{name: "straight to a container", measure: load(l.client, w.container)},
			{name: "docker run -p", measure: load(l.client, w.dockerPort)},
			{name: "shoal's mesh", measure: load(l.client, w.mesh)},
		}
		inside := []*subject{
			{name: "straight to the task", measure: load(l.shoal, w.task)},
			{name: "shoal's mesh", measure: load(l.shoal, w.mesh)},
		}
		if err := takeTurns(ctx, l.rounds, append(outside[:len(outside):len(outside)], inside...)); err != nil {
			return err
		}
		columns := []string{"requests/s", "p99 ms"}
		title := fmt.Sprintf("Load over %d connections, %s, %%s (%d rounds)", connections, kind.name, l.rounds)
		printTable(os.Stdout, fmt.Sprintf(title, "from another host"), columns, outside)
		printTable(os.Stdout, fmt.Sprintf(title, "from the node itself"), columns, inside)
	}
	return nil
}

// ways are the ways to a server. Each leads to one of its own: the source port of
// a connection that came another way is not free on a server for a minute, and
// the two look like one connection to it.
type ways struct {
	container  string // straight to a plain container
	dockerPort string // the engine's published port
	task       string // straight to a task
	mesh       string // the published port of a service

	undo []func(context.Context) error
}

func (w *ways) later(undo func(context.Context) error) { w.undo = append(w.undo, undo) }

func (w *ways) close(ctx context.Context) (err error) {
	for _, undo := range slices.Backward(w.undo) {
		err = errors.Join(err, undo(ctx))
	}
	return err
}

// manyPorts lets a host open as many connections as TCP has ports for: at one
// connection for each request the usual range is used up within two seconds.
func manyPorts(ctx context.Context, h *testbed.Host) error {
	return h.Run(ctx, "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535").Err()
}

// forgetConnections empties the kernel's table of connections, which holds ended
// ones for two minutes. It would be full after a few rounds, and what is new
// then is dropped, whichever way it takes.
func (l *lab) forgetConnections(ctx context.Context) error {
	return l.shoal.Run(ctx, "conntrack", "-F").Err()
}

// serve starts two services of one task and two plain containers. From another
// host a task's own address is out of reach, by the overlay's rules; so it is a
// plain container that the client gets a route to.
func (l *lab) serve(ctx context.Context) (*ways, error) {
	w := &ways{
		dockerPort: fmt.Sprintf("http://%s:%d/", l.shoal.IP, enginePort),
		mesh:       fmt.Sprintf("http://%s:%d/", l.shoal.IP, meshPort),
	}
	shoal, err := l.shoal.API()
	if err != nil {
		return w, err
	}
	w.later(func(context.Context) error { return shoal.Close() })
	engine, err := l.shoal.Engine()
	if err != nil {
		return w, err
	}
	w.later(func(context.Context) error { return engine.Close() })

	direct := publish(webService(1), directPort)
	direct.Name += "-directly"
	for _, spec := range []swarm.ServiceSpec{direct, publish(webService(1), meshPort)} {
		w.later(func(ctx context.Context) error { return removeService(ctx, shoal, engine, spec.Name) })
		if err := createService(ctx, shoal, spec); err != nil {
			return w, err
		}
	}
	address, err := taskAddress(ctx, shoal, direct.Name)
	if err != nil {
		return w, err
	}
	w.task = "http://" + address + "/"

	if _, err := w.run(ctx, engine, nat.PortMap{"80/tcp": {{HostPort: strconv.Itoa(enginePort)}}}); err != nil {
		return w, err
	}
	ip, err := w.run(ctx, engine, nil)
	if err != nil {
		return w, err
	}
	w.container = "http://" + ip + "/"
	w.later(func(ctx context.Context) error { return l.client.Run(ctx, "ip", "route", "del", ip).Err() })
	if err := l.client.Run(ctx, "ip", "route", "add", ip, "via", l.shoal.IP.String()).Err(); err != nil {
		return w, err
	}
	allow := func(ctx context.Context, how string) error {
		return l.shoal.Run(ctx, "iptables", "-w", how, "DOCKER-USER", "-d", ip, "-j", "ACCEPT").Err()
	}
	w.later(func(ctx context.Context) error { return allow(ctx, "-D") })
	return w, allow(ctx, "-I")
}

// run starts a plain container and gives its address.
func (w *ways) run(ctx context.Context, engine *client.Client, ports nat.PortMap) (string, error) {
	made, err := engine.ContainerCreate(ctx, &container.Config{Image: testbed.WebV1}, &container.HostConfig{PortBindings: ports}, nil, nil, "")
	if err != nil {
		return "", err
	}
	w.later(func(ctx context.Context) error {
		return engine.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true})
	})
	if err := engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return "", err
	}
	in, err := engine.ContainerInspect(ctx, made.ID)
	if err != nil {
		return "", err
	}
	return in.NetworkSettings.Networks["bridge"].IPAddress, nil
}

// taskAddress is where the only task of a service listens.
func taskAddress(ctx context.Context, shoal *client.Client, service string) (string, error) {
	tasks, err := shoal.TaskList(ctx, swarm.TaskListOptions{
		Filters: filters.NewArgs(filters.Arg("service", service), filters.Arg("desired-state", "running")),
	})
	if err != nil {
		return "", err
	}
	if len(tasks) != 1 || len(tasks[0].NetworksAttachments) == 0 || len(tasks[0].NetworksAttachments[0].Addresses) == 0 {
		return "", fmt.Errorf("service %s has %d tasks, or they have no address", service, len(tasks))
	}
	ip, _, _ := strings.Cut(tasks[0].NetworksAttachments[0].Addresses[0], "/")
	return ip, nil
}

var (
	perSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	slowest   = regexp.MustCompile(`99%\s+([0-9.]+)(us|ms|s)`)
	failures  = regexp.MustCompile(`(?m)(Socket errors|Non-2xx).*`)
)

// wrk loads a server from a host: requests per second, and the 99th percentile
// in milliseconds.
func wrk(ctx context.Context, from *testbed.Host, url string, flags []string) ([]float64, error) {
	return wrkFor(ctx, from, url, flags, parseLoad)
}

// wrkFor loads a server, and reads what wrk says.
func wrkFor(ctx context.Context, from *testbed.Host, url string, flags []string, read func(string) ([]float64, error)) ([]float64, error) {
	args := append([]string{"wrk", "--latency", "-t", "1", "-c", strconv.Itoa(connections), "-d", loadTime.String(), "--timeout", patience.String()}, flags...)
	r := from.Run(ctx, append(args, url)...)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return read(r.Stdout)
}

// parseLoad reads what wrk says. A load of which parts failed does not count.
func parseLoad(said string) ([]float64, error) {
	if failed := failures.FindString(said); failed != "" {
		return nil, errors.New(failed)
	}
	rate, p99 := perSecond.FindStringSubmatch(said), slowest.FindStringSubmatch(said)
	if rate == nil || p99 == nil {
		return nil, fmt.Errorf("wrk said:\n%s", said)
	}
	n, err := strconv.ParseFloat(rate[1], 64)
	if err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(p99[1] + p99[2])
	return []float64{n, milliseconds(d)}, err
}

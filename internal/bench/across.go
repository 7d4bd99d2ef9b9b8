package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"shoal/internal/testbed"
)

// Ports of the ways of across. The first are of services, so every node has them;
// then those where HAProxy listens.
const (
	nearPort = 8080
	farPort  = 8081
	userPort = 8082
	taskPort = 8083 // whose task HAProxy leads to

	haproxyPort     = 8084
	haproxyTaskPort = 8085
)

// bulk is how large an answer is where throughput is measured.
const bulk = 4 << 20

// across measures the ways to a server on another host than the one that is
// asked, and what else could stand in the mesh's place.
func across(ctx context.Context, l *lab) error {
	return withMany(ctx, l, 1, 2, func(m *many) (err error) {
		a := &crossing{many: m, entry: m.hosts[0], user: m.hosts[1], server: m.hosts[2]}
		defer func() { err = errors.Join(err, a.close(context.WithoutCancel(ctx))) }()
		if err := a.prepare(ctx); err != nil {
			return err
		}
		for _, kind := range []struct {
			name, path string
			flags      []string
			columns    []string
			read       func(string) ([]float64, error)
		}{
			{"connections kept alive", "", nil, []string{"requests/s", "p99 ms"}, parseLoad},
			{"a connection for each request", "", []string{"-H", "Connection: close"}, []string{"requests/s", "p99 ms"}, parseLoad},
			{"answers of 4 MiB", "bytes?n=" + strconv.Itoa(bulk), []string{"-c", "4"}, []string{"MB/s"}, parseTransfer},
		} {
			subjects := a.subjects(func(ctx context.Context, page string) ([]float64, error) {
				if err := a.forgetConnections(ctx); err != nil {
					return nil, err
				}
				return wrkFor(ctx, m.bed.Client(), page+kind.path, kind.flags, kind.read)
			})
			if err := takeTurns(ctx, l.rounds, subjects); err != nil {
				return err
			}
			printTable(os.Stdout, fmt.Sprintf("Ways to a server on another host, %s (%d rounds)", kind.name, l.rounds), kind.columns, subjects)
		}
		return nil
	})
}

// crossing is a cluster with a client beside it that takes several ways to
// servers on one host. Each way has a server of its own: see ways.
type crossing struct {
	*many
	ways
	entry  *testbed.Host // which the client asks
	user   *testbed.Host // the same, with the userspace plane
	server *testbed.Host // where all servers run

	straight, tunnel, haproxy, haproxyTask string // pages
}

func (a *crossing) subjects(load func(ctx context.Context, page string) ([]float64, error)) []*subject {
	to := func(name, page string) *subject {
		return &subject{name: name, measure: func(ctx context.Context) ([]float64, error) { return load(ctx, page) }}
	}
	mesh := func(h *testbed.Host, port int) string { return fmt.Sprintf("http://%s:%d/", h.IP, port) }
	return []*subject{
		to("straight, routed", a.straight),
		to("straight, by a host and a bare VXLAN", a.tunnel),
		to("mesh, the server's own host", mesh(a.server, nearPort)),
		to("mesh, another host", mesh(a.entry, farPort)),
		to("HAProxy on another host", a.haproxy),
		to("HAProxy on another host, to a task", a.haproxyTask),
		to("userspace plane on another host", mesh(a.user, userPort)),
	}
}

func (a *crossing) prepare(ctx context.Context) error {
	for _, h := range append(a.bed.Hosts(), a.bed.Client()) {
		if err := manyPorts(ctx, h); err != nil {
			return err
		}
	}
	if err := a.user.StopShoal(ctx); err != nil {
		return err
	}
	if err := a.user.StartShoal(ctx, "--data-plane", "proxy"); err != nil {
		return err
	}
	if err := a.whole(ctx, 1); err != nil {
		return err
	}
	var last string
	for _, port := range []uint32{nearPort, farPort, userPort, taskPort} {
		spec := publish(webService(1), port)
		spec.Name += strconv.Itoa(int(port))
		last = spec.Name
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==" + a.server.Name}}
		if err := createService(ctx, a.apis[a.entry], spec); err != nil {
			return err
		}
	}
	engine, err := a.server.Engine()
	if err != nil {
		return err
	}
	a.later(func(context.Context) error { return engine.Close() })
	var plain [3]string
	for i := range plain {
		if plain[i], err = a.run(ctx, engine, nil); err != nil {
			return err
		}
		// The engine lets nobody straight to a container.
		if err := a.server.Run(ctx, "iptables", "-w", "-I", "DOCKER-USER", "-d", plain[i], "-j", "ACCEPT").Err(); err != nil {
			return err
		}
	}
	a.straight, a.tunnel = "http://"+plain[0]+"/", "http://"+plain[1]+"/"
	task, err := taskAddress(ctx, a.apis[a.entry], last)
	if err != nil {
		return err
	}
	if err := a.bed.Client().Run(ctx, "ip", "route", "add", plain[0], "via", a.server.IP.String()).Err(); err != nil {
		return err
	}
	if err := a.bareTunnel(ctx, plain[1]); err != nil {
		return err
	}
	if err := a.entry.Run(ctx, "ip", "route", "add", plain[2], "via", a.server.IP.String()).Err(); err != nil {
		return err
	}
	if a.haproxy, err = a.startHAProxy(ctx, a.entry, haproxyPort, plain[2]); err != nil {
		return err
	}
	// The same way as the userspace plane's, through the overlay.
	if a.haproxyTask, err = a.startHAProxy(ctx, a.user, haproxyTaskPort, task); err != nil {
		return err
	}
	return a.reachable(ctx)
}

// bareTunnel routes the client to a container by the entry and a VXLAN device
// like the overlay's, with no rule on the way, and its answers back.
func (a *crossing) bareTunnel(ctx context.Context, container string) error {
	// The client's route has the tunnel's MTU, as the path would tell it.
	const dev, table, tunnelMTU = "bare", "77", "1450"
	client := a.bed.Client()
	for i, h := range []*testbed.Host{a.entry, a.server} {
		other := []*testbed.Host{a.server, a.entry}[i]
		for _, argv := range [][]string{
			{"ip", "link", "add", dev, "type", "vxlan", "id", "77", "dstport", "7789", "local", h.IP.String(), "remote", other.IP.String(), "nolearning"},
			{"ip", "addr", "add", fmt.Sprintf("192.0.2.%d/30", i+1), "dev", dev},
			{"ip", "link", "set", dev, "up"},
			{"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf." + dev + ".rp_filter=0"},
			{"iptables", "-w", "-I", "FORWARD", "-i", dev, "-j", "ACCEPT"},
			{"iptables", "-w", "-I", "FORWARD", "-o", dev, "-j", "ACCEPT"},
		} {
			if err := h.Run(ctx, argv...).Err(); err != nil {
				return err
			}
		}
	}
	for _, step := range []struct {
		on   *testbed.Host
		argv []string
	}{
		{client, []string{"ip", "route", "add", container, "via", a.entry.IP.String(), "mtu", tunnelMTU}},
		{a.entry, []string{"ip", "route", "add", container, "via", "192.0.2.2", "dev", dev}},
		{a.server, []string{"ip", "route", "add", client.IP.String(), "via", "192.0.2.1", "dev", dev, "table", table}},
		{a.server, []string{"ip", "rule", "add", "from", container, "lookup", table}},
	} {
		if err := step.on.Run(ctx, step.argv...).Err(); err != nil {
			return err
		}
	}
	return nil
}

// startHAProxy has HAProxy carry TCP from a host to a container, as it would in
// the mesh's place.
func (a *crossing) startHAProxy(ctx context.Context, on *testbed.Host, port int, container string) (page string, err error) {
	file := filepath.Join(a.bed.Dir(), fmt.Sprintf("haproxy%d.cfg", port))
	conf := fmt.Sprintf(`global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option splice-auto
listen web
  bind :%d
  server one %s:80
`, port, container)
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return "", err
	}
	cmd := on.Command(ctx, "haproxy", "-db", "-f", file)
	if err := on.StartOn(cmd); err != nil {
		return "", err
	}
	a.later(func(context.Context) error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // that it was killed
		return nil
	})
	return fmt.Sprintf("http://%s:%d/", on.IP, port), nil
}

// reachable waits until every way leads to its server.
func (a *crossing) reachable(ctx context.Context) error {
	for _, s := range a.subjects(func(ctx context.Context, page string) ([]float64, error) {
		return nil, testbed.Poll(ctx, convergence, func() error {
			_, err := a.bed.Client().Get(page)
			return err
		})
	}) {
		if _, err := s.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// forgetConnections is what it is in lab, on every host.
func (a *crossing) forgetConnections(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range a.hosts {
		g.Go(func() error { return h.Run(ctx, "conntrack", "-F").Err() })
	}
	return g.Wait()
}

var transfer = regexp.MustCompile(`Transfer/sec:\s+([0-9.]+)(KB|MB|GB)`)

// parseTransfer reads what wrk says of throughput, in MB (2^20 bytes) a second.
func parseTransfer(said string) ([]float64, error) {
	if failed := failures.FindString(said); failed != "" {
		return nil, errors.New(failed)
	}
	m := transfer.FindStringSubmatch(said)
	if m == nil {
		return nil, fmt.Errorf("wrk said:\n%s", said)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	return []float64{n * map[string]float64{"KB": 1.0 / 1024, "MB": 1, "GB": 1024}[m[2]]}, err
}

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/internal/testbed"
)

const (
	image = "web:v1"
	port  = "8080"
	// settle bounds each wait for something that is expected to happen.
	settle = 60 * time.Second
	// voters is how many hosts become managers: three go on without any one of
	// them, two would not.
	voters = 3
)

// story is the demonstration, a chapter per method.
type story struct {
	*stage
	bed   *testbed.Bed
	shoal string
}

func (s *story) first() *testbed.Host { return s.bed.Host(0) }

func (s *story) machines(ctx context.Context) error {
	n := len(s.bed.Hosts())
	if err := s.chapter(ctx, "Somewhere to run",
		fmt.Sprintf("%s on this machine: own network, own processes, a real Docker engine each.", plural(n)),
		"A further host without an engine plays the outside world.",
	); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.bed.Up(ctx); err != nil {
		return err
	}
	if err := s.importImage(ctx); err != nil {
		return err
	}
	// On a real host, systemd does this.
	if err := s.bed.StartShoal(ctx); err != nil {
		return err
	}
	for _, h := range s.bed.Hosts() {
		s.printf("   %-7s %-15s Docker engine, shoal daemon\n", h.Name, h.IP)
	}
	s.printf("   %-7s %-15s a web client\n", s.bed.Client().Name, s.bed.Client().IP)
	s.printf("   %s\n", s.paint(dim, fmt.Sprintf("ready after %.1fs, image made on the spot, no registry involved", time.Since(begin).Seconds())))
	return s.rest(ctx)
}

func (s *story) importImage(ctx context.Context) error {
	img, err := testbed.BuildImage(ctx, ".")
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range s.bed.Hosts() {
		group.Go(func() error {
			engine, err := h.Engine()
			if err != nil {
				return err
			}
			defer engine.Close()
			return img.Import(ctx, engine, image, "v1")
		})
	}
	return group.Wait()
}

func (s *story) swarm(ctx context.Context) error {
	if err := s.chapter(ctx, "A swarm", "One command makes it, one more joins a host. The words are those of Docker Swarm."); err != nil {
		return err
	}
	if err := s.run(ctx, s.first(), "shoal", "swarm", "init", "--advertise-addr", s.first().IP.String()); err != nil {
		return err
	}
	for i, h := range s.bed.Hosts()[1:] {
		role := "worker"
		if n := len(s.bed.Hosts()); n >= voters && i+1 < voters {
			role = "manager"
		}
		if err := s.join(ctx, h, role); err != nil {
			return err
		}
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	return s.run(ctx, s.first(), "shoal", "node", "ls")
}

func (s *story) join(ctx context.Context, h *testbed.Host, role string) error {
	ask := []string{"shoal", "swarm", "join-token", "--quiet", role}
	token, err := quietly(ctx, s.first(), ask...)
	if err != nil {
		return err
	}
	short := token[:min(len(token), 14)] + "..."
	s.prompt(s.first().Name, ask...)
	s.printf("%s\n\n", short)
	manager := net.JoinHostPort(s.first().IP.String(), "2377")
	s.prompt(h.Name, "shoal", "swarm", "join", "--token", short, manager)
	return s.perform(ctx, h, "shoal", "swarm", "join", "--token", token, manager)
}

func (s *story) service(ctx context.Context) error {
	if err := s.chapter(ctx, "A service", fmt.Sprintf("Three replicas of a web server, published on port %s of every node.", port)); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"shoal", "service", "create", "--name", "web", "--replicas", "3", "--publish", port + ":80", "--no-resolve-image", image},
		{"shoal", "service", "ls"},
		{"shoal", "service", "ps", "web"},
	} {
		if err := s.run(ctx, s.first(), argv...); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) traffic(ctx context.Context) error {
	if err := s.chapter(ctx, "Traffic",
		"Every node answers on the port and spreads connections over all tasks.",
		"The task sees the client's own address, not a proxy's.",
	); err != nil {
		return err
	}
	names, err := s.tasks(ctx)
	if err != nil {
		return err
	}
	client := s.bed.Client()
	for _, h := range s.bed.Hosts() {
		url := "http://" + net.JoinHostPort(h.IP.String(), port) + "/"
		s.prompt(client.Name, "curl", url)
		for range 4 {
			if err := s.fetch(ctx, client, url, names); err != nil {
				return err
			}
		}
		s.printf("\n")
	}
	url := "http://localhost:" + port + "/"
	s.prompt(s.first().Name, "curl", url)
	for range 3 {
		if err := s.fetch(ctx, s.first(), url, names); err != nil {
			return err
		}
	}
	s.printf("\n   From your own shell, too: %s\n", s.paint(bold, "curl http://"+net.JoinHostPort(s.first().IP.String(), port)))
	return s.rest(ctx)
}

// fetch gets a page and shows who answered and whom it saw.
func (s *story) fetch(ctx context.Context, from *testbed.Host, url string, names map[string]string) error {
	var got testbed.Answer
	err := testbed.Poll(ctx, settle, func() (err error) {
		got, err = from.Get(url)
		return err
	})
	if err != nil {
		return fmt.Errorf("curl %s: %w", url, err)
	}
	task := names[got.Hostname]
	if task == "" {
		task = got.Hostname
	}
	seen := s.paint(green, got.ClientIP())
	if local := strings.Contains(url, "localhost"); !local && got.ClientIP() != from.IP.String() {
		seen = s.paint(red, got.ClientIP()+" (not the client's)")
	}
	s.printf("   %s answered, and saw client %s\n", s.paint(bold, fmt.Sprintf("%-6s", task)), seen)
	return nil
}

func (s *story) scale(ctx context.Context) error {
	if err := s.chapter(ctx, "More of it"); err != nil {
		return err
	}
	return s.run(ctx, s.first(), "shoal", "service", "scale", "web=5")
}

func (s *story) failure(ctx context.Context) error {
	if err := s.chapter(ctx, "Something breaks",
		"A task's container is killed behind shoal's back, while the client goes on asking for pages.",
	); err != nil {
		return err
	}
	before, err := s.containers(ctx)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return fmt.Errorf("no container of the service is running")
	}
	victim := before[0]

	load := s.startLoad(ctx, s.bed.Hosts())
	s.prompt(victim.host.Name, "docker", "kill", victim.name)
	begin := time.Now()
	if _, err := quietly(ctx, victim.host, "docker", "kill", victim.name); err != nil {
		return err
	}
	replacement, err := s.replacement(ctx, victim)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	s.printf("   %s runs in its place on %s after %.1fs\n", s.paint(green, replacement.name), replacement.host.Name, took.Seconds())
	s.printf("   %s\n\n", load.end())
	if err := s.rest(ctx); err != nil {
		return err
	}
	return s.run(ctx, s.first(), "shoal", "service", "ps", "web")
}

func (s *story) farewell() {
	h := s.first()
	s.printf("\n%s\n\n", s.paint(bold, "It is all still running. To look further:"))
	for _, line := range [][2]string{
		{"from this shell", "export SHOAL_HOST=unix://" + h.Socket()},
		{"", s.shoal + " service ls"},
		{"the stock Docker CLI", "docker -H $SHOAL_HOST service ps web"},
		{"the service", "curl http://" + net.JoinHostPort(h.IP.String(), port)},
		{"a shell on " + h.Name, "bin/testbed --bed " + bedName + " exec " + h.Name + " bash"},
		{"the daemons' logs", "bin/testbed --bed " + bedName + " logs"},
		{"remove everything", "make demo-down"},
	} {
		s.printf("   %s %s\n", s.paint(dim, fmt.Sprintf("%-22s", line[0])), line[1])
	}
	s.printf("\n")
}

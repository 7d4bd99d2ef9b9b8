package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"shoal/internal/testbed"
)

const (
	// containers is how many are started at once: more than there are cores on
	// most machines that run this.
	containers = 6

	// lookEvery is how often an orchestrator is asked whether its tasks run. It
	// is the resolution of what is measured, and costs both the same.
	lookEvery = 5 * time.Millisecond

	// convergence bounds one round.
	convergence = time.Minute

	serviceName = "measured"
	ownNetwork  = "measured"
)

// start measures the time until six containers run.
func start(ctx context.Context, l *lab) (err error) {
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
	shoal, err := l.shoal.API()
	if err != nil {
		return err
	}
	defer shoal.Close()

	// Containers on a network of their own get a name server each, which costs
	// the engine more than its default bridge does. Tasks of a published service
	// are on such a network, so it is what they are compared to.
	if _, err := engine.NetworkCreate(ctx, ownNetwork, network.CreateOptions{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.NetworkRemove(context.WithoutCancel(ctx), ownNetwork)) }()
	if _, err := peer.NetworkCreate(ctx, ownNetwork, network.CreateOptions{Driver: "overlay"}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.NetworkRemove(context.WithoutCancel(ctx), ownNetwork)) }()

	commands := func(args ...string) func(context.Context) ([]float64, error) {
		args = append(append([]string{"run", "-d"}, args...), testbed.WebV1)
		return func(ctx context.Context) ([]float64, error) {
			return startContainers(ctx, engine, func(context.Context) error { return l.shoal.EngineDocker(args...).Err() })
		}
	}
	calls := func(networks ...string) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) ([]float64, error) {
			return startContainers(ctx, engine, func(ctx context.Context) error { return runContainer(ctx, engine, networks...) })
		}
	}
	service := func(api, engine *client.Client, spec swarm.ServiceSpec) func(context.Context) ([]float64, error) {
		return func(ctx context.Context) ([]float64, error) { return startService(ctx, api, engine, spec) }
	}
	bridge := []*subject{
		{name: "docker run -d", measure: commands()},
		{name: "the same by API calls", measure: calls()},
		{name: "shoal", measure: service(shoal, engine, webService(containers))},
		{name: "Docker Swarm", measure: service(peer, peer, webService(containers))},
	}
	own := []*subject{
		{name: "docker run -d --network", measure: commands("--network", ownNetwork)},
		{name: "the same by API calls", measure: calls(ownNetwork)},
		{name: "shoal, published", measure: service(shoal, engine, publish(webService(containers), meshPort))},
		{name: "Docker Swarm, overlay network, not published", measure: service(peer, peer, attach(webService(containers), ownNetwork))},
	}
	if err := takeTurns(ctx, l.rounds, slices.Concat(bridge, own)); err != nil {
		return err
	}
	title := fmt.Sprintf("Time until %d containers run, %%s (%d rounds)", containers, l.rounds)
	printTable(os.Stdout, fmt.Sprintf(title, "on the engine's default network"), []string{"ms"}, bridge)
	printTable(os.Stdout, fmt.Sprintf(title, "on a network of their own"), []string{"ms"}, own)
	return nil
}

// startContainers times six runs at once and clears up.
func startContainers(ctx context.Context, engine *client.Client, run func(context.Context) error) ([]float64, error) {
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for range containers {
		g.Go(func() error { return run(gctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	took := milliseconds(time.Since(begin))
	all, err := engine.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if err := engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil {
			return nil, err
		}
	}
	return []float64{took}, nil
}

func runContainer(ctx context.Context, engine *client.Client, networks ...string) error {
	endpoints := map[string]*network.EndpointSettings{}
	for _, n := range networks {
		endpoints[n] = &network.EndpointSettings{}
	}
	made, err := engine.ContainerCreate(ctx, &container.Config{Image: testbed.WebV1}, nil,
		&network.NetworkingConfig{EndpointsConfig: endpoints}, nil, "")
	if err != nil {
		return err
	}
	return engine.ContainerStart(ctx, made.ID, container.StartOptions{})
}

// startService times a service and removes it; engine is where its containers
// are.
func startService(ctx context.Context, api, engine *client.Client, spec swarm.ServiceSpec) ([]float64, error) {
	begin := time.Now()
	if err := createService(ctx, api, spec); err != nil {
		return nil, err
	}
	took := milliseconds(time.Since(begin))
	return []float64{took}, removeService(ctx, api, engine, spec.Name)
}

// createService returns when all tasks run.
func createService(ctx context.Context, api *client.Client, spec swarm.ServiceSpec) error {
	if _, err := api.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{}); err != nil {
		return err
	}
	return await(ctx, func() (bool, error) {
		tasks, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", spec.Name))})
		if err != nil {
			return false, err
		}
		running := uint64(0)
		for _, t := range tasks {
			if t.Status.State == swarm.TaskStateRunning {
				running++
			}
		}
		return running == *spec.Mode.Replicated.Replicas, nil
	})
}

// removeService returns when nothing is left of the service.
func removeService(ctx context.Context, api, engine *client.Client, name string) error {
	if err := api.ServiceRemove(ctx, name); err != nil {
		return err
	}
	return await(ctx, func() (bool, error) {
		left, err := engine.ContainerList(ctx, container.ListOptions{
			All: true, Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.name="+name)),
		})
		return len(left) == 0, err
	})
}

// await looks again and again until it is so.
func await(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, convergence)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func webService(replicas uint64) swarm.ServiceSpec {
	return swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: serviceName},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: testbed.WebV1}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
	}
}

func publish(s swarm.ServiceSpec, port uint32) swarm.ServiceSpec {
	s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{
		Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80, PublishedPort: port,
	}}}
	return s
}

func attach(s swarm.ServiceSpec, network string) swarm.ServiceSpec {
	s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: network}}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

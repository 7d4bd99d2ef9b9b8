package docker

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/internal/api"
	"shoal/task"
)

// A container that runs does not serve yet. One with a health check says when it
// does; of one without, whose service publishes ports over TCP, it is seen when
// it accepts connections, or else after the time that an update watches a task
// for, and after five seconds at least, if it has stayed up that long. Until then
// its task is STARTING, gets no traffic, and holds up a rollout.
//
// What to wait for is on the container, for the daemon may begin anew at any
// time. Looking is done from Inspect: whoever inspects a container that has not
// proven itself sets off a probe, unless one is under way, and hears of its
// outcome by a hint.

// Labels that say what a container has to prove.
const (
	labelReadyPorts    = "com.shoal.ready.ports"  // 80,443
	labelReadyWithin   = "com.shoal.ready.within" // 5s
	labelStartInterval = "com.shoal.health.start-interval"
)

const (
	// readyWithin is how long an update watches a task where nothing else is
	// said: Swarm's monitor time. A shorter one does not make anybody listen
	// sooner: on a busy machine a server takes its time to begin, and whoever is
	// sent there before that is refused.
	readyWithin = 5 * time.Second
	// probeMin and probeMax are the pauses between two looks at a port.
	probeMin = 10 * time.Millisecond
	probeMax = 250 * time.Millisecond
	// dialWithin bounds one look. The task is on this machine.
	dialWithin = time.Second
)

// readyLabels says on a container what has to be seen of it.
func readyLabels(spec *swarm.ServiceSpec) map[string]string {
	if settings, err := api.ReadSettings(spec.Labels); spec.EndpointSpec == nil || err == nil && settings.Unproven {
		return nil
	}
	var ports []string
	for _, p := range spec.EndpointSpec.Ports {
		if (p.Protocol == swarm.PortConfigProtocolTCP || p.Protocol == "") && p.TargetPort != 0 {
			ports = append(ports, strconv.Itoa(int(p.TargetPort)))
		}
	}
	if len(ports) == 0 {
		return nil
	}
	within := readyWithin
	if u := spec.UpdateConfig; u != nil {
		within = max(within, u.Monitor)
	}
	return map[string]string{labelReadyPorts: strings.Join(ports, ","), labelReadyWithin: within.String()}
}

// proof is what a running container has to show until a point in time.
type proof struct {
	until time.Time
	look  func(ctx context.Context) bool // once; it says whether that is all
	pause func(round int) time.Duration  // after that many looks
	// verdict is the health that it shows with it; late is whether it has it, too,
	// once the time is over.
	verdict task.Health
	late    bool
}

// proofOf gives what a container still has to show; nil for nothing.
func proofOf(c *client.Client, in *container.InspectResponse) *proof {
	if in.State == nil || !in.State.Running || in.Config == nil {
		return nil
	}
	started, err := time.Parse(time.RFC3339Nano, in.State.StartedAt)
	if err != nil {
		return nil
	}
	if h := in.State.Health; h != nil && h.Status != container.NoHealthcheck && h.Status != "" {
		return healthProof(c, in, started)
	}
	within, err := time.ParseDuration(in.Config.Labels[labelReadyWithin])
	if err != nil {
		return nil
	}
	ports, hosts := strings.Split(in.Config.Labels[labelReadyPorts], ","), addresses(in)
	if len(hosts) == 0 {
		return nil // it shares somebody's network
	}
	open := map[string]bool{}
	return &proof{
		until: started.Add(within), verdict: task.NoHealth, late: true,
		look: func(ctx context.Context) bool {
			for _, port := range ports {
				open[port] = open[port] || accepts(ctx, hosts, port)
			}
			return len(open) == len(ports) && !hasFalse(open)
		},
		pause: func(round int) time.Duration { return min(probeMin<<min(round, 10), probeMax) },
	}
}

func hasFalse(m map[string]bool) bool {
	for _, v := range m {
		if !v {
			return true
		}
	}
	return false
}

// healthProof emulates the interval of the start period on an engine that does
// not know it: the health check is run from here until it is passed once. What
// it is after that, the engine says.
func healthProof(c *client.Client, in *container.InspectResponse, started time.Time) *proof {
	check := in.Config.Healthcheck
	every, err := time.ParseDuration(in.Config.Labels[labelStartInterval])
	if err != nil || every <= 0 || check == nil || in.State.Health.Status != container.Starting {
		return nil
	}
	var command []string
	switch {
	case len(check.Test) > 1 && check.Test[0] == "CMD":
		command = check.Test[1:]
	case len(check.Test) == 2 && check.Test[0] == "CMD-SHELL":
		command = []string{"/bin/sh", "-c", check.Test[1]}
	default:
		return nil // the image's own, which has its own interval
	}
	within := check.Timeout
	if within <= 0 {
		within = checkWithin
	}
	id := in.ID
	return &proof{
		until: started.Add(check.StartPeriod), verdict: task.Healthy,
		look:  func(ctx context.Context) bool { return passes(ctx, c, id, command, within) },
		pause: func(int) time.Duration { return every },
	}
}

// checkWithin is the engine's default for how long a health check may take.
const checkWithin = 30 * time.Second

// addresses are those that a container can be reached at from its node.
func addresses(in *container.InspectResponse) []string {
	var all []string
	if in.NetworkSettings == nil {
		return nil
	}
	for _, n := range in.NetworkSettings.Networks {
		for _, a := range []string{n.IPAddress, n.GlobalIPv6Address} {
			if _, err := netip.ParseAddr(a); err == nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// accepts tells whether anybody listens at one of the addresses.
func accepts(ctx context.Context, hosts []string, port string) bool {
	for _, host := range hosts {
		ctx, cancel := context.WithTimeout(ctx, dialWithin)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		cancel()
		if err == nil {
			_ = conn.Close()
			return true
		}
	}
	return false
}

// passes runs a health check once.
func passes(ctx context.Context, c *client.Client, id string, command []string, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	made, err := c.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: command})
	if err != nil || c.ContainerExecStart(ctx, made.ID, container.ExecStartOptions{Detach: true}) != nil {
		return false
	}
	look := time.NewTicker(probeMin)
	defer look.Stop()
	for {
		in, err := c.ContainerExecInspect(ctx, made.ID)
		if err != nil || !in.Running {
			return err == nil && in.ExitCode == 0
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
}

// probes are those under way, and what the past ones found.
type probes struct {
	ctx    context.Context // ends with the executor
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu   sync.Mutex
	hint func(taskID string) // of the present connection to the engine
	of   map[string]*probe   // by container
}

type probe struct {
	passed bool
	cancel context.CancelFunc
}

func newProbes() *probes {
	p := &probes{of: map[string]*probe{}, hint: func(string) {}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

func (p *probes) tell(hint func(taskID string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hint = hint
}

// judge puts what a container has proven so far into what is said of it.
func (p *probes) judge(c *task.Container, want *proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.of[c.ID]
	if want == nil {
		if now != nil {
			now.cancel()
			delete(p.of, c.ID)
		}
		return
	}
	if now == nil && time.Now().Before(want.until) {
		now = p.start(c.ID, c.TaskID, want)
	}
	switch {
	case now != nil && now.passed:
		c.Health = want.verdict
	case time.Now().Before(want.until):
		c.Health = task.Starting
	case want.late:
		c.Health = want.verdict
	}
}

// start looks for a container's proof until it is there or its time is over.
func (p *probes) start(id, taskID string, want *proof) *probe {
	ctx, cancel := context.WithDeadline(p.ctx, want.until)
	n := &probe{cancel: cancel}
	p.of[id] = n
	p.wait.Go(func() {
		defer cancel()
		passed := false
		for round := 0; !passed && ctx.Err() == nil; round++ {
			if passed = want.look(ctx); passed {
				break
			}
			select {
			case <-time.After(want.pause(round)):
			case <-ctx.Done():
			}
		}
		p.mu.Lock()
		n.passed = passed
		hint := p.hint
		p.mu.Unlock()
		hint(taskID)
	})
	return n
}

// close ends all probes.
func (p *probes) close() {
	p.cancel()
	p.wait.Wait()
}

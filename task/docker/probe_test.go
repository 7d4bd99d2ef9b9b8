package docker

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/task"
)

func TestReadyLabels(t *testing.T) {
	ports := func(ps ...swarm.PortConfig) *swarm.EndpointSpec { return &swarm.EndpointSpec{Ports: ps} }
	web := swarm.PortConfig{Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80}
	tests := []struct {
		name string
		spec swarm.ServiceSpec
		want map[string]string
	}{
		{name: "nothing published"},
		{name: "UDP alone", spec: swarm.ServiceSpec{EndpointSpec: ports(swarm.PortConfig{Protocol: swarm.PortConfigProtocolUDP, TargetPort: 53})}},
		{name: "a port", spec: swarm.ServiceSpec{EndpointSpec: ports(web)}, want: map[string]string{labelReadyPorts: "80", labelReadyWithin: "5s"}},
		{
			name: "two, with a monitor time",
			spec: swarm.ServiceSpec{EndpointSpec: ports(web, swarm.PortConfig{TargetPort: 443}), UpdateConfig: &swarm.UpdateConfig{Monitor: time.Minute}},
			want: map[string]string{labelReadyPorts: "80,443", labelReadyWithin: "1m0s"},
		},
		{
			name: "watched for less than a start may take",
			spec: swarm.ServiceSpec{EndpointSpec: ports(web), UpdateConfig: &swarm.UpdateConfig{Monitor: 300 * time.Millisecond}},
			want: map[string]string{labelReadyPorts: "80", labelReadyWithin: "5s"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, readyLabels(&tt.spec)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A container counts as starting until it has shown what it has to, and its task
// is hinted at when that changes.
func TestProbes(t *testing.T) {
	tests := []struct {
		name    string
		shows   time.Duration // after which it would
		late    bool
		want    task.Health // in the end
		hinted  time.Duration
		verdict task.Health
	}{
		{name: "it accepts", shows: 300 * time.Millisecond, late: true, hinted: 300 * time.Millisecond, want: task.NoHealth},
		{name: "it stays up", shows: time.Hour, late: true, hinted: 5 * time.Second, want: task.NoHealth},
		{name: "it is healthy early", shows: 200 * time.Millisecond, hinted: 200 * time.Millisecond, verdict: task.Healthy, want: task.Healthy},
		{name: "the engine will tell", shows: time.Hour, hinted: 5 * time.Second, verdict: task.Healthy, want: task.Starting},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProbes()
				defer p.close()
				begun := time.Now()
				hints := make(chan string, 1)
				p.tell(func(taskID string) { hints <- taskID })
				ask := func() task.Health {
					c := &task.Container{ID: "c", TaskID: "t", Health: task.NoHealth}
					if tt.verdict != "" {
						c.Health = task.Starting // which is what the engine says
					}
					p.judge(c, &proof{
						until: begun.Add(5 * time.Second), verdict: tt.verdict, late: tt.late,
						look:  func(context.Context) bool { return time.Since(begun) >= tt.shows },
						pause: func(int) time.Duration { return 100 * time.Millisecond },
					})
					return c.Health
				}
				if got := ask(); got != task.Starting {
					t.Errorf("at first: %q", got)
				}
				if id := <-hints; id != "t" {
					t.Errorf("hint at %q", id)
				}
				if after := time.Since(begun); after != tt.hinted {
					t.Errorf("hinted after %s, want %s", after, tt.hinted)
				}
				for range 2 { // whoever asks again gets the same answer
					if got := ask(); got != tt.want {
						t.Errorf("in the end: %q, want %q", got, tt.want)
					}
				}
				p.judge(&task.Container{ID: "c"}, nil)
				if len(p.of) != 0 {
					t.Error("an ended container is remembered")
				}
			})
		})
	}
}

// A container that ends is not looked at any more.
func TestProbeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProbes()
		defer p.close()
		var looks atomic.Int32
		p.judge(&task.Container{ID: "c"}, &proof{
			until: time.Now().Add(time.Hour),
			look:  func(context.Context) bool { looks.Add(1); return false },
			pause: func(int) time.Duration { return time.Second },
		})
		time.Sleep(2500 * time.Millisecond)
		p.judge(&task.Container{ID: "c"}, nil)
		time.Sleep(time.Minute)
		if n := looks.Load(); n != 3 {
			t.Errorf("%d looks", n)
		}
	})
}

func TestProofOf(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	in := func(change func(*container.InspectResponse)) *container.InspectResponse {
		c := &container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{ID: "c", State: &container.State{Running: true, StartedAt: time.Now().Format(time.RFC3339Nano)}},
			Config:            &container.Config{Labels: map[string]string{labelReadyPorts: port, labelReadyWithin: "5s"}},
			NetworkSettings:   &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"n": {IPAddress: "127.0.0.1"}}},
		}
		change(c)
		return c
	}
	healthy := func(c *container.InspectResponse) {
		c.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, StartPeriod: time.Minute}
		c.State.Health = &container.Health{Status: container.Starting}
	}
	for name, tt := range map[string]struct {
		change func(*container.InspectResponse)
		want   bool // something to show
	}{
		"a published port":          {func(*container.InspectResponse) {}, true},
		"it has ended":              {func(c *container.InspectResponse) { c.State.Running = false }, false},
		"no port":                   {func(c *container.InspectResponse) { c.Config.Labels = nil }, false},
		"somebody's network":        {func(c *container.InspectResponse) { c.NetworkSettings.Networks = nil }, false},
		"its health check tells":    {healthy, false},
		"with an emulated interval": {func(c *container.InspectResponse) { healthy(c); c.Config.Labels[labelStartInterval] = "1s" }, true},
	} {
		p := proofOf(nil, in(tt.change))
		if (p != nil) != tt.want {
			t.Errorf("%s: %v", name, p)
		}
		if name == "a published port" && !p.look(t.Context()) {
			t.Errorf("port %s is open, and not seen so", port)
		}
	}
	_ = l.Close()
	if p := proofOf(nil, in(func(*container.InspectResponse) {})); p.look(t.Context()) {
		t.Errorf("port %s is closed, and seen as open", port)
	}
}

package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

func TestPortConflicts(t *testing.T) {
	w := newWorld(t)
	w.create(spec("mesh", publish(ingress(80, 8080))))
	w.create(spec("host", publish(host(80, 9090))))
	udp := swarm.PortConfig{Protocol: "udp", TargetPort: 80, PublishedPort: 8080}
	for _, c := range []struct {
		name string
		port swarm.PortConfig
		want string
	}{
		{"a", ingress(1, 8080), "port '8080' is already in use by service 'mesh' ("},
		{"b", host(1, 8080), "as an ingress port"},
		{"c", ingress(1, 9090), "as a host-published port"},
		{"d", host(1, 9090), ""},
		{"e", udp, ""},
	} {
		_, err := w.CreateService(t.Context(), spec(c.name, publish(c.port)), "")
		if c.want != "" {
			wantError(t, err, errdefs.IsInvalidArgument, c.want)
		} else if err != nil {
			t.Errorf("%+v: %v", c.port, err)
		}
	}
}

// TestHostPortsLead: what is published in host mode reaches the task, or is
// refused.
func TestHostPortsLead(t *testing.T) {
	w := newWorld(t)
	w.network(overlay("open"))
	w.network(overlay("shut", func(r *network.CreateRequest) { r.Internal = true }))
	on := func(names ...string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) {
			for _, n := range names {
				s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
			}
		}
	}
	for name, c := range map[string]struct {
		networks []string
		ports    []swarm.PortConfig
		want     string
	}{
		"bridge":           {nil, []swarm.PortConfig{host(80, 0)}, ""},
		"overlay":          {[]string{"open"}, []swarm.PortConfig{host(80, 7001)}, ""},
		"overlay-any":      {[]string{"open"}, []swarm.PortConfig{host(80, 0)}, ""},
		"mesh-any":         {nil, []swarm.PortConfig{host(80, 0), ingress(81, 7002)}, ""},
		"internal-any":     {[]string{"shut"}, []swarm.PortConfig{host(80, 0)}, "port 80/tcp is published in host mode, and all networks of the service are internal"},
		"internal":         {[]string{"shut"}, []swarm.PortConfig{host(80, 7003)}, "port 7003/tcp is published in host mode, and all networks of the service are internal"},
		"internal-mesh":    {[]string{"shut"}, []swarm.PortConfig{host(80, 7004), ingress(81, 7005)}, ""},
		"internal-overlay": {[]string{"shut", "open"}, []swarm.PortConfig{host(80, 7006)}, ""},
	} {
		_, err := w.CreateService(t.Context(), spec(name, publish(c.ports...), on(c.networks...)), "")
		if c.want != "" {
			wantError(t, err, errdefs.IsInvalidArgument, c.want)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAutomaticPortIsKept(t *testing.T) {
	w := newWorld(t)
	w.create(spec("first", publish(ingress(80, 30000))))
	s := w.create(spec("web", publish(ingress(80, 0), ingress(81, 0))))
	if p := s.Endpoint.Ports; p[0].PublishedPort != 30001 || p[1].PublishedPort != 30002 {
		t.Fatalf("chosen: %+v", p)
	}
	if s.Spec.EndpointSpec.Ports[0].PublishedPort != 0 {
		t.Fatal("the choice was written into the spec")
	}
	if err := w.RemoveService(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	s = w.change(s.ID, publish(ingress(81, 0)))
	if p := s.Endpoint.Ports; len(p) != 1 || p[0].PublishedPort != 30002 {
		t.Fatalf("not kept: %+v", p)
	}
}

func TestPortsHeldByOthersOnNodes(t *testing.T) {
	w := newWorld(t)
	w.ports.taken = map[string]string{"tcp/8080": "nginx (pid 123)", "tcp/8081": "", "tcp/30000": "x"}
	_, err := w.CreateService(t.Context(), spec("a", publish(ingress(80, 8080))), "")
	wantError(t, err, errdefs.IsInvalidArgument, "port 8080/tcp is already in use on node n1 by nginx (pid 123)")
	_, err = w.CreateService(t.Context(), spec("a", publish(ingress(80, 8081))), "")
	wantError(t, err, errdefs.IsInvalidArgument, "port 8081/tcp is already in use on node n1")
	if s := w.create(spec("auto", publish(ingress(80, 0)))); s.Endpoint.Ports[0].PublishedPort != 30001 {
		t.Fatalf("chose %+v", s.Endpoint.Ports)
	}
	if _, err := w.CreateService(t.Context(), spec("host", publish(host(80, 8080))), ""); err != nil {
		t.Fatalf("a host port is the node's own business: %v", err)
	}
}

func TestPortsThatAServiceHasAreNotAskedFor(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web", publish(ingress(80, 8080))))
	w.ports.asked = nil
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
	if len(w.ports.asked) != 0 {
		t.Fatalf("asked for %v", w.ports.asked)
	}
	w.change(s.ID, publish(ingress(80, 8080), ingress(81, 8081)))
	if len(w.ports.asked) != 1 || len(w.ports.asked[0]) != 1 || w.ports.asked[0][0].Published != 8081 {
		t.Fatalf("asked for %v", w.ports.asked)
	}
}

func TestNodeThatDoesNotAnswerDoesNotBlock(t *testing.T) {
	w := newWorld(t)
	w.ports.err = errors.New("node n2 does not answer")
	w.create(spec("web", publish(ingress(80, 8080))))
}

func TestSilentNodeDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Control.ports = silentPorts{}
		start := time.Now()
		w.create(spec("web", publish(ingress(80, 8080))))
		if took := time.Since(start); took != checkTimeout {
			t.Errorf("took %s, want %s", took, checkTimeout)
		}
	})
}

type silentPorts struct{}

func (silentPorts) InUse(ctx context.Context, _ []api.Port) ([]NodePortOwner, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestRollbackChecksPorts(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web", publish(ingress(80, 8080))))
	s = w.change(s.ID, publish(ingress(80, 8081)))
	w.create(spec("other", publish(ingress(80, 8080))))
	err := w.UpdateService(t.Context(), "web", Update{Version: s.Version, Rollback: true})
	wantError(t, err, errdefs.IsInvalidArgument, "port '8080' is already in use by service 'other'")
}

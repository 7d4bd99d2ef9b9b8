//go:build linux

package meshtest

import (
	"testing"

	"shoal/internal/api"
	"shoal/internal/netkit/nettest"
)

// TestHostPort: what a task publishes on its own node alone is like what the mesh
// publishes.
func TestHostPort(t *testing.T) {
	h := newHost(t)
	h.network("a", "10.1.0.0/24", func(*api.Network) {})
	h.network("b", "10.2.0.0/24", func(*api.Network) {})
	web, other := h.run("a", "10.1.0.7/24"), h.run("b", "10.2.0.7/24")
	h.serve(web, "web")
	h.service("s1", "a", "10.1.0.5", 0, web)
	backend := &h.state.Endpoints["s1"].Backends[0]
	for _, proto := range []string{"tcp", "udp"} {
		backend.Ports = append(backend.Ports, api.Port{Protocol: proto, Target: 80, Published: 9090})
	}
	h.state.Tasks = map[string]*api.Assignment{backend.TaskID: {Task: &api.Task{Meta: api.Meta{ID: backend.TaskID}, NodeID: nodeID}, Revision: &api.Revision{}}}
	h.set()
	for _, proto := range []string{"tcp", "udp"} {
		h.want(h.client, proto, "192.0.2.1:9090", "web 192.0.2.2")
		h.want(self{}, proto, "192.0.2.1:9090", "web 192.0.2.1")
		h.want(self{}, proto, "127.0.0.1:9090", "web 192.0.2.1")
		h.want(other, proto, "192.0.2.1:9090", "web 10.2.0.7")
		h.want(web, proto, "192.0.2.1:9090", "web 169.254.1.1")
	}
	h.service("s1", "a", "10.1.0.5", 0) // it drains
	h.set()
	h.refused(h.client, "tcp", "192.0.2.1:9090")
}

// TestDaemonPorts: containers find no daemon, on whichever node; the rest of
// these hosts is theirs to reach.
func TestDaemonPorts(t *testing.T) {
	h := newHost(t)
	h.network("a", "10.1.0.0/24", func(*api.Network) {})
	a := h.run("a", "10.1.0.7/24")
	h.state.Node = &api.Node{Meta: api.Meta{ID: nodeID}, DataPath: nodeAddr.String(), Addr: "192.0.2.1:2377"}
	h.state.Peers = map[string]api.Peer{"node2": {NodeID: "node2", Addr: "192.0.2.2:2377"}}
	h.set()
	for _, addr := range []string{"192.0.2.1:2377", "192.0.2.1:2378"} {
		ln := h.listenHere(addr)
		defer func() { _ = ln.Close() }()
	}
	away := task{NS: h.client}
	h.serveAt(&away, ":2377", "daemon")
	h.serveAt(&away, ":2378", "other")

	h.want(self{}, "tcp", "192.0.2.1:2377", "the host itself")
	h.want(self{}, "tcp", "192.0.2.2:2377", "daemon 192.0.2.1")
	h.want(self{}, "udp", "192.0.2.2:2377", "daemon 192.0.2.1")
	for _, addr := range []string{"192.0.2.1:2377", "192.0.2.2:2377"} {
		h.refused(a, "tcp", addr)
		// The kernel rations what it says of datagrams, so it may say nothing.
		if got, err := getWithin(silence, a, "udp", addr); err == nil {
			t.Errorf("udp %s answers %q", addr, got)
		}
	}
	h.want(a, "tcp", "192.0.2.2:2378", "other 192.0.2.1")
	h.want(a, "udp", "192.0.2.2:2378", "other 192.0.2.1")
	h.want(a, "tcp", "192.0.2.1:2378", "the host itself")
}

// TestPublishedNamesPort: who publishes port 53 gets what comes to this host's
// addresses, and neither containers' questions nor those of the host to a server
// of its own, with or without tasks behind the port.
func TestPublishedNamesPort(t *testing.T) {
	h := newHost(t)
	h.network("ing", "10.0.0.0/24", ingress)
	web, other := h.run("ing", "10.0.0.7/24"), h.run("ing", "10.0.0.9/24")
	h.serve(web, "web")
	h.service("s1", "ing", "10.0.0.5", 53, web)
	h.set()
	here := task{NS: nettest.Here(t)}
	h.serveAt(&here, "169.254.1.1:53", "names")
	h.serveAt(&here, "127.0.0.53:53", "resolver")
	undisturbed := func() {
		t.Helper()
		for _, proto := range []string{"tcp", "udp"} {
			h.want(other, proto, "169.254.1.1:53", "names 10.0.0.9")
			h.want(self{}, proto, "127.0.0.53:53", "resolver 127.0.0.1")
		}
	}
	undisturbed()
	for _, proto := range []string{"tcp", "udp"} {
		h.want(h.client, proto, "192.0.2.1:53", "web 192.0.2.2")
		h.want(other, proto, "192.0.2.1:53", "web 10.0.0.9")
		h.want(self{}, proto, "127.0.0.1:53", "web 192.0.2.1")
	}
	h.service("s1", "ing", "10.0.0.5", 53)
	h.set()
	h.refused(h.client, "tcp", "192.0.2.1:53")
	undisturbed()
}

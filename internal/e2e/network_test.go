package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// netBed is a cluster of three, with a task of each of these on every node:
//
//	web    on front, publishes 8080 through the mesh
//	db     on back, without a virtual address
//	both   on front and back, publishes 8181 through the mesh and 9090 on its node
//	inner  on open, which is attachable
//	shut   on shut, which is internal
type netBed struct {
	bed   *testbed.Bed
	h     *testbed.Host
	spots map[string][]spot // tasks by service, in the order of the hosts
}

// spot is a container, where it is, and its address on each of its networks.
type spot struct {
	host  *testbed.Host
	id    string
	addrs map[string]string // by network
}

// name is the container's hostname, which its server says it is.
func (p spot) name() string { return p.id[:12] }

// TestNetworks: who shares a network is reached by name, address and virtual
// address, from whatever node; nobody else is. Published ports are answered by
// every node and every task, whichever networks these are on, and a task sees
// who asks.
func TestNetworks(t *testing.T) {
	t.Parallel()
	b := &netBed{bed: swarmOf(t, 1, 2), spots: map[string][]spot{}}
	b.h = b.bed.Host(0)
	for _, args := range [][]string{{"front"}, {"back"}, {"--attachable", "open"}, {"--internal", "shut"}} {
		testbed.Must(t, b.h.Shoal(append([]string{"network", "create", "-d", "overlay"}, args...)...))
	}
	services := map[string][]string{
		"web":   {"--network", "name=front,alias=www", "--publish", "8080:80", "--publish", "8080:80/udp"},
		"db":    {"--network", "back", "--endpoint-mode", "dnsrr"},
		"both":  {"--network", "front", "--network", "back", "--publish", "8181:80", "--publish", "8181:80/udp", "--publish", "mode=host,target=80,published=9090", "--publish", "mode=host,target=80,published=9090,protocol=udp"},
		"inner": {"--network", "open", "--publish", "mode=host,target=80"},
		"shut":  {"--network", "shut"},
	}
	for name, args := range services {
		create(t, b.h, append(append([]string{"-d", "--name", name, "--mode", "global"}, args...), testbed.WebV1)...)
	}
	for name := range services {
		testbed.Eventually(t, patience, running(t, b.h, name, 3))
		b.spots[name] = b.find(t, name)
	}
	// What a task asks is asked at once of all nodes: they have to know all of this.
	b.settled(t)

	t.Run("names", b.names)
	t.Run("published", b.published)
	t.Run("published by a number of the node's", b.chosen)
	t.Run("isolation", b.isolation)
	t.Run("a way out", b.wayOut)
	t.Run("attachable", b.attachable)
	t.Run("networks of a service change", b.moved)
	t.Run("another ingress network", b.ingress)
	t.Run("removal", b.removal)
}

func (b *netBed) find(t *testing.T, service string) []spot {
	t.Helper()
	return spotsOf(t, b.bed, service)
}

// spotsOf gives the tasks of a service, in the order of their hosts. The first
// host is a manager.
func spotsOf(t *testing.T, bed *testbed.Bed, service string) (all []spot) {
	t.Helper()
	names := map[string]string{}
	for _, line := range lines(testbed.Must(t, bed.Host(0).Shoal("node", "ls", "--format", "{{.ID}} {{.Hostname}}"))) {
		id, name, _ := strings.Cut(line, " ")
		names[id] = strings.Fields(name)[0]
	}
	for _, task := range tasks(t, bed.Host(0), service) {
		h, err := bed.Lookup(names[task.NodeID])
		if err != nil {
			t.Fatal(err)
		}
		p := spot{host: h, id: containerOf(task), addrs: map[string]string{}}
		for _, at := range task.NetworksAttachments {
			p.addrs[at.Network.Spec.Name] = netip.MustParsePrefix(at.Addresses[0]).Addr().String()
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b spot) int { return strings.Compare(a.host.Name, b.host.Name) })
	return all
}

// vip is a service's virtual address on a network.
func (b *netBed) vip(t *testing.T, name, network string) string {
	t.Helper()
	id := strings.TrimSpace(testbed.Must(t, b.h.Shoal("network", "inspect", "--format", "{{.ID}}", network)))
	for _, v := range service(t, b.h, name).Endpoint.VirtualIPs {
		if v.NetworkID == id {
			return netip.MustParsePrefix(v.Addr).Addr().String()
		}
	}
	t.Fatalf("%s has no virtual address on %s", name, network)
	return ""
}

// settled waits until every task finds all of its own service, by name and by
// virtual address.
func (b *netBed) settled(t *testing.T) {
	t.Helper()
	for name, network := range map[string]string{"web": "front", "both": "back", "db": "back", "inner": "open", "shut": "shut"} {
		want := addresses(b.spots[name], network)
		for _, p := range b.spots[name] {
			testbed.Eventually(t, patience, func() error {
				r, err := p.talk(t, webapp.Question{"name", "tasks." + name + "." + network}, webapp.Question{"get", "http://" + name + "/"})
				if err != nil || !slices.Equal(r[0].Names, want) || r[1].Error != "" {
					return fmt.Errorf("%s on %s finds %v, want %v, and %s: %v", name, p.host.Name, r[0].Names, want, r[1].Error, err)
				}
				return nil
			})
		}
	}
}

func addresses(spots []spot, network string) (all []string) {
	for _, p := range spots {
		all = append(all, p.addrs[network])
	}
	slices.Sort(all)
	return all
}

// talk has questions put from inside a container, all in one command.
func (p spot) talk(t *testing.T, questions ...webapp.Question) ([]webapp.Reply, error) {
	t.Helper()
	in, err := json.Marshal(questions)
	if err != nil {
		t.Fatal(err)
	}
	r := p.host.RunInput(t.Context(), bytes.NewReader(in), "docker", "-H", "unix:///run/docker.sock", "exec", "-i", p.id, "webapp", "talk")
	replies := make([]webapp.Reply, len(questions))
	if err := r.Err(); err != nil {
		return replies, err
	}
	if err := json.Unmarshal([]byte(r.Stdout), &replies); err != nil || len(replies) != len(questions) {
		return make([]webapp.Reply, len(questions)), fmt.Errorf("%d replies to %d questions: %w", len(replies), len(questions), err)
	}
	return replies, nil
}

// must is talk where a container that can not talk is the end of the test.
func (p spot) must(t *testing.T, questions ...webapp.Question) []webapp.Reply {
	t.Helper()
	r, err := p.talk(t, questions...)
	if err != nil {
		t.Fatalf("in %s on %s: %v", p.name(), p.host.Name, err)
	}
	return r
}

func (b *netBed) names(t *testing.T) {
	web, db, both := b.spots["web"], b.spots["db"], b.spots["both"]
	vip := b.vip(t, "web", "front")
	type want struct {
		question, of string
		names        []string // nil: nobody knows it
	}
	for _, c := range []struct {
		from  spot
		wants []want
	}{
		{web[1], []want{
			{"name", "web", []string{vip}},
			{"name", "www", []string{vip}},
			{"name", "web.front", []string{vip}},
			{"name", "tasks.www", addresses(web, "front")},
			{"name", "both", []string{b.vip(t, "both", "front")}},
			{"name", web[2].name(), []string{web[2].addrs["front"]}},
			{"addr", vip, []string{"web.front."}},
			{"name", "db", nil},
			{"name", "tasks.db", nil},
			{"name", "both.back", nil},
			{"name", db[0].name(), nil},
			{"name", "inner", nil},
			{"addr", db[0].addrs["back"], nil},
		}},
		{both[2], []want{
			{"name", "web", []string{vip}},
			{"name", "both.back", []string{b.vip(t, "both", "back")}},
			{"name", "db", addresses(db, "back")},
			{"name", "tasks.db.back", addresses(db, "back")},
			{"name", "shut", nil},
		}},
	} {
		var questions []webapp.Question
		for _, w := range c.wants {
			questions = append(questions, webapp.Question{w.question, w.of})
		}
		for i, r := range c.from.must(t, questions...) {
			w := c.wants[i]
			if !slices.Equal(r.Names, w.names) || (w.names == nil) != (r.Error != "") {
				t.Errorf("%s %s: %v %s, want %v", w.question, w.of, r.Names, r.Error, w.names)
			}
		}
	}
	// The way back to a task names it, and its network.
	got := both[0].must(t, webapp.Question{"addr", db[1].addrs["back"]})[0]
	if len(got.Names) != 1 || !strings.HasPrefix(got.Names[0], "db.") || !strings.HasSuffix(got.Names[0], ".back.") {
		t.Errorf("the name of a task's address: %v %s", got.Names, got.Error)
	}

	// A container that ends is nobody's answer any more, long before its
	// successor is.
	dead := db[1]
	testbed.Must(t, dead.host.EngineDocker("kill", dead.id))
	testbed.Eventually(t, patience, func() error {
		r := both[0].must(t, webapp.Question{"name", "db"})[0]
		if slices.Contains(r.Names, dead.addrs["back"]) {
			return fmt.Errorf("db is still at %s, among %v", dead.addrs["back"], r.Names)
		}
		return nil
	})
	testbed.Eventually(t, patience, func() error {
		if err := running(t, b.h, "db", 3)(); err != nil {
			return err
		}
		b.spots["db"] = b.find(t, "db")
		want := addresses(b.spots["db"], "back")
		if r := both[0].must(t, webapp.Question{"name", "db"})[0]; !slices.Equal(r.Names, want) {
			return fmt.Errorf("db is at %v, want %v", r.Names, want)
		}
		return nil
	})
	if slices.Contains(addresses(b.spots["db"], "back"), dead.addrs["back"]) {
		t.Error("the address of a task that just ended was given out again")
	}
}

// removal: a network in use stays; one that is not leaves nothing behind, on a
// node whose daemon or engine is away neither.
func (b *netBed) removal(t *testing.T) {
	refused(t, b.h.Shoal("network", "rm", "front"), "network front is in use by service")
	h2, h3 := b.bed.Host(1), b.bed.Host(2)
	if err := h2.StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h3.KillEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, b.h.Shoal("service", "rm", "web", "db", "both", "inner", "shut"))
	testbed.Must(t, b.h.Shoal("network", "rm", "front", "back", "open", "shut"))
	b.gone(t, b.h)
	if err := h2.StartShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h3.StartEngine(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.gone(t, h2)
	b.gone(t, h3)
}

// gone waits until a host has none of the networks any more.
func (b *netBed) gone(t *testing.T, h *testbed.Host) {
	t.Helper()
	began := time.Now()
	testbed.Eventually(t, patience, func() error {
		r := h.EngineDocker("network", "ls", "--format", "{{.Name}}")
		if err := r.Err(); err != nil {
			return err
		}
		for _, n := range lines(r.Stdout) {
			if slices.Contains([]string{"front", "back", "open", "shut"}, n) {
				return fmt.Errorf("the engine of %s still has %s", h.Name, n)
			}
		}
		for _, r := range lines(testbed.Must(t, h.Run(t.Context(), "ip", "-4", "route", "show", "proto", "83"))) {
			if !strings.HasPrefix(r, "local 10.99.0.0/24 ") { // the ingress network's
				return fmt.Errorf("%s still has the route %s", h.Name, r)
			}
		}
		return nil
	})
	t.Logf("%s: gone after %s", h.Name, time.Since(began).Round(time.Millisecond))
}

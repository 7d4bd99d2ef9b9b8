package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// tries is how often each question is put: the chance that one of three tasks
// is never chosen is one in ten million.
const tries = 40

// published: every node asked by everybody, over TCP and UDP, answers with every
// task (or with its own, for a port in host mode), and the task sees who asked.
func (b *netBed) published(t *testing.T) {
	for _, target := range b.bed.Hosts() {
		for _, port := range []string{"8080", "8181", "9090"} {
			client := b.bed.Client()
			b.fromHost(t, client, target.IP.String(), port, target, client.IP.String())
			for _, h := range b.bed.Hosts() {
				b.fromHost(t, h, target.IP.String(), port, target, h.IP.String())
				if h == target {
					b.fromHost(t, h, "127.0.0.1", port, target, h.IP.String())
				}
			}
		}
	}
	for _, service := range []string{"web", "db", "both"} {
		for _, p := range b.spots[service] {
			b.fromTask(t, p)
		}
	}
}

// chosen: who publishes in host mode without a number is reached by the one that
// its node chose and said, and goes on to be when the daemon is another.
func (b *netBed) chosen(t *testing.T) {
	client := b.bed.Client()
	for _, task := range tasks(t, b.h, "inner") {
		ports := task.Status.PortStatus.Ports
		if len(ports) != 1 || ports[0].TargetPort != 80 || ports[0].PublishedPort == 0 || ports[0].PublishMode != swarm.PortConfigPublishModeHost {
			t.Fatalf("%s says that it publishes %+v", task.ID, ports)
		}
		i := slices.IndexFunc(b.spots["inner"], func(p spot) bool { return p.id == containerOf(task) })
		p := b.spots["inner"][i]
		answers := func() error {
			a, err := client.Get(fmt.Sprintf("http://%s:%d/", p.host.IP, ports[0].PublishedPort))
			if err != nil || a.Hostname != p.name() || a.ClientIP() != client.IP.String() {
				return fmt.Errorf("port %d of %s: %q answers and sees %q, want %q and %q: %v", ports[0].PublishedPort, p.host.Name, a.Hostname, a.Client, p.name(), client.IP, err)
			}
			return nil
		}
		testbed.Eventually(t, patience, answers)
		do(t, p.host.KillShoal)
		do(t, startShoal(p.host))
		testbed.Eventually(t, patience, answers)
		testbed.Eventually(t, patience, func() error { // the manager may be the one that was killed
			ps := b.h.Shoal("service", "ps", "--format", "{{.Ports}}", "--filter", "id="+task.ID, "inner")
			if want := fmt.Sprintf("*:%d->80/tcp", ports[0].PublishedPort); strings.TrimSpace(ps.Stdout) != want {
				return fmt.Errorf("service ps shows %q, want %q: %v", ps.Stdout, want, ps.Err())
			}
			return nil
		})
	}
}

// servers of a published port.
func (b *netBed) servers(port string) map[string]spot {
	service := map[string]string{"8080": "web", "8181": "both", "9090": "both"}[port]
	out := map[string]spot{}
	for _, p := range b.spots[service] {
		out[p.name()] = p
	}
	return out
}

// fromHost asks from a host, by both protocols.
func (b *netBed) fromHost(t *testing.T, from *testbed.Host, addr, port string, target *testbed.Host, self string) {
	t.Helper()
	var tcp, udp []webapp.Reply
	for range tries {
		a, err := from.Get("http://" + addr + ":" + port + "/")
		tcp = append(tcp, replied(a.Report, err))
		rep, uerr := from.AskUDP(addr+":"+port, "hello", 2*time.Second)
		if udp = append(udp, replied(rep, uerr)); err != nil || uerr != nil {
			break // the rest would only take long
		}
	}
	what := fmt.Sprintf("from %s to %s:%s", from.Name, addr, port)
	b.judge(t, what+", TCP", port, from, target, self, tcp)
	b.judge(t, what+", UDP", port, from, target, self, udp)
}

func replied(rep webapp.Report, err error) webapp.Reply {
	r := webapp.Reply{Report: rep}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// fromTask asks all nodes from inside a task. Its own node sees the task; to the
// others it goes out as every container does, as its node.
func (b *netBed) fromTask(t *testing.T, p spot) {
	t.Helper()
	type way struct {
		port, protocol string
		target         *testbed.Host
	}
	var ways []way
	var questions []webapp.Question
	for _, target := range b.bed.Hosts() {
		for _, port := range []string{"8080", "8181", "9090"} {
			ways = append(ways, way{port, "TCP", target}, way{port, "UDP", target})
			at := target.IP.String() + ":" + port
			for range tries {
				questions = append(questions, webapp.Question{"get", "http://" + at + "/"})
			}
			for range tries {
				questions = append(questions, webapp.Question{"ask", at, "hello"})
			}
		}
	}
	replies := p.must(t, questions...)
	for i, w := range ways {
		what := fmt.Sprintf("from %s on %s to %s:%s, %s", p.name(), p.host.Name, w.target.Name, w.port, w.protocol)
		self := ""
		if w.target != p.host || w.protocol == "UDP" && b.kin(p, w.port) {
			self = p.host.IP.String()
		}
		b.judge(t, what, w.port, p.host, w.target, self, replies[i*tries:(i+1)*tries], p)
	}
}

// kin tells whether a task shares a network with those behind a port, and not
// the one that both of them publish ports by: to them it is its node by UDP, or
// they would answer it directly, unasked.
func (b *netBed) kin(p spot, port string) bool {
	for _, s := range b.servers(port) {
		for network := range s.addrs {
			if p.addrs["ingress"] == "" && p.addrs[network] != "" {
				return true
			}
		}
	}
	return false
}

// judge looks at who answered, and whom they saw. self is the address that who
// asks goes by; "" stands for any of a task's own.
func (b *netBed) judge(t *testing.T, what, port string, from, target *testbed.Host, self string, replies []webapp.Reply, asker ...spot) {
	t.Helper()
	servers, seen := b.servers(port), map[string]bool{}
	for _, r := range replies {
		server, ok := servers[r.Hostname]
		if r.Error != "" || !ok {
			t.Errorf("%s: answered by %q: %s", what, r.Hostname, r.Error)
			return
		}
		seen[r.Hostname] = true
		saw, want := r.ClientIP(), []string{self}
		switch {
		case target == from && len(asker) > 0 && asker[0].id == server.id:
			want = []string{"169.254.1.1"} // itself
		case self == "":
			want = slices.Collect(maps.Values(asker[0].addrs))
		case target != from && server.host == from && port != "9090":
			// A node takes nothing from outside that comes from itself.
			want = []string{target.IP.String()}
		}
		if !slices.Contains(want, saw) {
			t.Errorf("%s: %s on %s saw %s, want %v", what, r.Hostname, server.host.Name, saw, want)
			return
		}
		if port == "9090" && server.host != target {
			t.Errorf("%s: answered by a task of %s", what, server.host.Name)
		}
	}
	if want := map[bool]int{true: 1, false: len(servers)}[port == "9090"]; len(seen) != want {
		t.Errorf("%s: %d tasks answer, want %d", what, len(seen), want)
	}
}

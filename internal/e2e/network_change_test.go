package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// attachable: containers of docker run are reached, and reach.
func (b *netBed) attachable(t *testing.T) {
	h := b.bed.Host(1)
	refused(t, h.Docker("run", "-d", "--network", "front", testbed.WebV1), "network front not manually attachable")
	testbed.Must(t, h.Docker("run", "-d", "--name", "guest", "--network", "open", "--network-alias", "visitor", testbed.WebV1))
	guest := spot{host: h, addrs: map[string]string{}}
	in := inspect(t, h, "guest")
	guest.id = in.ID
	for _, n := range in.NetworkSettings.Networks {
		guest.addrs["open"] = n.IPAddress
	}
	inner := b.spots["inner"]
	testbed.Eventually(t, patience, func() error {
		r := guest.must(t, webapp.Question{"name", "tasks.inner"}, webapp.Question{"get", "http://inner/"}, webapp.Question{"name", "web"})
		if !slices.Equal(r[0].Names, addresses(inner, "open")) || r[1].Error != "" || r[1].ClientIP() != guest.addrs["open"] || r[2].Error == "" {
			return fmt.Errorf("the guest: tasks %v %s, by name %s as %s, and a stranger is %v", r[0].Names, r[0].Error, r[1].Error, r[1].ClientIP(), r[2].Names)
		}
		return nil
	})
	for _, p := range inner {
		testbed.Eventually(t, patience, func() error {
			for _, name := range []string{guest.addrs["open"], "guest", "visitor", "guest.open", guest.name()} {
				r := p.must(t, webapp.Question{"get", "http://" + name + "/"})[0]
				if r.Error != "" || r.Hostname != guest.name() || r.ClientIP() != p.addrs["open"] {
					return fmt.Errorf("from %s by %s: %s answers, saw %s, want %s: %s", p.host.Name, name, r.Hostname, r.ClientIP(), p.addrs["open"], r.Error)
				}
			}
			return nil
		})
	}
	// inner[1] is the task on this host; its address stays its own.
	theirs := inner[1].addrs["open"]
	refused(t, h.Docker("run", "-d", "--name", "thief", "--network", "open", "--ip", theirs, testbed.WebV1), theirs+": Address already in use")
	testbed.Must(t, h.Docker("rm", "-f", "thief"))
	if r := inner[0].must(t, webapp.Question{"get", "http://" + theirs + "/"})[0]; r.Error != "" || r.Hostname != inner[1].name() {
		t.Errorf("%s answers at the task's address: %s", r.Hostname, r.Error)
	}
	refused(t, b.h.Shoal("network", "rm", "open"), "network open is in use by")
	if r := b.spots["web"][0].must(t, webapp.Question{"name", "guest"})[0]; r.Error == "" {
		t.Errorf("who is not on its network knows the guest: %v", r.Names)
	}
	testbed.Must(t, h.Docker("rm", "-f", "guest"))
	testbed.Eventually(t, patience, func() error {
		if r := inner[0].must(t, webapp.Question{"name", "guest"})[0]; r.Error == "" {
			return fmt.Errorf("the guest has left, and is still at %v", r.Names)
		}
		return nil
	})
}

// moved: a service changes its networks, and what it knows and who knows it
// follows.
func (b *netBed) moved(t *testing.T) {
	create(t, b.h, "--name", "mover", "--network", "front", testbed.WebV1)
	update(t, b.h, "--network-add", "name=back,alias=new", "mover")
	p := b.find(t, "mover")[0]
	if p.addrs["front"] == "" || p.addrs["back"] == "" {
		t.Fatalf("its addresses: %v", p.addrs)
	}
	testbed.Eventually(t, patience, func() error {
		r := p.must(t, webapp.Question{"get", "http://web/"}, webapp.Question{"get", "http://db/"})
		far := b.spots["db"][2].must(t, webapp.Question{"get", "http://new/"}, webapp.Question{"name", "web"})
		if r[0].Error+r[1].Error+far[0].Error != "" || far[0].Hostname != p.name() || far[1].Error == "" {
			return fmt.Errorf("on both: %s, %s, %s, and web is %v", r[0].Error, r[1].Error, far[0].Error, far[1].Names)
		}
		return nil
	})
	update(t, b.h, "--network-rm", "front", "mover")
	p = b.find(t, "mover")[0]
	if len(p.addrs) != 1 || p.addrs["back"] == "" {
		t.Fatalf("its addresses: %v", p.addrs)
	}
	testbed.Eventually(t, patience, func() error {
		r := p.must(t, webapp.Question{"get", "http://db/"}, webapp.Question{"name", "web"})
		far := b.spots["web"][2].must(t, webapp.Question{"name", "mover"})
		if r[0].Error != "" || r[1].Error == "" || far[0].Error == "" {
			return fmt.Errorf("on back alone: %s, web is %v, and it is %v for web", r[0].Error, r[1].Names, far[0].Names)
		}
		return nil
	})
	testbed.Must(t, b.h.Shoal("service", "rm", "mover"))
}

// ingress: the network that published ports lead through is like any other. One
// with another subnet and a smaller MTU takes its place.
func (b *netBed) ingress(t *testing.T) {
	refused(t, b.h.RunInput(t.Context(), strings.NewReader("y\n"), b.h.ShoalBinary(), "network", "rm", "ingress"), "ingress network cannot be removed because service")
	update(t, b.h, "--publish-rm", "80", "--publish-rm", "80/udp", "-d", "web")
	update(t, b.h, "--publish-rm", "80", "--publish-rm", "80/udp", "-d", "both")
	testbed.Eventually(t, patience, func() error {
		return b.h.RunInput(t.Context(), strings.NewReader("y\n"), b.h.ShoalBinary(), "network", "rm", "ingress").Err()
	})
	refused(t, b.h.Shoal("service", "create", "-d", "--name", "early", "--publish", "8383:80", testbed.WebV1), "no ingress network is present")
	testbed.Must(t, b.h.Shoal("network", "create", "-d", "overlay", "--ingress", "--subnet", "10.99.0.0/24",
		"--opt", "com.docker.network.driver.mtu=1300", "entry"))
	create(t, b.h, "--name", "late", "--mode", "global", "--publish", "8383:80", testbed.WebV1)
	for _, p := range b.find(t, "late") {
		if !strings.HasPrefix(p.addrs["entry"], "10.99.0.") {
			t.Errorf("late on %s: %v", p.host.Name, p.addrs)
		}
		mtu := testbed.Must(t, p.host.EngineDocker("exec", p.id, "cat", "/sys/class/net/eth0/mtu"))
		if strings.TrimSpace(mtu) != "1300" {
			t.Errorf("MTU of late on %s: %s", p.host.Name, mtu)
		}
	}
	client := b.bed.Client()
	for _, h := range b.bed.Hosts() {
		testbed.Eventually(t, patience, func() error {
			got, err := answers(client, url(h, "8383"), 3)
			for _, a := range got {
				if a.ClientIP() != client.IP.String() {
					t.Errorf("by %s: a task saw %s", h.Name, a.ClientIP())
				}
			}
			return err
		})
	}
	testbed.Must(t, b.h.Shoal("service", "rm", "late"))
	for _, h := range b.bed.Hosts() { // or its tasks would be at an end when their engine is
		testbed.Eventually(t, patience, func() error {
			for _, way := range lines(testbed.Must(t, h.Run(t.Context(), "ip", "-4", "route", "show", "proto", "83"))) {
				if strings.HasPrefix(way, "10.99.0.") {
					return fmt.Errorf("%s still has the way %s", h.Name, way)
				}
			}
			return nil
		})
	}
}

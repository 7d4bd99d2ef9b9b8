package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"

	"shoal/internal/netkit/nettest"
	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// TestNetworksGrow: subnets have five addresses here. A service on the ingress
// network, a plain, an internal and an encrypted one outgrows them all; what ran
// before reaches what came later, by each of its networks, and everything else
// that held for one subnet holds for two.
func TestNetworksGrow(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 3)
	h1, h3 := bed.Host(0), bed.Host(2)
	testbed.Must(t, h1.Shoal("swarm", "init", "--default-addr-pool", "10.177.0.0/24", "--default-addr-pool-mask-length", "29"))
	join(t, h1, bed.Host(1), "worker")
	join(t, h1, h3, "worker")
	b := &netBed{bed: bed, h: h1, spots: map[string][]spot{}}
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "--attachable", "front"))
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "--internal", "inner"))
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "--opt", "encrypted", "closed"))
	testbed.Must(t, h1.Docker("network", "create", "-d", "overlay", "other"))
	networks := []string{"front", "inner", "closed"}
	create(t, h1, "--detach", "--name", "web", "--replicas", "3", "--publish", "8080:80",
		"--network", "front", "--network", "inner", "--network", "closed", testbed.WebV1)
	create(t, h1, "--detach", "--name", "db", "--replicas", "6", "--network", "other", testbed.WebV1)
	testbed.Eventually(t, patience, running(t, h1, "web", 3))
	testbed.Eventually(t, patience, running(t, h1, "db", 6))
	early := b.find(t, "web")
	for _, name := range networks {
		if s := subnetsOf(t, h1, name); len(s) != 1 {
			t.Fatalf("%s has %v before it is full", name, s)
		}
	}
	var wires []*nettest.Capture
	for _, h := range bed.Hosts() {
		wires = append(wires, listenOn(t, h))
	}
	testbed.Must(t, h1.Shoal("service", "scale", "--detach", "web=6"))
	testbed.Eventually(t, patience, running(t, h1, "web", 6))
	web := b.find(t, "web")
	b.spots["web"], b.spots["db"] = web, b.find(t, "db")
	for _, name := range append([]string{"ingress", "other"}, networks...) {
		if s := subnetsOf(t, h1, name); len(s) != 2 {
			t.Errorf("%s has %v", name, s)
		}
	}

	// Every task, the early ones before all, by each network.
	for _, p := range web {
		var questions []webapp.Question
		for _, to := range web {
			for _, name := range networks {
				word := "readable"
				if name == "closed" {
					word = "confidential"
				}
				questions = append(questions, webapp.Question{"get", "http://" + to.addrs[name] + "/" + word})
			}
		}
		for _, name := range networks {
			questions = append(questions, webapp.Question{"get", "http://" + b.vip(t, "web", name) + "/"})
		}
		asks := len(questions)
		for _, name := range networks {
			questions = append(questions, webapp.Question{"name", "tasks.web." + name})
			for _, to := range web {
				questions = append(questions, webapp.Question{"addr", to.addrs[name]})
			}
		}
		testbed.Eventually(t, patience, func() error {
			replies := p.must(t, questions...)
			for i, r := range replies[:asks] {
				if r.Error != "" {
					return fmt.Errorf("%v from %v on %s: %s", questions[i], p.addrs, p.host.Name, r.Error)
				}
				if to := i / len(networks); to < len(web) && (r.Hostname != web[to].name() || r.ClientIP() != p.addrs[networks[i%len(networks)]]) {
					return fmt.Errorf("%v: %s answers and saw %s", questions[i], r.Hostname, r.ClientIP())
				}
			}
			for i, name := range networks {
				names := replies[asks+i*(len(web)+1):][:len(web)+1]
				if !slices.Equal(names[0].Names, addresses(web, name)) {
					return fmt.Errorf("%s: %v %s", name, names[0].Names, names[0].Error)
				}
				for j, back := range names[1:] {
					if web[j].id == p.id {
						continue // which its own hosts file names
					}
					if len(back.Names) != 1 || !strings.HasPrefix(back.Names[0], "web.") || !strings.HasSuffix(back.Names[0], "."+name+".") {
						return fmt.Errorf("%s, the way back: %v %s", name, back.Names, back.Error)
					}
				}
			}
			return nil
		})
	}
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, func() error {
			_, err := answers(bed.Client(), url(h, "8080"), 6)
			return err
		})
	}

	t.Run("isolation", func(t *testing.T) {
		questions := []webapp.Question{{"get", "http://" + b.vip(t, "db", "other") + "/"}}
		for _, p := range b.spots["db"] {
			questions = append(questions, webapp.Question{"get", "http://" + p.addrs["other"] + "/"}, webapp.Question{"ask", p.addrs["other"] + ":80", "hello"})
		}
		for _, p := range []spot{web[0], web[5]} { // what is dropped takes its time
			for i, r := range p.must(t, questions...) {
				if r.Error == "" {
					t.Errorf("%v is reached from %v: %+v", questions[i], p.addrs, r.Report)
				}
			}
		}
		liar, target := early[0], web[5]
		to := target.addrs["front"] + ":80"
		liar.must(t, webapp.Question{"spoof", web[3].addrs["front"], to, "as another task"},
			webapp.Question{"spoof", b.spots["db"][5].addrs["other"], to, "as one of another network"},
			webapp.Question{"spoof", liar.addrs["front"], to, "honest"})
		testbed.Eventually(t, patience, func() error {
			heard := target.must(t, webapp.Question{"get", "http://127.0.0.1/heard"})[0].Heard
			if !slices.Contains(heard, "honest") {
				return fmt.Errorf("what was sent last has not come: %v", heard)
			}
			if slices.ContainsFunc(heard, func(s string) bool { return strings.HasPrefix(s, "as ") }) {
				t.Errorf("a lie was heard: %v", heard)
			}
			return nil
		})
	})
	t.Run("a way out", func(t *testing.T) {
		l, err := bed.Client().Listen("tcp4", ":7002")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, p := range slices.Concat(web, b.spots["db"]) {
			if r := p.must(t, webapp.Question{"dial", bed.Client().IP.String() + ":7002"})[0]; r.Error != "" {
				t.Fatalf("%v on %s: %s", p.addrs, p.host.Name, r.Error)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if from, _, _ := net.SplitHostPort(c.RemoteAddr().String()); from != p.host.IP.String() {
				t.Errorf("a task on %s came as %s", p.host.IP, from)
			}
			c.Close()
		}
	})
	t.Run("guests", func(t *testing.T) {
		have := subnetsOf(t, h1, "front")
		var guests []spot
		for i := range 4 { // seven addresses are taken, ten there are
			testbed.Must(t, h3.Docker("run", "-d", "--restart", "always", "--name", fmt.Sprint("guest", i), "--network", "front", testbed.WebV1))
			guests = append(guests, guestAt(t, h3, fmt.Sprint("guest", i)))
		}
		all := subnetsOf(t, h1, "front")
		last := guests[3]
		if len(all) != 3 || !slices.Equal(all[:2], have) || !netip.MustParsePrefix(all[2]).Contains(netip.MustParseAddr(last.addrs["front"])) {
			t.Fatalf("front has %v, had %v; the last guest is at %v", all, have, last.addrs)
		}
		reached := func() error {
			for _, p := range web {
				replies := p.must(t, webapp.Question{"get", "http://guest3/"}, webapp.Question{"get", "http://" + last.addrs["front"] + "/"})
				for _, r := range replies {
					if r.Error != "" || r.Hostname != last.name() || r.ClientIP() != p.addrs["front"] {
						return fmt.Errorf("from %v on %s: %s answers, saw %s: %s", p.addrs, p.host.Name, r.Hostname, r.ClientIP(), r.Error)
					}
				}
			}
			return nil
		}
		testbed.Eventually(t, patience, reached)
		// The engine that starts again takes its containers back with the addresses
		// that they had.
		if err := h3.KillEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := h3.StartEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, func() error {
			for i := range guests {
				if got := h3.EngineDocker("inspect", "-f", "{{.State.Running}}", fmt.Sprint("guest", i)); strings.TrimSpace(got.Stdout) != "true" {
					return fmt.Errorf("guest%d: running %s %w", i, got.Stdout, got.Err())
				}
			}
			return running(t, h1, "web", 6)()
		})
		last, web = guestAt(t, h3, "guest3"), b.find(t, "web")
		testbed.Eventually(t, patience, reached)
	})

	heard := false
	for _, w := range wires {
		heard = heard || w.Heard("/readable")
		if w.Heard("confidential") {
			t.Error("what was said on the encrypted network is in the clear on the wire")
		}
	}
	if !heard {
		t.Error("what was said on the other networks was not seen: the captures prove nothing")
	}
}

// subnetsOf lists a network's subnets, and wants each to be told as Docker does.
func subnetsOf(t *testing.T, h *testbed.Host, name string) (all []string) {
	t.Helper()
	var configs []network.IPAMConfig
	out := testbed.Must(t, h.Docker("network", "inspect", name, "--format", "{{json .IPAM.Config}}"))
	if err := json.Unmarshal([]byte(out), &configs); err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		p := netip.MustParsePrefix(c.Subnet)
		if p.Bits() != 29 || c.Gateway != p.Addr().Next().String() {
			t.Errorf("%s: %+v", name, c)
		}
		all = append(all, c.Subnet)
	}
	return all
}

// guestAt is a container on network front that is no task.
func guestAt(t *testing.T, h *testbed.Host, name string) spot {
	t.Helper()
	in := inspect(t, h, name)
	p := spot{host: h, id: in.ID, addrs: map[string]string{}}
	for _, n := range in.NetworkSettings.Networks {
		p.addrs["front"] = n.IPAddress
	}
	return p
}

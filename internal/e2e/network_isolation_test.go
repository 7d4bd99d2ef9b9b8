package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// isolation tries what a container must not be able to do.
func (b *netBed) isolation(t *testing.T) {
	web, db, inner := b.spots["web"], b.spots["db"], b.spots["inner"]
	asker := web[0]
	var questions []webapp.Question
	for _, p := range slices.Concat(db, inner, b.spots["shut"]) { // on its own node and on others
		for _, addr := range p.addrs {
			questions = append(questions, webapp.Question{"get", "http://" + addr + "/"}, webapp.Question{"ask", addr + ":80", "hello"})
		}
	}
	for name, network := range map[string]string{"inner": "open", "shut": "shut"} {
		vip := b.vip(t, name, network)
		questions = append(questions, webapp.Question{"get", "http://" + vip + "/"}, webapp.Question{"ask", vip + ":80", "hello"})
	}
	// Of one that is on its network, too: by that network alone.
	questions = append(questions, webapp.Question{"get", "http://" + b.spots["both"][1].addrs["back"] + "/"})
	for _, h := range b.bed.Hosts() { // daemons, and what goes between them
		questions = append(questions, webapp.Question{"dial", h.IP.String() + ":2377"}, webapp.Question{"ask", h.IP.String() + ":2377", "hello"},
			webapp.Question{"ask", h.IP.String() + ":4789", "hello"})
	}
	questions = append(questions, webapp.Question{"dial", "169.254.1.1:2377"}, webapp.Question{"dial", "127.0.0.1:2377"}, webapp.Question{"dial", asker.addrs["front"] + ":2377"})
	for i, r := range asker.must(t, questions...) {
		if r.Error == "" {
			t.Errorf("%v is reached: %+v", questions[i], r.Report)
		}
	}

	// Neither from the engine's own network, nor from outside by address.
	testbed.Must(t, b.h.EngineDocker("run", "-d", "--name", "plain", testbed.WebV1))
	plain := spot{host: b.h, id: inspect(t, b.h, "plain").ID}
	testbed.Must(t, b.bed.Client().Run(t.Context(), "ip", "route", "add", "10.0.0.0/16", "via", b.h.IP.String()))
	questions = nil
	for _, p := range slices.Concat(web, db) {
		for _, addr := range p.addrs {
			questions = append(questions, webapp.Question{"get", "http://" + addr + "/"})
			if err := reach(b.bed.Client(), net.JoinHostPort(addr, "80")); err == nil {
				t.Errorf("from outside, %s answers", addr)
			}
		}
	}
	for i, r := range plain.must(t, questions...) {
		if r.Error == "" {
			t.Errorf("a container of the engine's own network reaches %v", questions[i])
		}
	}
	testbed.Must(t, b.h.EngineDocker("rm", "-f", "plain"))
	testbed.Must(t, b.bed.Client().Run(t.Context(), "ip", "route", "del", "10.0.0.0/16"))
	b.spoofed(t)
}

// spoofed sends what says that it comes from somebody else. The same under the
// sender's own address is heard, or this would show nothing.
func (b *netBed) spoofed(t *testing.T) {
	liar := b.spots["web"][0]
	target := b.spots["web"][1]
	victim := b.spots["db"][1]
	to, over := target.addrs["front"]+":80", victim.addrs["back"]+":80"
	liar.must(t,
		webapp.Question{"spoof", target.addrs["front"], to, "as itself"},
		webapp.Question{"spoof", b.spots["web"][2].addrs["front"], to, "as a task elsewhere"},
		webapp.Question{"spoof", b.spots["both"][0].addrs["front"], to, "as a task beside it"},
		webapp.Question{"spoof", b.bed.Host(2).IP.String(), to, "as a node"},
		webapp.Question{"spoof", b.bed.Client().IP.String(), to, "as a stranger"},
		webapp.Question{"spoof", b.spots["db"][0].addrs["back"], over, "as one of another network"},
		webapp.Question{"spoof", b.spots["both"][0].addrs["back"], over, "as a task beside it, of another network"},
	)
	liar.must(t, webapp.Question{"spoof", liar.addrs["front"], to, "honest"})
	heard := func(p spot) []string {
		return p.must(t, webapp.Question{"get", "http://127.0.0.1/heard"})[0].Heard
	}
	testbed.Eventually(t, patience, func() error {
		if got := heard(target); !slices.Contains(got, "honest") {
			return fmt.Errorf("what was sent last has not come: %v", got)
		}
		return nil
	})
	for _, text := range slices.Concat(heard(target), heard(victim)) {
		if strings.HasPrefix(text, "as ") {
			t.Errorf("a lie was heard: %s", text)
		}
	}
}

// wayOut: others see the node. Of an internal network there is none.
func (b *netBed) wayOut(t *testing.T) {
	client := b.bed.Client()
	l, err := client.Listen("tcp4", ":7001")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			from <- host
			c.Close()
		}
	}()
	at := webapp.Question{"dial", client.IP.String() + ":7001"}
	for _, service := range []string{"web", "db", "both"} {
		p := b.spots[service][1]
		if r := p.must(t, at)[0]; r.Error != "" {
			t.Errorf("%s has no way out: %s", service, r.Error)
		} else if saw := <-from; saw != p.host.IP.String() {
			t.Errorf("%s is seen as %s, want %s", service, saw, p.host.IP)
		}
	}
	p := b.spots["shut"][1]
	for i, r := range p.must(t, at, webapp.Question{"dial", p.host.IP.String() + ":8080"}, webapp.Question{"dial", b.h.IP.String() + ":8080"}, webapp.Question{"get", "http://shut/"}) {
		if outside := i < 3; outside != (r.Error != "") {
			t.Errorf("question %d from an internal network: %q", i, r.Error)
		}
	}
}

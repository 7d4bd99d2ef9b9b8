package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/internal/testbed"
	"shoal/internal/testbed/webapp"
)

// TestTraffic publishes a port of each kind and comes from everywhere: each
// time all tasks answer, and see the one who calls.
func TestTraffic(t *testing.T) {
	t.Parallel()
	h, outside := node(t)
	create(t, h, "--name", "web", "--replicas", "3", "--publish", "8080:80", "--publish", "8080:80/udp", testbed.WebV1)
	create(t, h, "--name", "other", "--publish", "8181:80", testbed.WebV1)
	create(t, h, "--name", "aside", testbed.WebV1)
	testbed.Must(t, h.EngineDocker("run", "-d", "--name", "plain", testbed.WebV1))
	bridged := inspect(t, h, "plain").NetworkSettings.Networks["bridge"]
	host := h.IP.String()

	t.Run("from hosts", func(t *testing.T) {
		for _, c := range []struct {
			what    string
			from    *testbed.Host
			to, saw string
		}{
			{"another host", outside, host, outside.IP.String()},
			{"the node, its own address", h, host, host},
			{"the node, localhost", h, "localhost", host},
			{"the node, 127.0.0.1", h, "127.0.0.1", host},
			{"the node, the bridge's address", h, bridged.Gateway, bridged.Gateway},
		} {
			page := "http://" + c.to + ":8080/"
			got, err := answers(c.from, page, 3)
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			for _, a := range got {
				if a.ClientIP() != c.saw {
					t.Errorf("%s: a task saw %s, want %s", c.what, a.ClientIP(), c.saw)
				}
			}
			seen := map[string]bool{}
			testbed.Eventually(t, patience, func() error {
				rep, err := c.from.AskUDP(strings.Replace(c.to, "localhost", "127.0.0.1", 1)+":8080", "hello", time.Second)
				if err != nil {
					return err
				}
				if rep.Body != "hello" || rep.ClientIP() != c.saw {
					t.Errorf("%s, UDP: a task got %q from %s, want it from %s", c.what, rep.Body, rep.ClientIP(), c.saw)
				}
				if seen[rep.Task] = true; len(seen) < 3 {
					return fmt.Errorf("only %d tasks answer datagrams", len(seen))
				}
				return nil
			})
		}
	})

	t.Run("from containers", func(t *testing.T) {
		web, other, aside := anyTask(t, h, "web"), anyTask(t, h, "other"), anyTask(t, h, "aside")
		for _, c := range []struct {
			what, container string
			to              string
			saw             string
		}{
			{"a container of the engine, the bridge's address", "plain", bridged.Gateway, bridged.IPAddress},
			{"a container of the engine, the node's address", "plain", host, bridged.IPAddress},
			{"a task of another published service", other.id, host, other.addr},
			{"a task of a service that publishes nothing", aside.id, host, aside.addr},
		} {
			fromInside(t, h, c.what, c.container, c.to, func(webapp.Report) string { return c.saw })
		}
		// Where a task meets itself, its own address would not do: the answer
		// would not leave the container.
		met := false
		fromInside(t, h, "a task of the service itself", web.id, host, func(rep webapp.Report) string {
			if rep.Hostname == web.id[:12] {
				met = true
				return "169.254.1.1"
			}
			return web.addr
		})
		if !met {
			t.Error("the task never met itself")
		}
	})

	t.Run("virtual address", func(t *testing.T) { virtualAddress(t, h, outside) })
	t.Run("nobody there", func(t *testing.T) { nobodyThere(t, h, outside) })
}

// taskAt is a running task's container and its address on its one network.
type taskAt struct{ id, addr string }

func anyTask(t *testing.T, h *testbed.Host, service string) taskAt {
	t.Helper()
	for _, id := range ids(t, h, service) {
		for _, n := range inspect(t, h, id).NetworkSettings.Networks {
			return taskAt{id, n.IPAddress}
		}
	}
	t.Fatalf("%s has no task with a network", service)
	return taskAt{}
}

// fromInside asks from within a container, over both protocols, until all
// three tasks have answered. saw gives the client that the answering one has to
// have seen.
func fromInside(t *testing.T, h *testbed.Host, what, container, to string, saw func(webapp.Report) string) {
	t.Helper()
	for _, question := range [][]string{{"get", "http://" + to + ":8080/"}, {"ask", to + ":8080", "hello"}} {
		seen := map[string]bool{}
		testbed.Eventually(t, patience, func() error {
			rep, err := inside(h, container, question...)
			if err != nil {
				return err
			}
			if want := saw(rep); rep.ClientIP() != want {
				t.Errorf("%s, %s: a task saw %s, want %s", what, question[0], rep.ClientIP(), want)
			}
			if seen[rep.Task] = true; len(seen) < 3 {
				return fmt.Errorf("%s, %s: only %d tasks answer", what, question[0], len(seen))
			}
			return nil
		})
	}
}

// virtualAddress: a service's own address leads to its tasks and to nothing
// else, above all not to the node that holds it.
func virtualAddress(t *testing.T, h, outside *testbed.Host) {
	l, err := h.Listen("tcp4", ":7777")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "the node")
			c.Close()
		}
	}()
	if err := reach(h, h.IP.String()+":7777"); err != nil {
		t.Fatalf("the node's own server: %v", err)
	}
	vips := service(t, h, "web").Endpoint.VirtualIPs
	if len(vips) != 1 {
		t.Fatalf("virtual addresses: %v", vips)
	}
	vip := netip.MustParsePrefix(vips[0].Addr).Addr().String()
	other := anyTask(t, h, "other")
	if _, err := inside(h, other.id, "get", "http://"+vip+":80/"); err != nil {
		t.Errorf("from a task to %s:80: %v", vip, err)
	}
	for _, port := range []string{"7777", "8080", "2377"} {
		r := h.EngineDocker("exec", other.id, "webapp", "get", "http://"+vip+":"+port+"/")
		if r.Code == 0 || !strings.Contains(r.Stderr, "refused") {
			t.Errorf("from a task, %s:%s is not refused: %s%s", vip, port, r.Stdout, r.Stderr)
		}
		if err := reach(h, net.JoinHostPort(vip, port)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("from the node, %s:%s is not refused: %v", vip, port, err)
		}
	}
	// Nor does the node carry strangers into its networks.
	task := anyTask(t, h, "web")
	testbed.Must(t, outside.Run(t.Context(), "ip", "route", "add", "10.0.0.0/24", "via", h.IP.String()))
	for _, addr := range []string{vip + ":80", vip + ":7777", task.addr + ":80"} {
		if err := reach(outside, addr); err == nil {
			t.Errorf("from another host, %s answers", addr)
		}
	}
}

// reach connects, within a moment.
func reach(from *testbed.Host, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	c, err := from.Dial(ctx, "tcp4", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// nobodyThere: a published port with no task behind it refuses, so that a
// client knows at once; and serves again when there is one.
func nobodyThere(t *testing.T, h, outside *testbed.Host) {
	testbed.Must(t, h.Shoal("service", "scale", "web=0"))
	for _, from := range []*testbed.Host{outside, h} {
		testbed.Eventually(t, patience, func() error {
			if err := reach(from, h.IP.String()+":8080"); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("%s is not refused: %v", from.Name, err)
			}
			return nil
		})
	}
	testbed.Must(t, h.Shoal("service", "scale", "web=2"))
	testbed.Eventually(t, patience, func() error {
		_, err := answers(outside, url(h, "8080"), 2)
		return err
	})
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// TestLeave: a node that was in a swarm and left is as it was before; whoever
// lived on it all the time has noticed nothing.
func TestLeave(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 1)
	h, outside := bed.Host(0), bed.Client()
	testbed.Must(t, h.EngineDocker("network", "create", "own"))
	testbed.Must(t, h.EngineDocker("run", "-d", "--name", "first", "--restart", "always", "-p", "9001:80", testbed.WebV1))
	testbed.Must(t, h.EngineDocker("run", "-d", "--name", "second", "--network", "own", "-p", "9002:80", "-p", "9002:80/udp", testbed.WebV2))
	testbed.Must(t, h.EngineDocker("create", "--name", "third", testbed.WebV1))
	strangers := func() string {
		t.Helper()
		var out strings.Builder
		for _, name := range []string{"first", "second", "third"} {
			c := inspect(t, h, name)
			fmt.Fprintln(&out, name, c.ID, c.State.Status, c.State.StartedAt, c.RestartCount)
		}
		return out.String()
	}
	serve := func(when string) {
		t.Helper()
		for port, version := range map[string]string{"9001": "v1", "9002": "v2"} {
			for _, from := range []*testbed.Host{outside, h} {
				a, err := from.Get(url(h, port))
				if err != nil || a.Version != version {
					t.Errorf("%s: port %s from %s: %+v, %v", when, port, from.Name, a, err)
				}
			}
			if a, err := h.Get("http://localhost:" + port + "/"); err != nil || a.Version != version {
				t.Errorf("%s: port %s of localhost: %+v, %v", when, port, a, err)
			}
		}
		// Neighbours on one network, and the way from one to the other's port.
		if _, err := inside(h, "first", "get", url(h, "9002")); err != nil {
			t.Errorf("%s: from one to the other: %v", when, err)
		}
	}
	who, machine := strangers(), survey(t, h)
	serve("before")

	for round := range 2 {
		testbed.Must(t, h.Shoal("swarm", "init"))
		serve("after init")
		create(t, h, "--name", "web", "--replicas", "3", "--publish", "8080:80", "--publish", "8080:80/udp", testbed.WebV1)
		testbed.Must(t, h.Shoal("service", "create", "-d", "--name", "none", "--no-resolve-image", testbed.Web+":none"))
		if _, err := answers(outside, url(h, "8080"), 3); err != nil {
			t.Error(err)
		}
		serve("beside services")
		if slices.Equal(machine, survey(t, h)) {
			t.Fatal("a swarm with services makes no difference: this test looks at the wrong things")
		}

		refused(t, h.Shoal("swarm", "leave"), "--force")
		if _, err := answers(outside, url(h, "8080"), 3); err != nil {
			t.Errorf("after a refused leave: %v", err)
		}
		contains(t, testbed.Must(t, h.Shoal("swarm", "leave", "--force")), "Node left the swarm.")
		if diff := difference(machine, survey(t, h)); diff != "" {
			t.Errorf("round %d, after leave:\n%s", round+1, diff)
		}
		if now := strangers(); now != who {
			t.Errorf("other containers were touched:\n%s\nbefore:\n%s", now, who)
		}
		serve("after leave")
		refused(t, h.Shoal("service", "ls"), "This node is not a swarm manager")
		refused(t, h.Shoal("swarm", "leave", "--force"), "This node is not part of a swarm")
	}
}

// survey lists what a node could leave on a host, one thing per line.
func survey(t *testing.T, h *testbed.Host) []string {
	t.Helper()
	var found []string
	for _, c := range []struct{ kind, command string }{
		{"container", "docker ps -aq --no-trunc"},
		{"network", "docker network ls -q --no-trunc"},
		{"volume", "docker volume ls -q"},
		{"nft", "nft list tables"},
		{"iptables", "iptables-save | grep -e ^-A -e ^: | sed 's/ .[0-9]*:[0-9]*.$//'"},
		{"link", "ip -o link | cut -d: -f2"},
		{"address", "ip -o addr | cut -d' ' -f2-7"},
		{"route", "ip route show table all | grep -v -e multicast -e fe80"},
		{"rule", "ip rule"},
		{"neighbour", "ip neigh show nud permanent"},
		{"plugin", "ls /run/docker/plugins"},
		{"sysctl", "sysctl -a --pattern 'net.ipv4.(ip_forward|conf.(all|default|lo|eth0|docker0).(forwarding|route_localnet|rp_filter|proxy_arp|accept_local))'"},
	} {
		out := testbed.Must(t, h.Run(context.Background(), "sh", "-c", c.command+"; true"))
		for _, line := range lines(out) {
			found = append(found, c.kind+": "+line)
		}
	}
	err := filepath.WalkDir(h.DataDir(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, "file: "+strings.TrimPrefix(path, h.DataDir()))
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}

func difference(before, after []string) string {
	var out strings.Builder
	for _, line := range after {
		if !slices.Contains(before, line) {
			fmt.Fprintln(&out, "left:", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			fmt.Fprintln(&out, "gone:", line)
		}
	}
	return out.String()
}

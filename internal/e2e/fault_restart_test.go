package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

const stops = 3

// TestStopAndStart stops the daemon as an upgrade does: what runs must not
// notice, and the next daemon takes it over.
func TestStopAndStart(t *testing.T) {
	h, outside := node(t)
	quiet(t, h)
	deploy(t, h, "web", 3, 8080)
	before := mustLive(t, h, "web")
	traffic := startFlow(t, outside, fmt.Sprintf("http://%s:8080/", h.IP))
	for i := range stops {
		do(t, h.StopShoal)
		if err := meshed(outside, h, "web", 8080, 3); err != nil {
			t.Error("without the daemon:", err)
		}
		untouched(t, h, "web", before)
		do(t, startShoal(h))
		testbed.Eventually(t, patience, func() error { return settled(h, "web", 3) })
		deploy(t, h, fmt.Sprintf("after-%d", i), 1, 0)
	}
	traffic.check(t)
	untouched(t, h, "web", before)
	if n := strings.Count(strings.Join(logLines(t, h), "\n"), "shoal stopped; containers and published ports stay up"); n != stops {
		t.Errorf("the log tells of %d stops, want %d", n, stops)
	}
}

// TestNetworkSettingsLost takes away, behind the daemon's back, what it has set
// up in the kernel.
func TestNetworkSettingsLost(t *testing.T) {
	h, outside := node(t)
	quiet(t, h)
	deploy(t, h, "web", 2, 8080)
	before := mustLive(t, h, "web")
	works := func() error {
		for _, from := range []*testbed.Host{outside, h} {
			if err := meshed(from, h, "web", 8080, 2); err != nil {
				return err
			}
		}
		// Traffic flows without it, to where it should not as well.
		return h.Run(t.Context(), "nft", "list", "table", "ip", "shoal_overlay").Err()
	}
	testbed.Eventually(t, patience, works)
	// Each command fails unless there was something to take away.
	for _, c := range []struct {
		name, command string
		within        time.Duration
	}{
		{"all nftables rules", "nft flush ruleset", soon},
		{"own tables", "nft delete table ip shoal_overlay && nft delete table ip shoal_lb", soon},
		{"rules of the forward chain", "iptables -F DOCKER-USER || iptables -F && iptables -P FORWARD DROP", soon},
		{"routes to tasks", "ip -4 route show | grep 'dev shl' >/run/routes && while read -r r _; do ip route del $r || exit; done </run/routes", soon},
		{"route of the gateway", "ip route del local 169.254.1.1 dev lo table local", soon},
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0", verified},
	} {
		t.Run(c.name, func(t *testing.T) {
			testbed.Must(t, h.Run(t.Context(), "sh", "-c", c.command))
			begin := time.Now()
			testbed.Eventually(t, patience, works)
			took := time.Since(begin).Round(time.Millisecond)
			t.Logf("works %s after", took)
			if took > c.within {
				t.Errorf("it took %s until traffic flowed again, want %s at most", took, c.within)
			}
		})
	}
	untouched(t, h, "web", before)
	testbed.Eventually(t, patience, func() error { return settled(h, "web", 2) })
}

const (
	// soon is for what the kernel tells of: lost SYNs on a busy machine, and still
	// well before anybody looks by the clock.
	soon = 8 * time.Second
	// verified is for what it does not, and which is looked at now and then.
	verified = 20 * time.Second
)

//go:build linux

package nft

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"shoal/internal/netkit"
)

// TestHostsTimeouts: but for resets, the mesh's connections are remembered as long
// as the host's others, also when those were set after the table was written.
func TestHostsTimeouts(t *testing.T) {
	p := New(zaptest.NewLogger(t))
	t.Cleanup(func() { _ = p.Clear(ctx) })
	sysctl := []string{"net", "netfilter", "nf_conntrack_tcp_timeout_established"}
	was, err := os.ReadFile("/proc/sys/" + strings.Join(sysctl, "/"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netkit.Sysctl(strings.TrimSpace(string(was)), sysctl...) })
	for _, seconds := range []string{"4001", "4002"} {
		if err := netkit.Sysctl(seconds, sysctl...); err != nil {
			t.Fatal(err)
		}
		p = New(zaptest.NewLogger(t)) // a daemon that starts, and finds the table
		if err := p.Set(ctx, cluster(2, 3)); err != nil {
			t.Fatal(err)
		}
		if all := list(t); !strings.Contains(all, "established : "+seconds) || !strings.Contains(all, "close : 0") {
			t.Errorf("the host's is %s:\n%s", seconds, all)
		}
	}
}

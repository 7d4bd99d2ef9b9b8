//go:build linux

package netkit_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"shoal/internal/netkit"
)

// TestRemains names what is the cluster's, and nothing of the host's own.
func TestRemains(t *testing.T) {
	for _, name := range []string{"shl0123456789", netkit.Tunnel, netkit.EncryptedTunnel, netkit.WireGuard, "eth7", "mesh0"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		link := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(link) })
	}
	got, err := netkit.Remains()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"shl0123456789", netkit.Tunnel, netkit.EncryptedTunnel, netkit.WireGuard}, got); diff != "" {
		t.Error(diff)
	}
}

//go:build linux

package overlay

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap/zaptest"
)

// TestBridges: those of the engine are known by their names, and others by what
// the engine says, or said last.
func TestBridges(t *testing.T) {
	for _, name := range []string{"docker0", "br-0123456789ab", "mine", "uplink"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		b := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(b); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(b) })
	}
	o := New(zaptest.NewLogger(t))
	wants := func(want ...string) {
		t.Helper()
		got, err := o.bridges(t.Context())
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	wants("br-0123456789ab", "docker0")
	o.Engine(func(context.Context) ([]string, error) { return []string{"mine", "not-there"}, nil })
	wants("br-0123456789ab", "docker0", "mine")
	o.Engine(func(context.Context) ([]string, error) { return nil, errors.New("the engine is away") })
	wants("br-0123456789ab", "docker0", "mine")
}

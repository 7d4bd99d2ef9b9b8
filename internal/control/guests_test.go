package control

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// TestNameGuest: a node names its own guests, and nobody else's.
func TestNameGuest(t *testing.T) {
	w := newWorld(t)
	addr := netip.MustParsePrefix("10.0.1.9/24")
	for _, id := range []string{"n1", "n2"} {
		w.put(&api.Guest{Meta: api.Meta{ID: "of-" + id}, NodeID: id, NetworkID: "net", Addr: addr})
	}
	names := []string{"lodger", "db"}
	if err := w.NameGuest(t.Context(), "n1", "net", addr.Addr(), names); err != nil {
		t.Fatal(err)
	}
	if err := w.NameGuest(t.Context(), "n1", "other", addr.Addr(), []string{"thief"}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][]string{"of-n1": names, "of-n2": nil} {
		if g, _ := w.View().Guests.Get(id); !slices.Equal(g.Names, want) {
			t.Errorf("%s is called %v, want %v", id, g.Names, want)
		}
	}
	for _, bad := range [][]string{{""}, {strings.Repeat("a", 256)}, make([]string, 33)} {
		if err := w.NameGuest(t.Context(), "n1", "net", addr.Addr(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d names: %v", len(bad), err)
		}
	}
}

//go:build linux

package overlay

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSpans: subnets that touch are one range.
func TestSpans(t *testing.T) {
	var subnets []netip.Prefix
	for _, s := range []string{"10.0.2.0/24", "10.0.0.0/24", "10.0.1.0/24", "10.0.4.0/24", "255.255.255.0/24"} {
		subnets = append(subnets, netip.MustParsePrefix(s))
	}
	var got []string
	for _, s := range spans(subnets) {
		got = append(got, s.first.String()+" "+s.last.String())
	}
	if diff := cmp.Diff([]string{"10.0.0.0 10.0.2.255", "10.0.4.0 10.0.4.255", "255.255.255.0 255.255.255.255"}, got); diff != "" {
		t.Error(diff)
	}
}

package service

import (
	"fmt"
	"net/netip"
	"testing"

	"go.uber.org/zap"

	"shoal/internal/api"
)

// TestLeasesComeAndGo: ten thousand services with tasks on two networks, and
// containers beside them, come and go. Each time all that they had is free again,
// and nobody gets at once what another has just given back.
func TestLeasesComeAndGo(t *testing.T) {
	l := newLeases(zap.NewNop())
	var nets []wantedNetwork
	for i, subnet := range []string{"10.0.0.0/24", "10.0.1.0/26"} {
		p := netip.MustParsePrefix(subnet)
		n := &api.Network{Meta: api.Meta{ID: fmt.Sprint("n", i)}, Subnets: []api.Subnet{{Prefix: p, Gateway: p.Addr().Next()}}}
		l.setNetwork(n)
		nets = append(nets, wantedNetwork{id: n.ID})
	}
	free := func() string { return fmt.Sprint(l.pools["n0"].Free(), l.pools["n1"].Free()) }
	base, before := free(), map[netip.Addr]int{}
	for round := range 10_000 {
		var owners []string
		take := func(owner string, addrs ...netip.Addr) {
			owners = append(owners, owner)
			for _, a := range addrs {
				if last, had := before[a]; had && last >= round-1 {
					t.Fatalf("round %d: %s has %s, which somebody had in round %d", round, owner, a, last)
				}
				before[a] = round
			}
		}
		s := &api.Service{Meta: api.Meta{ID: fmt.Sprint("service", round)}}
		vips, err := l.vips(s, nets)
		if err != nil {
			t.Fatal(err)
		}
		s.Endpoint.VirtualIPs = vips
		l.set(s.ID, vipLeases(s)) // as it comes back from the store
		for _, v := range vips {
			take(s.ID, netip.MustParsePrefix(v.Addr).Addr())
		}
		for i := range 3 {
			task := &api.Task{Meta: api.Meta{ID: fmt.Sprint("task", round, ".", i)}}
			if task.Networks, err = l.attach(task.ID, nets); err != nil {
				t.Fatal(err)
			}
			l.set(task.ID, taskLeases(task))
			for _, at := range task.Networks {
				take(task.ID, at.Addr.Addr())
			}
		}
		g := &api.Guest{Meta: api.Meta{ID: fmt.Sprint("guest", round)}, NetworkID: "n1"}
		if g.Addr, err = l.admit(g); err != nil {
			t.Fatal(err)
		}
		l.set(g.ID, guestLeases(g))
		take(g.ID, g.Addr.Addr())
		if free() == base {
			t.Fatal("nothing was taken: this shows nothing")
		}
		for _, owner := range owners {
			l.set(owner, nil)
		}
		if got := free(); got != base || len(l.owners) != 0 {
			t.Fatalf("round %d: %s are free, want %s; %d have addresses", round, got, base, len(l.owners))
		}
	}
}

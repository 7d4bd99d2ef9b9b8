package service

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"shoal/internal/api"
	"shoal/internal/store"
)

// pools gives the cluster address pools for subnets of five addresses, of which
// the ingress network has the first.
func (w *world) pools(cidrs ...string) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		c := api.Clone(tx.Cluster())
		c.DefaultAddrPool, c.SubnetSize = cidrs, 29
		if err := tx.Put(c); err != nil {
			return err
		}
		n, _ := tx.Networks.Get("ingress")
		n = api.Clone(n)
		p := netip.PrefixFrom(c.Pools()[0].Addr(), 29)
		n.Subnets = []api.Subnet{{Prefix: p, Gateway: p.Addr().Next()}}
		return tx.Put(n)
	})
}

func (w *world) subnets(id string) (out []string) {
	n, _ := w.store.View().Networks.Get(id)
	for _, s := range n.Subnets {
		out = append(out, s.Prefix.String())
	}
	return out
}

func (w *world) expectSubnets(want ...string) {
	w.t.Helper()
	if got := w.subnets("ingress"); fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("the network has %v, want %v%s", got, want, w.dump())
	}
}

// TestNetworkGrows: tasks that find no address have the network get a subnet more,
// until the pools have none.
func TestNetworkGrows(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		w.pools("10.9.0.0/28", "10.7.0.0/28")
		w.update(func(tx *store.Tx) error { // somebody else's
			return tx.Put(&api.Network{Meta: api.Meta{ID: "other"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.7.0.0/29")}}})
		})
		w.setNode("n1", func(n *api.Node) { n.Addr, n.DataPath = "10.66.0.1:2377", "10.66.0.1" })
		w.create(4, "v1", published)
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29")
		w.scale(11)
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29", "10.9.0.8/29", "10.7.0.8/29")
		if n := len(w.tasks(isRunning)); n != 11 {
			t.Fatalf("%d tasks run%s", n, w.dump())
		}
		if c := w.store.View().Cluster(); c.LastSubnet.String() != "10.7.0.8/29" || c.Since == 0 {
			t.Errorf("the cluster knows of %s, and updates from %d", c.LastSubnet, c.Since)
		}
		w.scale(20)
		w.wait(time.Second)
		says := "all 15 of 10.9.0.0/29, 10.9.0.8/29, 10.7.0.8/29 are in use"
		for _, task := range w.tasks(nil) {
			why := task.Status.Err
			if task.Slot > 14 && (!strings.Contains(why, says) || !strings.Contains(why, `network "ingress"`) ||
				!strings.Contains(why, "pools (10.9.0.0/28, 10.7.0.0/28) have no free subnet of size 29 left")) {
				t.Errorf("slot %d: %s", task.Slot, why)
			}
		}
		w.update(func(tx *store.Tx) error { return tx.Delete(api.KindNetwork, "other") })
		w.wait(2 * time.Second)
		w.expectSubnets("10.9.0.0/29", "10.9.0.8/29", "10.7.0.8/29", "10.7.0.0/29")
		if n := len(w.tasks(isRunning)); n != 19 { // and the virtual address
			t.Errorf("%d tasks run%s", n, w.dump())
		}
		w.scale(1)
		w.wait(time.Minute)
		w.expectQuiet()
	})
}

// TestChosenSubnetDoesNotGrow: what its user gave a network is what it has.
func TestChosenSubnetDoesNotGrow(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.pools("10.9.0.0/16")
		w.update(func(tx *store.Tx) error {
			n, _ := tx.Networks.Get("ingress")
			n = api.Clone(n)
			n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: "10.9.0.0/29"}}}
			return tx.Put(n)
		})
		w.create(6, "v1", published)
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29")
		waiting := w.tasks(func(t *api.Task) bool { return !isRunning(t) })
		if len(waiting) != 2 || !strings.HasPrefix(waiting[0].Status.Err, `allocate address: network "ingress" has no free address: all 5 of 10.9.0.0/29 are in use`) ||
			!strings.Contains(waiting[0].Status.Err, "its subnet was chosen, so it gets no other: make a network with a larger one (--subnet), and move services to that") ||
			strings.Contains(waiting[0].Status.Err, "pools") {
			t.Errorf("%+v", waiting)
		}
	})
}

// TestVirtualAddressOfANewSubnet: whatever finds no address lets a network grow.
func TestVirtualAddressOfANewSubnet(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.pools("10.9.0.0/16")
		w.update(func(tx *store.Tx) error {
			for i := range 5 {
				if err := tx.Put(&api.Guest{Meta: api.Meta{ID: fmt.Sprint("g", i)}, NodeID: "n1", NetworkID: "ingress"}); err != nil {
					return err
				}
			}
			return nil
		})
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29")
		w.create(1, "v1", published)
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29", "10.9.0.8/29")
		if vip := w.service().Endpoint.VirtualIPs[0].Addr; vip != "10.9.0.10/29" {
			t.Errorf("virtual address %s", vip)
		}
		w.update(func(tx *store.Tx) error {
			for i := range 4 {
				if err := tx.Put(&api.Guest{Meta: api.Meta{ID: fmt.Sprint("h", i)}, NodeID: "n1", NetworkID: "ingress"}); err != nil {
					return err
				}
			}
			return nil
		})
		w.wait(time.Second)
		w.expectSubnets("10.9.0.0/29", "10.9.0.8/29", "10.9.0.16/29")
		for g := range w.store.View().Guests.All() {
			if !g.Addr.IsValid() {
				t.Errorf("%s has no address: %s", g.ID, g.Err)
			}
		}
	})
}

// TestGrounds: an encrypted network stays near its first subnet, and no node's
// address is cut out of the pools.
func TestGrounds(t *testing.T) {
	w := stoppedWorld(t, 1)
	w.update(func(tx *store.Tx) error {
		return tx.Put(&api.Cluster{Meta: api.Meta{ID: "cluster"}, DefaultAddrPool: []string{"10.0.0.0/8", "172.16.0.0/26"}, SubnetSize: 28})
	})
	w.setNode("n1", func(n *api.Node) { n.Addr, n.DataPath = "10.0.1.3:2377", "10.0.1.20" })
	pools := w.store.View().Cluster().Pools()
	for first, want := range map[string]string{"10.7.9.16/28": "[10.7.0.0/20]", "172.16.0.16/28": "[172.16.0.0/26]", "192.168.0.0/28": "[]"} {
		n := &api.Network{Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix(first)}, {Prefix: netip.MustParsePrefix("10.9.0.0/28")}}}
		if got := fmt.Sprint(n.Grounds(pools)); got != "[10.0.0.0/8 172.16.0.0/26]" {
			t.Errorf("%s grows in %s", first, got)
		}
		n.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.OptionEncrypted: ""}}
		if got := fmt.Sprint(n.Grounds(pools)); got != want {
			t.Errorf("encrypted, %s grows in %s, want %s", first, got, want)
		}
	}
	if s, err := CutSubnet(w.store.View(), pools); err != nil || s.Prefix.String() != "10.0.1.32/28" {
		t.Errorf("%v, %v", s, err)
	}
}

// TestNetworkGrowsSoFar: a network has so many subnets, and says so when it is full.
func TestNetworkGrowsSoFar(t *testing.T) {
	s := store.New()
	n := &api.Network{Meta: api.Meta{ID: "a"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/30"), Gateway: netip.MustParseAddr("10.0.0.1")}}}
	if err := s.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.Put(n), tx.Put(&api.Cluster{Meta: api.Meta{ID: "c"}, DefaultAddrPool: []string{"10.0.0.0/16"}, SubnetSize: 30}))
	}); err != nil {
		t.Fatal(err)
	}
	l := newLeases(zap.NewNop())
	l.begin(s.View())
	l.setNetwork(n)
	given := 0
	for ; given < 2*maxSubnets; given++ {
		if _, err := l.next("a"); err != nil {
			if want := "as many subnets as a network may have, 64"; !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			break
		}
	}
	if given != maxSubnets { // one address each
		t.Errorf("%d addresses were given", given)
	}
}

// TestLeasesOfGrowingNetworks: addresses come and go on two networks that grow,
// while others make networks of their own, and transactions fail. In the store no
// address is without its subnet, and no two subnets overlap.
func TestLeasesOfGrowingNetworks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := store.New()
		update := func(fn func(tx *store.Tx) error) {
			if err := s.Update(t.Context(), fn); err != nil {
				rt.Fatal(err)
			}
		}
		l := newLeases(zap.NewNop())
		put := func(id, prefix string) {
			p := netip.MustParsePrefix(prefix)
			update(func(tx *store.Tx) error {
				return tx.Put(&api.Network{Meta: api.Meta{ID: id}, Subnets: []api.Subnet{{Prefix: p, Gateway: p.Addr().Next()}}})
			})
		}
		update(func(tx *store.Tx) error {
			return tx.Put(&api.Cluster{Meta: api.Meta{ID: "c"}, DefaultAddrPool: []string{"10.0.0.0/26"}, SubnetSize: 30})
		})
		put("a", "10.0.0.0/30") // one address each
		put("b", "10.0.0.4/30")
		hear := func() {
			for n := range s.View().Networks.All() {
				l.setNetwork(n)
			}
			for id := range l.networks {
				if _, ok := s.View().Networks.Get(id); !ok {
					l.removeNetwork(id)
				}
			}
		}
		hear()
		tasks := 0
		rt.Repeat(map[string]func(*rapid.T){
			"give": func(rt *rapid.T) {
				l.begin(s.View())
				tasks++
				task := &api.Task{Meta: api.Meta{ID: fmt.Sprint("t", tasks)}}
				var err error
				if task.Networks, err = l.attach(task.ID, []wantedNetwork{{id: "a"}, {id: "b"}}); err != nil {
					return
				}
				st := step{puts: []api.Object{task}}
				if rapid.IntRange(0, 4).Draw(rt, "fails") == 0 {
					l.set(task.ID, nil)
					return
				}
				written := false
				update(func(tx *store.Tx) (err error) {
					if written, err = l.widen(tx, st.given(&tx.View)); err != nil || !written {
						return err
					}
					return tx.Put(task)
				})
				if !written {
					l.set(task.ID, nil)
				}
			},
			"end": func(rt *rapid.T) {
				for task := range s.View().Tasks.All() {
					update(func(tx *store.Tx) error { return tx.Delete(api.KindTask, task.ID) })
					l.set(task.ID, nil)
					return
				}
			},
			"hear": func(*rapid.T) { hear() },
			"another network": func(rt *rapid.T) {
				update(func(tx *store.Tx) error {
					cut, err := CutSubnet(&tx.View, tx.Cluster().Pools())
					if err != nil {
						return tx.Delete(api.KindNetwork, "other")
					}
					return tx.Put(&api.Network{Meta: api.Meta{ID: "other"}, Subnets: []api.Subnet{cut}})
				})
			},
			"": func(rt *rapid.T) {
				owner := map[netip.Addr]string{}
				v := s.View()
				for task := range v.Tasks.All() {
					for _, at := range task.Networks {
						if n, _ := v.Networks.Get(at.NetworkID); !within(n.Subnets, at.Addr.Addr()) {
							rt.Fatalf("%s is in none of %v", at.Addr, n.Subnets)
						}
						if o := owner[at.Addr.Addr()]; o != "" {
							rt.Fatalf("%s and %s have %s", o, task.ID, at.Addr)
						}
						owner[at.Addr.Addr()] = task.ID
					}
				}
				all := networkSubnets(v)
				for i, x := range all {
					for _, y := range all[:i] {
						if x.Prefix.Overlaps(y.Prefix) {
							rt.Fatalf("%v and %v overlap", x, y)
						}
					}
				}
			},
		})
	})
}

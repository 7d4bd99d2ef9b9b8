package netkit

import (
	"fmt"
	"runtime"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Lacking tries what the network needs of the kernel, in a namespace of its own
// that goes again, and says why what does not work does not.
func Lacking() (map[string]string, error) {
	missing := map[string]string{}
	err := apart(func() error {
		for name, try := range map[string]func() error{
			"veth": tryVeth, "vxlan": tryVxlan, "nftables": tryTable, "conntrack": tryConntrack,
		} {
			if err := try(); err != nil {
				missing[name] = err.Error()
			}
		}
		return nil
	})
	return missing, err
}

// apart calls try in a network namespace of its own, which goes again.
func apart(try func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine, and the
		// namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make a network namespace to try the kernel in: %w", err)
			return
		}
		done <- try()
	}()
	return <-done
}

func tryVeth() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "try0"
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "try1"})
}

func tryVxlan() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "try2"
	return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 4789})
}

func tryTable() error { return tryRule(nil, nil) }

func tryConntrack() error { return tryRule(nil, New()) }

// tryRule makes a chain that translates addresses, with one rule.
func tryRule(timeouts []Timeouts, exprs []expr.Any) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "try", Family: nftables.TableFamilyIPv4})
	for _, t := range timeouts {
		c.AddObj(t.object(table))
	}
	chain := c.AddChain(&nftables.Chain{
		Name: "try", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: Join(exprs, Return())})
	return c.Flush()
}

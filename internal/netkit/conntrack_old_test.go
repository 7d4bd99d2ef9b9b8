//go:build linux

package netkit

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// TestKernelWithoutFilters: one that lists everything, whatever it is asked for,
// is asked once.
func TestKernelWithoutFilters(t *testing.T) {
	addr := netip.MustParseAddr
	entries := [][2]netip.Addr{{addr("192.0.2.1"), addr("10.0.0.1")}, {addr("192.0.2.2"), addr("10.0.0.2")}, {addr("192.0.2.3"), addr("10.0.0.3")}}
	lists, deleted := 0, 0
	conn := nltest.Dial(func(requests []netlink.Message) ([]netlink.Message, error) {
		r := requests[0]
		header := netlink.Header{Sequence: r.Header.Sequence, PID: nltest.PID}
		if r.Header.Type == unix.NFNL_SUBSYS_CTNETLINK<<8|ctMsgDelete {
			deleted++
			return nltest.Error(0, requests)
		}
		lists++
		var out []netlink.Message
		for _, e := range entries {
			attrs, err := FlowFilter{From: e[0], Answers: e[1], Proto: unix.IPPROTO_UDP, Port: 53}.encode()
			if err != nil {
				return nil, err
			}
			out = append(out, netlink.Message{Header: header, Data: append(make([]byte, 4), attrs...)})
		}
		return nltest.Multipart(append(out, netlink.Message{Header: header}))
	})
	c := &Conntrack{conn}
	defer c.Close()
	var filters []FlowFilter
	for _, e := range entries[:2] {
		filters = append(filters, FlowFilter{Answers: e[1]}, FlowFilter{From: e[1]})
	}
	if err := c.Delete(filters, func(f Flow) bool { return f.Answers != entries[2][1] }); err != nil {
		t.Fatal(err)
	}
	if lists != 1 || deleted != 2 {
		t.Errorf("%d lists, and %d entries deleted; want 1 and 2", lists, deleted)
	}
}

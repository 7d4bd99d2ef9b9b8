package netkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that x/sys does not have.
const (
	ctMsgGet    = 1 // IPCTNL_MSG_CT_GET
	ctMsgDelete = 2 // IPCTNL_MSG_CT_DELETE

	ctTupleOrig  = 1
	ctTupleReply = 2
	ctProtoInfo  = 4
	ctID         = 12
	ctZone       = 18
	ctFilter     = 25

	ctTupleIP    = 1
	ctTupleProto = 2
	ctIPv4Src    = 1
	ctIPv4Dst    = 2
	ctProtoNum   = 1
	ctProtoDst   = 3 // port
	ctInfoTCP    = 1
	ctTCPState   = 1

	ctFilterOrig  = 1
	ctFilterReply = 2
	ctByIPSrc     = 1 << 0
	ctByProtoNum  = 1 << 3
	ctByProtoDst  = 1 << 5
)

// Flow is an entry of connection tracking: what the kernel knows of a connection.
type Flow struct {
	Proto    byte
	From, To netip.Addr // as who asks sees it
	Port     uint16     // that is asked
	Answers  netip.Addr // who answers
	Asker    netip.Addr // whom the answers are for
	State    byte       // of TCP, the kernel's number

	raw []byte // as the kernel wrote it
}

// FlowFilter narrows what the kernel lists: all fields that are set are alike.
// Kernels before 5.8 know no filters and list everything, which Delete notices.
type FlowFilter struct {
	From    netip.Addr
	Answers netip.Addr
	Proto   byte
	Port    uint16 // with Proto
}

// Conntrack changes the kernel's connection tracking for IPv4.
type Conntrack struct{ conn *netlink.Conn }

// OpenConntrack opens it. It stays open: closing a socket of netfilter may wait
// until the kernel has freed what the last change of the ruleset replaced.
func OpenConntrack() (*Conntrack, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	return &Conntrack{c}, nil
}

// Close ends it.
func (c *Conntrack) Close() { _ = c.conn.Close() }

// Tracked is how many connections are tracked, or, where that can not be known,
// as many as there may be.
func Tracked() int {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		return math.MaxInt
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return math.MaxInt
	}
	return n
}

// Delete forgets the entries that one of the filters lists and that match. A
// filter that is empty lists all.
func (c *Conntrack) Delete(filters []FlowFilter, match func(Flow) bool) error {
	for _, f := range filters {
		all := false
		flows, err := c.list(f)
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, m := range flows {
			flow, err := decodeFlow(m.Data)
			if err != nil {
				return fmt.Errorf("list connections: %w", err)
			}
			all = all || !f.lists(flow)
			if !match(flow) {
				continue
			}
			name, err := flow.name()
			if err != nil {
				return fmt.Errorf("forget a connection: %w", err)
			}
			if _, err := c.conn.Execute(ctMessage(ctMsgDelete, netlink.Acknowledge, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("forget a connection: %w", err)
			}
		}
		if all {
			return nil // a kernel that knows no filters: the next list would be the same
		}
	}
	return nil
}

func (c *Conntrack) list(f FlowFilter) ([]netlink.Message, error) {
	attrs, err := f.encode()
	if err != nil {
		return nil, err
	}
	return c.conn.Execute(ctMessage(ctMsgGet, netlink.Dump, attrs))
}

func ctMessage(kind int, flags netlink.HeaderFlags, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}
}

// lists tells whether an entry is one of those that are asked for.
func (f FlowFilter) lists(e Flow) bool {
	return (!f.From.IsValid() || f.From == e.From) && (!f.Answers.IsValid() || f.Answers == e.Answers) &&
		(f.Proto == 0 || f.Proto == e.Proto && (f.Port == 0 || f.Port == e.Port))
}

func (f FlowFilter) encode() ([]byte, error) {
	if f == (FlowFilter{}) {
		return nil, nil
	}
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	var orig, reply uint32
	ip := func(a netip.Addr) func(*netlink.AttributeEncoder) error {
		return func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(ctIPv4Src, a.AsSlice())
			return nil
		}
	}
	if f.From.IsValid() || f.Proto != 0 {
		ae.Nested(ctTupleOrig, func(ae *netlink.AttributeEncoder) error {
			if f.From.IsValid() {
				orig |= ctByIPSrc
				ae.Nested(ctTupleIP, ip(f.From))
			}
			if f.Proto == 0 {
				return nil
			}
			orig |= ctByProtoNum
			ae.Nested(ctTupleProto, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(ctProtoNum, f.Proto)
				if f.Port != 0 {
					orig |= ctByProtoDst
					ae.Uint16(ctProtoDst, f.Port)
				}
				return nil
			})
			return nil
		})
	}
	if f.Answers.IsValid() {
		reply |= ctByIPSrc
		ae.Nested(ctTupleReply, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(ctTupleIP, ip(f.Answers))
			return nil
		})
	}
	ae.Nested(ctFilter, func(ae *netlink.AttributeEncoder) error {
		ae.ByteOrder = binary.NativeEndian
		ae.Uint32(ctFilterOrig, orig)
		ae.Uint32(ctFilterReply, reply)
		return nil
	})
	return ae.Encode()
}

// name is what tells the kernel which entry is meant: its first tuple, its zone,
// and its ID, which tells it from another that has come in its place.
func (f *Flow) name() ([]byte, error) {
	ad, err := netlink.NewAttributeDecoder(f.raw)
	if err != nil {
		return nil, err
	}
	ae := netlink.NewAttributeEncoder()
	for ad.Next() {
		switch ad.Type() {
		case ctTupleOrig:
			ae.Bytes(ctTupleOrig|unix.NLA_F_NESTED, ad.Bytes())
		case ctID, ctZone:
			ae.Bytes(ad.Type(), ad.Bytes())
		}
	}
	if err := ad.Err(); err != nil {
		return nil, err
	}
	return ae.Encode()
}

func decodeFlow(b []byte) (f Flow, err error) {
	const header = 4 // of netfilter
	if len(b) < header {
		return f, errors.New("an entry without a header")
	}
	f.raw = b[header:]
	ad, err := netlink.NewAttributeDecoder(f.raw)
	if err != nil {
		return f, err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case ctTupleOrig:
			ad.Nested(f.orig)
		case ctTupleReply:
			ad.Nested(f.reply)
		case ctProtoInfo:
			ad.Nested(f.info)
		}
	}
	return f, ad.Err()
}

func (f *Flow) orig(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctTupleIP:
			ad.Nested(addresses(&f.From, &f.To))
		case ctTupleProto:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case ctProtoNum:
						f.Proto = ad.Uint8()
					case ctProtoDst:
						f.Port = ad.Uint16()
					}
				}
				return nil
			})
		}
	}
	return nil
}

func (f *Flow) reply(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == ctTupleIP {
			ad.Nested(addresses(&f.Answers, &f.Asker))
		}
	}
	return nil
}

func (f *Flow) info(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == ctInfoTCP {
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == ctTCPState {
						f.State = ad.Uint8()
					}
				}
				return nil
			})
		}
	}
	return nil
}

func addresses(src, dst *netip.Addr) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			switch ad.Type() {
			case ctIPv4Src:
				*src, _ = netip.AddrFromSlice(ad.Bytes())
			case ctIPv4Dst:
				*dst, _ = netip.AddrFromSlice(ad.Bytes())
			}
		}
		return nil
	}
}

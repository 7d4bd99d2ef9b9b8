package netkit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// keyEnd is NFTA_SET_ELEM_KEY_END, which x/sys/unix lacks.
const keyEnd = 10

// getElement reads one element of a set. The nftables library can only read
// whole sets, which would make a small change cost as much as a large table.
func getElement(conn *netlink.Conn, table, set string, e Element) (Element, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	ae.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
			elem.ByteOrder = binary.BigEndian
			if e.End {
				elem.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			}
			elem.Nested(unix.NFTA_SET_ELEM_KEY, value(e.Key))
			if e.KeyEnd != "" {
				elem.Nested(keyEnd, value(e.KeyEnd))
			}
			return nil
		})
		return nil
	})
	attrs, err := ae.Encode()
	if err != nil {
		return Element{}, err
	}
	got, err := askElements(conn, 0, attrs)
	if err != nil {
		return Element{}, err
	}
	for _, el := range got {
		return el, nil
	}
	return Element{}, errors.New("no element in the kernel's answer")
}

// dumpElements reads all elements of a set. The nftables library can not
// decode those of verdict maps.
func dumpElements(conn *netlink.Conn, table, set string) (Elements, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return askElements(conn, netlink.Dump, attrs)
}

func askElements(conn *netlink.Conn, flags netlink.HeaderFlags, attrs []byte) (Elements, error) {
	reply, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{byte(nftables.TableFamilyIPv4), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	out := Elements{}
	for _, m := range reply {
		if len(m.Data) < 4 {
			return nil, errors.New("short answer from the kernel")
		}
		if err := out.decode(m.Data[4:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func value(b string) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(unix.NFTA_DATA_VALUE, []byte(b))
		return nil
	}
}

// decode adds the elements of one message.
func (e Elements) decode(b []byte) error {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var el Element
				list.Nested(el.decode)
				e.Add(el)
			}
			return nil
		})
	}
	return ad.Err()
}

func (e *Element) decode(ad *netlink.AttributeDecoder) error {
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(decodeValue(&e.Key, nil))
		case keyEnd:
			ad.Nested(decodeValue(&e.KeyEnd, nil))
		case unix.NFTA_SET_ELEM_DATA:
			ad.Nested(decodeValue(&e.Data, &e.Goto))
		}
	}
	return nil
}

// decodeValue reads what the kernel wraps every key and every value in: plain
// bytes, or a verdict with its chain.
func decodeValue(bytes, chain *string) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			switch {
			case ad.Type() == unix.NFTA_DATA_VALUE:
				*bytes = string(ad.Bytes())
			case ad.Type() == unix.NFTA_DATA_VERDICT && chain != nil:
				ad.Nested(func(verdict *netlink.AttributeDecoder) error {
					for verdict.Next() {
						if verdict.Type() == unix.NFTA_VERDICT_CHAIN {
							*chain = strings.TrimRight(string(verdict.Bytes()), "\x00")
						}
					}
					return nil
				})
			}
		}
		return nil
	}
}

// Generation is the number of the ruleset's last change, by anyone.
func Generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return generation(conn)
}

func generation(conn *netlink.Conn) (uint32, error) {
	reply, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN),
			Flags: netlink.Request,
		},
		Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	for _, m := range reply {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read nftables generation: no number in the kernel's answer")
}

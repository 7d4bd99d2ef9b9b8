package netkit

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// AskerZone puts what is tracked from a packet's connection on into the zone
// whose number is in Reg0, in the direction of who asked; answers are of no
// zone. It ends a rule. The nftables library can not say for which direction a
// zone is.
func AskerZone() []byte {
	const original = 0 // IP_CT_DIR_ORIGINAL
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.String(unix.NFTA_EXPR_NAME, "ct")
	ae.Nested(unix.NFTA_EXPR_DATA, func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
		ae.Uint32(unix.NFTA_CT_SREG, Reg0)
		ae.Uint8(unix.NFTA_CT_DIRECTION, original)
		return nil
	})
	b, err := ae.Encode()
	if err != nil {
		panic(err) // only for attributes beyond 64 KiB
	}
	return b
}

// ZoneData is a zone's number as a map of marks holds it: the kernel takes the
// first two bytes, in the machine's order.
func ZoneData(zone uint16) string {
	return string(binaryutil.NativeEndian.PutUint16(zone)) + "\x00\x00"
}

// addRaw adds a rule whose last expression is in netlink's form, in a
// transaction of its own.
func addRaw(conn *netlink.Conn, table, chain string, r Rule) error {
	text, err := r.comment()
	if err != nil {
		return err
	}
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.NFTA_RULE_TABLE, table)
	ae.String(unix.NFTA_RULE_CHAIN, chain)
	ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(ae *netlink.AttributeEncoder) error {
		for _, e := range r.Exprs {
			b, err := expr.Marshal(byte(nftables.TableFamilyIPv4), e)
			if err != nil {
				return err
			}
			ae.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, b)
		}
		ae.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, r.Raw)
		return nil
	})
	ae.Bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, text))
	attrs, err := ae.Encode()
	if err != nil {
		return fmt.Errorf("encode rule %q: %w", r.Why, err)
	}
	batch := func(typ int) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	if _, err := conn.SendMessages([]netlink.Message{
		batch(unix.NFNL_MSG_BATCH_BEGIN),
		{
			Header: netlink.Header{
				Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE),
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
			},
			Data: append([]byte{byte(nftables.TableFamilyIPv4), unix.NFNETLINK_V0, 0, 0}, attrs...),
		},
		batch(unix.NFNL_MSG_BATCH_END),
	}); err != nil {
		return err
	}
	if _, err := conn.Receive(); err != nil {
		return fmt.Errorf("add rule %q: %w", r.Why, err)
	}
	return nil
}

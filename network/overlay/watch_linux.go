package overlay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"shoal/internal/netkit"
)

// settle gathers the many changes that a network manager makes at once.
const settle = 50 * time.Millisecond

// watchAgain is the pause before the kernel is asked anew, after an error.
const watchAgain = time.Second

// watch reconciles soon after the tunnel or a routing rule went, until ctx
// ends. Network managers remove rules and devices that they do not know when
// they start; the clock alone would leave answers astray until it strikes.
func (o *Overlay) watch(ctx context.Context) error {
	said := ""
	for {
		if err := o.watchOnce(ctx); ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			o.log.Warn("can not watch the tunnel now; the clock goes on", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchAgain):
		}
	}
}

func (o *Overlay) watchOnce(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer conn.Close()
	if err := errors.Join(conn.JoinGroup(unix.RTNLGRP_LINK), conn.JoinGroup(unix.RTNLGRP_IPV4_RULE)); err != nil {
		return fmt.Errorf("subscribe to routing: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for {
		msgs, err := conn.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		overflow := errors.Is(err, unix.ENOBUFS)
		if err != nil && !overflow {
			return err
		}
		if !overflow && !concerns(msgs) {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
		o.reconcile(ctx)
	}
}

var watched = []string{netkit.Tunnel, netkit.EncryptedTunnel, netkit.WireGuard}

// concerns tells whether a rule went, or something happened to a tunnel.
func concerns(msgs []netlink.Message) bool {
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_DELRULE:
			return true
		case unix.RTM_DELLINK, unix.RTM_NEWLINK:
			if len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
			if err != nil {
				continue
			}
			for ad.Next() {
				if ad.Type() != unix.IFLA_IFNAME || !slices.Contains(watched, ad.String()) {
					continue
				}
				up := binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
				if m.Header.Type == unix.RTM_DELLINK || !up {
					return true
				}
			}
		}
	}
	return false
}

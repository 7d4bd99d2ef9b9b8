package netkit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// settle gathers the many small changes that a firewall tool makes at once.
	settle = 50 * time.Millisecond
	// breather times the last check's length is the least pause after it, so
	// that a host whose firewall changes all the time spends little on us.
	breather = 10
)

// newGen is the one message that ends every change of nftables' ruleset.
const newGen = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN

// OnFirewallChange calls check at once, soon after another process changed the
// nftables ruleset, and every so often besides, until ctx ends; that is no
// error.
func OnFirewallChange(ctx context.Context, log *zap.Logger, every time.Duration, check func()) error {
	events, stop, err := firewallEvents()
	if err != nil {
		// Without events there is still the clock.
		log.Warn("can not watch the firewall for changes", zap.Error(err))
	} else {
		defer stop()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		// First of all for what changed before there was a watch.
		start := time.Now()
		check()
		if !pause(ctx, breather*time.Since(start)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-events:
			if !pause(ctx, settle) {
				return nil
			}
			drain(events)
		}
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// firewallEvents signals changes made by others; several may become one.
func firewallEvents() (<-chan struct{}, func(), error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := errors.Join(onlyGenerations(conn), conn.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("subscribe to nftables: %w", err)
	}
	events := make(chan struct{}, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			msgs, err := conn.Receive()
			// An overflow means that we missed something; any other error
			// comes from closing.
			overflow := errors.Is(err, unix.ENOBUFS)
			if err != nil && !overflow {
				return
			}
			if overflow || foreign(msgs) {
				select {
				case events <- struct{}{}:
				default:
				}
			}
		}
	})
	return events, func() { _ = conn.Close(); reader.Wait() }, nil
}

// onlyGenerations has the kernel drop all but the message that ends a change:
// loading a large table would otherwise send us a copy of each element.
func onlyGenerations(conn *netlink.Conn) error {
	// A filter loads in network order, the message type is in the machine's.
	typ := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, newGen))
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(typ), SkipFalse: 1},
		bpf.RetConstant{Val: ^uint32(0)},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	return conn.SetBPF(prog)
}

// foreign tells whether any of the changes was made by another process.
func foreign(msgs []netlink.Message) bool {
	for _, m := range msgs {
		if m.Header.Type != newGen || len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return true
		}
		ad.ByteOrder = binary.BigEndian
		thread := 0
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_PROC_PID {
				thread = int(ad.Uint32())
			}
		}
		// The kernel names the thread, of which we have several.
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(thread)); err != nil {
			return true
		}
	}
	return false
}

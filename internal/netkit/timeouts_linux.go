package netkit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Timeouts are how long the kernel remembers connections of a rule's own, in
// place of what holds for the host. The kernel never changes those of a name, and
// they are not read back, so the name has to say what they are: rules that use
// others are others.
type Timeouts struct {
	Name string
	TCP  expr.CtStatePolicyTimeout // seconds by state; all of them
}

// forgetResets is how the name of what ForgetResets gives begins.
const forgetResets = "reset_is_end"

// ForgetResets forgets a TCP connection with its reset. The kernel would remember
// it for ten seconds, and take a client that comes again from the same port for a
// part of it: the packet would be sent to the old backend. (It does begin anew
// when the client was who reset it, or who closed first did not reset.) A reset
// that the receiver may not believe, as its number is not the one that is next,
// does not end an open connection for the kernel either, so that is not forgotten
// too early. Of one that a side has closed newer kernels do not look at the number:
// who can forge its packets can cut off what the other side still sends. All else
// is as the host has it at the time.
//
// It fails where the kernel has no such thing.
func ForgetResets() (Timeouts, error) {
	t := Timeouts{TCP: expr.CtStatePolicyTimeout{}}
	for state, name := range map[uint16]string{
		expr.CtStateTCPSYNSENT:     "syn_sent",
		expr.CtStateTCPSYNSENT2:    "syn_sent",
		expr.CtStateTCPSYNRECV:     "syn_recv",
		expr.CtStateTCPESTABLISHED: "established",
		expr.CtStateTCPFINWAIT:     "fin_wait",
		expr.CtStateTCPCLOSEWAIT:   "close_wait",
		expr.CtStateTCPLASTACK:     "last_ack",
		expr.CtStateTCPTIMEWAIT:    "time_wait",
		expr.CtStateTCPRETRANS:     "max_retrans",
		expr.CtStateTCPUNACK:       "unacknowledged",
	} {
		b, err := os.ReadFile(filepath.Join("/proc/sys/net/netfilter", "nf_conntrack_tcp_timeout_"+name))
		if err != nil {
			return t, fmt.Errorf("read the host's timeouts: %w", err)
		}
		seconds, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		if err != nil {
			return t, fmt.Errorf("read the host's timeouts: %w", err)
		}
		t.TCP[state] = uint32(seconds)
	}
	t.TCP[expr.CtStateTCPCLOSE] = 0
	h := sha256.New()
	for _, state := range slices.Sorted(maps.Keys(t.TCP)) {
		h.Write(binary.BigEndian.AppendUint32(nil, t.TCP[state]))
	}
	t.Name = forgetResets + "_" + hex.EncodeToString(h.Sum(nil)[:4])
	return t, apart(func() error { return tryRule([]Timeouts{t}, t.Use()) })
}

// Use has a new connection remembered so long. Others than TCP's are left alone.
func (t Timeouts) Use() []expr.Any {
	return []expr.Any{&expr.Objref{Type: int(nftables.ObjTypeCtTimeout), Name: t.Name}}
}

// object is the kernel's form. The library fills in what is missing from a map of
// its own, which it also writes to: with all there is, it is as we wrote it.
func (t Timeouts) object(table *nftables.Table) *nftables.NamedObj {
	return &nftables.NamedObj{
		Table: table, Name: t.Name, Type: nftables.ObjTypeCtTimeout,
		Obj: &expr.CtTimeout{L3Proto: unix.NFPROTO_IPV4, L4Proto: unix.IPPROTO_TCP, Policy: t.TCP},
	}
}

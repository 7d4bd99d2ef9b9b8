package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State is what a bed writes down, so that other processes can use and remove
// it. The processes are not in it: they are found by the marker they carry,
// which cannot go stale.
type State struct {
	Name   string       `json:"name"`
	Hosts  int          `json:"hosts"`
	Subnet netip.Prefix `json:"subnet"`
	Shoal  string       `json:"shoal,omitempty"`
	Engine string       `json:"engine,omitempty"` // directory of another engine than the machine's
	Owner  Owner        `json:"owner,omitzero"`
}

// Owner is the process that a temporary bed belongs to. The start time tells
// it from a later process with the same number.
type Owner struct {
	PID   int    `json:"pid,omitempty"`
	Start string `json:"start,omitempty"`
}

func ownerOf(pid int) Owner {
	if pid == 0 {
		return Owner{}
	}
	return Owner{PID: pid, Start: startTime(pid)}
}

// dead tells whether there was an owner and it has ended.
func (o Owner) dead() bool {
	return o.PID != 0 && startTime(o.PID) != o.Start
}

// startTime is field 22 of /proc/PID/stat; the name in field 2 may hold
// anything, so fields are counted after its closing bracket.
func startTime(pid int) string {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// The numbers of the machines in the bed's /24.
const (
	gatewayNumber   = 1
	firstHostNumber = 11
	maxHosts        = 180
	clientNumber    = 201
	machineNumber   = 254 // the machine that carries the bed
)

// address is the n-th address of the bed's subnet.
func (s State) address(n int) netip.Addr {
	a := s.Subnet.Addr().As4()
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

// link names the bed's one interface in the machine's own namespace.
func (s State) link() string {
	a := s.Subnet.Addr().As4()
	return fmt.Sprintf("shoalbed%02x%02x", a[1], a[2])
}

func statePath(name string) string { return filepath.Join(Root, name, "bed.json") }

func readState(name string) (State, error) {
	raw, err := os.ReadFile(statePath(name))
	if err != nil {
		return State{}, fmt.Errorf("open bed %s: %w", name, err)
	}
	var s State
	if err := json.Unmarshal(raw, &s); err != nil {
		return State{}, fmt.Errorf("open bed %s: %w", name, err)
	}
	return s, nil
}

func (s State) write() error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temp := statePath(s.Name) + ".new"
	if err := os.WriteFile(temp, append(raw, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, statePath(s.Name))
}

// List names the beds of this machine.
func List() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list beds: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// claim makes the bed's directory and takes a subnet for it.
func (b *Bed) claim() error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Mkdir(b.Dir(), 0o755); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("bed %s exists already (%s); take it down first", b.Name(), b.Dir())
	} else if err != nil {
		return fmt.Errorf("make bed %s: %w", b.Name(), err)
	}
	taken, err := takenSubnets()
	if err != nil {
		return errors.Join(err, os.Remove(b.Dir()))
	}
	b.state.Subnet, err = freeSubnet(b.Name(), taken)
	if err != nil {
		return errors.Join(err, os.Remove(b.Dir()))
	}
	return b.state.write()
}

// lock keeps two beds that start at once from taking the same subnet.
func lock() (unlock func(), err error) {
	if err := os.MkdirAll(Root, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", Root, err)
	}
	f, err := os.OpenFile(filepath.Join(Root, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", Root, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", Root, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// takenSubnets are the other beds' and whatever this machine has a route to,
// its default route aside.
func takenSubnets() ([]netip.Prefix, error) {
	names, err := List()
	if err != nil {
		return nil, err
	}
	var taken []netip.Prefix
	for _, name := range names {
		// A bed without a readable state has no subnet yet, or never will.
		if s, err := readState(name); err == nil && s.Subnet.IsValid() {
			taken = append(taken, s.Subnet)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if addr, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
			if bits, _ := r.Dst.Mask.Size(); bits > 0 {
				taken = append(taken, netip.PrefixFrom(addr, bits))
			}
		}
	}
	return taken, nil
}

// freeSubnet picks a /24 of 10.200.0.0 to 10.254.255.255: the top of what
// swarms use for their own networks, which count from the bottom. The name
// chooses where to look first, so that a bed made again has the same address.
func freeSubnet(name string, taken []netip.Prefix) (netip.Prefix, error) {
	const count = 55 * 256
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name))
	first := int(sum.Sum32() % count)
	for i := range count {
		n := (first + i) % count
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(200 + n/256), byte(n % 256), 0}), 24)
		if !overlapsAny(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("no free /24 between 10.200.0.0 and 10.254.255.255")
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

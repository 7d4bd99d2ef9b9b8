package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"shoal/internal/netkit"
)

// Device is this node's WireGuard device.
type Device struct {
	name   string
	helper []string
	told   map[Key]netip.AddrPort
	// control stays open: the kernel looks for a module whenever somebody asks
	// whether it has WireGuard.
	control *wgctrl.Client
}

// New wires a device. Set and Remove are for one caller at a time. helper is the
// command that calls Serve with the name that is added to it, for kernels
// without WireGuard.
func New(name string, helper ...string) *Device {
	return &Device{name: name, helper: helper, told: map[Key]netip.AddrPort{}}
}

// startTime bounds how long the helper may take to be there.
const startTime = 5 * time.Second

// Set makes the device so, whatever there was, and gives its index. The private
// key comes last where it can: whoever sends by the device changes the address
// that it sends from right after.
func (d *Device) Set(c Config) (index int, err error) {
	if d.control == nil {
		if d.control, err = wgctrl.New(); err != nil {
			return 0, fmt.Errorf("control WireGuard: %w", err)
		}
	}
	wg := d.control
	link, have, err := d.find(wg)
	if err != nil {
		return 0, err
	}
	if have == nil {
		if link, have, err = d.make(wg, link, c); err != nil {
			return 0, err
		}
	}
	index = link.Attrs().Index
	if link.Attrs().Flags&net.FlagUp != 0 {
		return index, errors.Join(d.tune(link, c), d.configure(wg, have, c))
	}
	if err := d.configure(wg, have, c); err != nil { // the port, before it opens one
		return 0, err
	}
	if err := d.tune(link, c); err != nil {
		return 0, err
	}
	greet(index, c.Peers)
	return index, nil
}

// greet has a new device speak with everybody at once. Others may have a session
// with the one before it, under the same key, and would go on sending in vain
// for fifteen seconds.
func greet(index int, peers []Peer) {
	for _, p := range peers {
		// By number: the names of interfaces are remembered for a while.
		to := &net.UDPAddr{IP: Address(p.Key).AsSlice(), Port: discard, Zone: strconv.Itoa(index)}
		if c, err := net.DialUDP("udp6", nil, to); err == nil {
			_, _ = c.Write([]byte{0}) // it may be lost, like any packet
			_ = c.Close()
		}
	}
}

// discard is the port for what nobody wants to have.
const discard = 9

func (d *Device) configure(wg *wgctrl.Client, have *wgtypes.Device, c Config) error {
	if change, any := plan(have, c, d.told); any {
		if err := wg.ConfigureDevice(d.name, change); err != nil {
			return fmt.Errorf("configure %s: %w", d.name, err)
		}
	}
	clear(d.told)
	for _, p := range c.Peers {
		d.told[p.Key] = p.Endpoint
	}
	return nil
}

// find gives the device, and nothing if there is none. An interface of the name
// that is no WireGuard device comes alone.
func (d *Device) find(wg *wgctrl.Client) (netlink.Link, *wgtypes.Device, error) {
	link, err := netlink.LinkByName(d.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find %s: %w", d.name, err)
	}
	have, err := wg.Device(d.name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil, fmt.Errorf("read %s: %w", d.name, err)
		}
		return link, nil, nil
	}
	return link, have, nil
}

// make makes the device anew, in place of what has its name.
func (d *Device) make(wg *wgctrl.Client, instead netlink.Link, c Config) (netlink.Link, *wgtypes.Device, error) {
	if instead != nil {
		if err := remove(instead); err != nil {
			return nil, nil, err
		}
	}
	clear(d.told)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.name
	err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = d.start(wg, c)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", d.name, err)
	}
	link, have, err := d.find(wg)
	if err == nil && have == nil {
		err = fmt.Errorf("%s is gone as soon as it was made", d.name)
	}
	return link, have, err
}

// start starts the helper and waits until it serves.
func (d *Device) start(wg *wgctrl.Client, c Config) error {
	if len(d.helper) == 0 {
		return errors.New("the kernel has no WireGuard")
	}
	if err := free(c.Port); err != nil { // the helper itself could only log it
		return err
	}
	cmd := exec.Command(d.helper[0], append(slices.Clone(d.helper[1:]), d.name)...)
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends us does not end it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("serve WireGuard in a process of its own: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // as long as it lives, which may be longer than we do
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(startTime)
	for {
		if _, have, err := d.find(wg); err != nil || have != nil {
			return err
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return fmt.Errorf("the process that serves WireGuard ended at once (%v): it has said why in the log", err)
		case <-late:
			return errors.Join(fmt.Errorf("the process that serves WireGuard was not ready within %s", startTime), cmd.Process.Kill())
		}
	}
}

// free tells whether nobody else has the port.
func free(port uint16) error {
	c, err := net.ListenPacket("udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	if err != nil {
		return fmt.Errorf("UDP port %d, which encrypted networks need: %w", port, err)
	}
	return c.Close()
}

// tune gives the interface its addresses and MTU.
func (d *Device) tune(link netlink.Link, c Config) error {
	if link.Attrs().MTU != c.MTU {
		if err := netlink.LinkSetMTU(link, c.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", d.name, c.MTU, err)
		}
	}
	v6 := []string{"net", "ipv6", "conf", d.name}
	err := errors.Join(
		netkit.Sysctl("0", append(v6, "disable_ipv6")...), // where it is off by default, too
		netkit.Sysctl("1", append(v6, "addr_gen_mode")...),
		netkit.Sysctl("0", append(v6, "accept_ra")...),
		netkit.Sysctl("0", append(v6, "forwarding")...),
	)
	if err != nil {
		return fmt.Errorf("set up %s: %w", d.name, err)
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s: %w", d.name, err)
		}
	}
	return d.setAddresses(link, c.Own)
}

// setAddresses makes the node's addresses those of its keys.
func (d *Device) setAddresses(link netlink.Link, own []Key) error {
	missing := map[netip.Addr]bool{}
	for _, k := range own {
		missing[Address(k)] = true
	}
	have, err := netkit.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", d.name, err)
	}
	for _, h := range have {
		a, _ := netip.AddrFromSlice(h.IP)
		if missing[a] {
			delete(missing, a)
			continue
		}
		if err := netlink.AddrDel(link, &h); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s of %s: %w", h.IP, d.name, err)
		}
	}
	for a := range missing {
		// Nobody else can have it: nothing to find out, and to wait for.
		addr := &netlink.Addr{IPNet: netkit.IPNet(netip.PrefixFrom(a, 64)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("address %s of %s: %w", a, d.name, err)
		}
	}
	return nil
}

// Private is the key of a device that is there already, such as one that a
// daemon before this one made; zero if there is none.
func (d *Device) Private() (Key, error) {
	have, err := d.State()
	if err != nil || have == nil {
		return Key{}, err
	}
	return have.PrivateKey, nil
}

// State is the device as it is; nil if there is none.
func (d *Device) State() (*wgtypes.Device, error) {
	wg, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("control WireGuard: %w", err)
	}
	defer wg.Close()
	_, have, err := d.find(wg)
	return have, err
}

// Remove removes the device, and with it the process that serves it.
func (d *Device) Remove() error {
	clear(d.told)
	if d.control != nil {
		_ = d.control.Close() // there is nothing left to control
		d.control = nil
	}
	link, err := netlink.LinkByName(d.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", d.name, err)
	}
	return remove(link)
}

func remove(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", link.Attrs().Name, err)
	}
	return nil
}

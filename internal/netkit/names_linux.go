package netkit

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// IfacePrefix begins the name of the host's end of every container interface.
// Firewall rules match it as a wildcard, so nothing else may use it.
const IfacePrefix = "shl"

// Tunnel is the interface to all other nodes. It is none of a container's, and
// must not begin like one.
const Tunnel = "shoal0"

// EncryptedTunnel is the one for encrypted networks. Its name begins with the
// other's, so that a rule for all tunnels matches that as a wildcard.
const EncryptedTunnel = Tunnel + "e"

// WireGuard is the device that the encrypted tunnel's own packets leave by. Its
// name must not begin like a tunnel's: it carries no packet of a container.
const WireGuard = "shoalwg"

// TunnelOverhead is what the tunnel adds to a packet: outer IP, UDP and VXLAN
// headers, and the inner Ethernet header.
const TunnelOverhead = 20 + 8 + 8 + 14

// What the encrypted tunnel adds: WireGuard (outer IP and UDP headers, its own,
// and the seal), and inside of it the tunnel, here over IPv6.
const (
	WireGuardOverhead = 20 + 8 + 16 + 16
	InnerOverhead     = 40 + 8 + 8 + 14
	EncryptedOverhead = WireGuardOverhead + InnerOverhead
)

// DefaultMTU is what a network between nodes takes if nothing says otherwise.
const DefaultMTU = 1500

// TunnelMAC is the hardware address of the tunnel's end at a node. It is the
// address that the node's tunnel ends at, so that no two nodes that can be
// reached share one, and it needs no table to be known.
func TunnelMAC(end netip.Addr) net.HardwareAddr { return macOf('s', end) }

// EncryptedMAC is that of the encrypted tunnel's end there.
func EncryptedMAC(end netip.Addr) net.HardwareAddr { return macOf('e', end) }

func macOf(kind byte, end netip.Addr) net.HardwareAddr {
	a := end.As4()
	return net.HardwareAddr{2, kind, a[0], a[1], a[2], a[3]} // locally administered
}

// MarkMask covers the bits of a packet's and of a connection's mark that say by
// which node it came in. They leave alone what others are known to use:
// Kubernetes bits 14 and 15, Tailscale 16 to 23. The first byte is never zero
// in a mark of ours, so that no rule for a small number matches it.
const MarkMask uint32 = 0x7f003fff

// Marks is how many different marks there are.
const Marks = 127 << 14

// Mark is the nth mark; n counts from 0 and is below Marks.
func Mark(n uint32) uint32 { return (n>>14+1)<<24 | n&(1<<14-1) }

// RouteProtocol marks the routes that are ours, so that we find them again and
// never touch another's. The kernel leaves numbers above 4 to user space.
const RouteProtocol netlink.RouteProtocol = 83

// Gateway is the default gateway of every container. It is link-local and the
// same everywhere: the host answers ARP for it on each interface, so that no
// network has to give up an address for it.
var Gateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// NamesPort is where the gateway answers containers' questions for names, by UDP
// and TCP. There, nothing that is published comes first.
const NamesPort uint16 = 53

// Localhost is the one loopback address by which published ports are reached.
var Localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// idLen fills what an interface name (15 bytes) leaves after the prefix.
const idLen = 12

// HostIface is the host's end of an endpoint's interface pair.
func HostIface(endpointID string) string { return IfacePrefix + short(endpointID) }

// PeerIface is the container's end, as long as the engine has not taken it.
func PeerIface(endpointID string) string { return "shp" + short(endpointID) }

func short(id string) string { return id[:min(len(id), idLen)] }

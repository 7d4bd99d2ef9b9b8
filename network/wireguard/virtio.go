package wireguard

import "encoding/binary"

// virtio is what the kernel and we say to each other of a packet, in front of it
// (struct virtio_net_hdr_v1_hash_tunnel, little-endian). Where the kernel does
// not know of tunnels it is the first ten bytes, and all of them zero.
type virtio []byte

const (
	plainHeader  = 10
	tunnelHeader = 24
)

const (
	needsSum   = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM: the innermost checksum is to be completed
	sumsTunnel = 8 // VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM: the tunnel's packets have one, too

	// gsoTunnel is VIRTIO_NET_HDR_GSO_TCPV4 with _UDP_TUNNEL_IPV6.
	gsoTunnel = 0x01 | 0x40
)

func (h virtio) flags() byte    { return h[0] }
func (h virtio) gso() byte      { return h[1] }
func (h virtio) size() int      { return int(binary.LittleEndian.Uint16(h[4:])) }
func (h virtio) sumFrom() int   { return int(binary.LittleEndian.Uint16(h[6:])) }
func (h virtio) sumOffset() int { return int(binary.LittleEndian.Uint16(h[8:])) }
func (h virtio) udp() int       { return int(binary.LittleEndian.Uint16(h[20:])) }
func (h virtio) ip() int        { return int(binary.LittleEndian.Uint16(h[22:])) }

// setTunnelled says that what follows is TCP in a tunnel, that its headers have
// these places, and that it stands for packets with size bytes of data each.
func (h virtio) setTunnelled(udp, ip, tcp, data, size int) {
	clear(h)
	h[0], h[1] = needsSum|sumsTunnel, gsoTunnel
	binary.LittleEndian.PutUint16(h[2:], uint16(data))
	binary.LittleEndian.PutUint16(h[4:], uint16(size))
	binary.LittleEndian.PutUint16(h[6:], uint16(tcp))
	binary.LittleEndian.PutUint16(h[8:], atTCPSum)
	binary.LittleEndian.PutUint16(h[20:], uint16(udp))
	binary.LittleEndian.PutUint16(h[22:], uint16(ip))
}

// atTCPSum is where TCP's checksum is in its header.
const atTCPSum = 16

// complete writes the checksum that the kernel left to us, if it did. Its field
// has the sum of what it covers of the header ahead.
func (h virtio) complete(p []byte) (ok bool) {
	if h.flags()&needsSum == 0 {
		return true
	}
	field := h.sumFrom() + h.sumOffset()
	if field+2 > len(p) {
		return false
	}
	setUDPSum(p[field:], sum(0, p[h.sumFrom():]))
	return true
}

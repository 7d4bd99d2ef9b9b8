package wireguard

import (
	"bytes"
	"encoding/binary"
)

// run is packets of one connection that follow on each other, which the kernel
// is given as one.
type run struct {
	first, last int    // packets: next leads from one to another
	count       int    // of them
	connection  []byte // nil if it is none of TCP in a tunnel
	data        int    // where it begins in each
	size        int    // of the data of each but the last
	length      int    // of all together
	seq         uint32 // the number of what would follow
	flags       byte   // the last one's
	closed      bool   // nothing may follow
}

// merger finds runs, and keeps its memory.
type merger struct {
	runs []run
	next []int
}

const (
	// most is how many packets make one: a call takes 1024 pieces of memory.
	most = 128
	// largest is what a header can say of the length of what follows.
	largest = 1<<16 - 1
)

// plan tells in which runs to hand packets over. What belongs to one connection
// stays in its order.
func (m *merger) plan(packets [][]byte) []run {
	m.runs, m.next = m.runs[:0], m.next[:0]
	for i, p := range packets {
		m.next = append(m.next, 0)
		r := run{first: i, last: i, count: 1, length: len(p), closed: true}
		if data, ok := tunnelled(p); ok {
			r.connection = p[atTCP-8 : atTCP+4] // addresses and ports
			if mergeable(p, data) {
				r.data, r.size, r.flags = data, len(p)-data, p[atTCP+13]
				r.seq = binary.BigEndian.Uint32(p[atTCP+4:]) + uint32(r.size)
				r.closed = r.flags&flagPSH != 0
				if before := m.latest(r.connection); before != nil && before.takes(packets[before.first], p, r) {
					m.next[before.last] = i
					before.add(r)
					continue
				}
			}
		}
		m.runs = append(m.runs, r)
	}
	return m.runs
}

// mergeable tells whether a packet can be part of a run. What is not fragmented
// on its way needs no number, so none is lost.
func mergeable(p []byte, data int) bool {
	return data < len(p) && p[atTCP+13]&^flagPSH == flagACK &&
		binary.BigEndian.Uint16(p[atIP+6:]) == dontFragment && intact(p)
}

// latest is the last run of a connection: what comes now must not overtake it.
func (m *merger) latest(connection []byte) *run {
	for i := len(m.runs) - 1; i >= 0; i-- {
		if r := &m.runs[i]; bytes.Equal(r.connection, connection) {
			return r
		}
	}
	return nil
}

// takes tells whether a packet goes on where the run ends, under the headers of
// its first.
func (r *run) takes(first, p []byte, next run) bool {
	return !r.closed && r.count < most && next.data == r.data && next.size <= r.size &&
		r.length+next.size+len(options) <= largest &&
		binary.BigEndian.Uint32(p[atTCP+4:]) == r.seq &&
		same(first, p, 0, 4) && // all but IPv6's length
		same(first, p, 6, atUDP+4) && // UDP's length and checksum
		same(first, p, atVXLAN, atIP+2) && // IPv4's length and number
		same(first, p, atIP+6, atIP+10) && // its checksum
		same(first, p, atIP+12, atTCP+4) && // TCP's number
		same(first, p, atTCP+8, atTCP+13) && // its flags, which are right each by itself
		same(first, p, atTCP+14, atTCP+atTCPSum) && // its checksum
		same(first, p, atTCP+18, r.data)
}

func same(a, b []byte, from, to int) bool { return bytes.Equal(a[from:to], b[from:to]) }

func (r *run) add(next run) {
	r.closed = next.closed || next.size < r.size
	r.last, r.seq, r.flags = next.last, next.seq, next.flags
	r.length += next.size
	r.count++
}

// options are for the receiver and mean nothing (RFC 4727's type for
// experiments; padding may not be so long). They stand in front of UDP's header,
// since the kernel takes it for granted that there is an Ethernet header, which
// a tun device does not have: it refuses a packet in a tunnel whose UDP header
// begins where it would then be too early.
const options = "\x11\x01\x1e\x0c" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// mostHeaders is as long as what header writes may be.
const mostHeaders = tunnelHeader + atTCP + len(options) + 60

// header writes what goes ahead of a run's data, and gives it.
func (r *run) header(to, first []byte) []byte {
	const udp, ip, tcp = atUDP + len(options), atIP + len(options), atTCP + len(options)
	to = to[:tunnelHeader+len(options)+r.data]
	p := to[tunnelHeader:]
	copy(p, first[:atUDP])
	copy(p[atUDP:], options)
	copy(p[udp:], first[atUDP:r.data])
	virtio(to[:tunnelHeader]).setTunnelled(udp, ip, tcp, len(p), r.size)

	binary.BigEndian.PutUint16(p[4:], uint16(r.length+len(options)-atUDP))
	p[6] = protoDestination
	binary.BigEndian.PutUint16(p[udp+4:], uint16(r.length-atUDP))
	binary.BigEndian.PutUint16(p[ip+2:], uint16(r.length-atIP))
	p[ip+10], p[ip+11] = 0, 0
	setSum(p[ip+10:], sum(0, p[ip:tcp]))
	p[tcp+13] = r.flags
	// The sum of what it covers of the header ahead, for the kernel to complete.
	binary.LittleEndian.PutUint16(p[tcp+atTCPSum:], fold(pseudo4(p[ip:], r.length-atTCP)))
	return to
}

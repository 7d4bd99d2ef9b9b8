package wireguard

import (
	"bytes"
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	at := func(seq uint32, n int) packet { return packet{seq: seq, data: content(n), flags: flagACK} }
	with := func(k packet, change func(*packet)) []byte { change(&k); return k.bytes() }
	spoilt := func(k packet, change func(b []byte)) []byte {
		b := k.bytes()
		change(b)
		return b
	}
	first, second, third := at(100, 50).bytes(), at(150, 50).bytes(), at(200, 50).bytes()
	for name, c := range map[string]struct {
		packets [][]byte
		want    [][]int // packets of each run
	}{
		"nothing":                   {},
		"one":                       {[][]byte{first}, [][]int{{0}}},
		"all":                       {[][]byte{first, second, third}, [][]int{{0, 1, 2}}},
		"its number begins again":   {[][]byte{at(1<<32-50, 50).bytes(), at(0, 50).bytes()}, [][]int{{0, 1}}},
		"a short one ends it":       {[][]byte{first, at(150, 49).bytes(), at(199, 49).bytes()}, [][]int{{0, 1}, {2}}},
		"a longer one does not fit": {[][]byte{first, at(150, 51).bytes(), at(201, 51).bytes()}, [][]int{{0}, {1, 2}}},
		"pushed": {
			[][]byte{first, with(at(150, 50), func(k *packet) { k.flags |= flagPSH }), third},
			[][]int{{0, 1}, {2}},
		},
		"one is missing":  {[][]byte{first, third}, [][]int{{0}, {1}}},
		"the wrong order": {[][]byte{second, first, third}, [][]int{{0}, {1}, {2}}},
		"two connections": {
			[][]byte{first, with(at(100, 50), func(k *packet) { k.port = 9 }), second, with(at(150, 50), func(k *packet) { k.port = 9 })},
			[][]int{{0, 2}, {1, 3}},
		},
		"the last of a connection is not overtaken": {
			[][]byte{first, at(150, 0).bytes(), second},
			[][]int{{0}, {1}, {2}},
		},
		"the end": {
			[][]byte{first, with(at(150, 50), func(k *packet) { k.flags |= flagFIN })},
			[][]int{{0}, {1}},
		},
		"other options": {
			[][]byte{with(at(100, 50), func(k *packet) { k.options = timestamps }), with(at(150, 50), func(k *packet) { k.options = "\x01\x01\x08\x0a\x00\x00\x00\x02\x00\x00\x00\x02" })},
			[][]int{{0}, {1}},
		},
		"as many options": {
			[][]byte{with(at(100, 50), func(k *packet) { k.options = timestamps }), with(at(150, 50), func(k *packet) { k.options = timestamps })},
			[][]int{{0, 1}},
		},
		"not in a tunnel": {[][]byte{[]byte("\x45 anything"), first, second, {}}, [][]int{{0}, {1, 2}, {3}}},
		"too much": {
			[][]byte{at(0, 33000).bytes(), at(33000, 33000).bytes()},
			[][]int{{0}, {1}},
		},
	} {
		t.Run(name, func(t *testing.T) { wantRuns(t, c.packets, c.want) })
	}

	// What is not the same in all of a run, or not right, stays by itself.
	for name, change := range map[string]func(b []byte){
		"traffic class":          func(b []byte) { b[1] |= 0x10 },
		"hops":                   func(b []byte) { b[7]-- },
		"the tunnel's sender":    func(b []byte) { b[23]++ },
		"the tunnel's receiver":  func(b []byte) { b[39]++ },
		"the tunnel's port":      func(b []byte) { b[atUDP+1]++ },
		"VXLAN network":          func(b []byte) { b[atVXLAN+6]++ },
		"the sending node":       func(b []byte) { b[atEther+11]++ },
		"the node it is for":     func(b []byte) { b[atEther+5]++ },
		"type of service":        func(b []byte) { b[atIP+1]++ },
		"time to live":           func(b []byte) { b[atIP+8]-- },
		"sender":                 func(b []byte) { b[atIP+15]++ },
		"receiver":               func(b []byte) { b[atIP+19]++ },
		"what may be fragmented": func(b []byte) { b[atIP+6] = 0 },
		"acknowledgement":        func(b []byte) { b[atTCP+11]++ },
		"window":                 func(b []byte) { b[atTCP+15]++ },
		"urgent":                 func(b []byte) { b[atTCP+19]++ },
		"reset":                  func(b []byte) { b[atTCP+13] |= 4 },
		"congestion":             func(b []byte) { b[atTCP+13] |= 64 },
	} {
		t.Run("another "+name, func(t *testing.T) {
			wantRuns(t, [][]byte{first, spoilt(at(150, 50), func(b []byte) { change(b); resum(b) })}, [][]int{{0}, {1}})
		})
	}
	for name, change := range map[string]func(b []byte){
		"data":                   func(b []byte) { b[len(b)-1]++ },
		"TCP's checksum":         func(b []byte) { b[atTCP+16]++ },
		"IP's checksum":          func(b []byte) { b[atIP+10]++ },
		"the tunnel's checksum":  func(b []byte) { b[atUDP+6]++ },
		"the length of a packet": func(b []byte) { b[5]-- },
	} {
		t.Run("wrong "+name, func(t *testing.T) {
			wantRuns(t, [][]byte{first, spoilt(at(150, 50), change)}, [][]int{{0}, {1}})
		})
	}
}

func wantRuns(t *testing.T, packets [][]byte, want [][]int) {
	t.Helper()
	var m merger
	for range 2 { // its memory does not show
		runs := m.plan(packets)
		var got [][]int
		for _, r := range runs {
			var is []int
			for i, n := r.first, 0; n < r.count; i, n = m.next[i], n+1 {
				is = append(is, i)
			}
			got = append(got, is)
		}
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("%v, not %v", got, want)
		}
	}
}

// TestMergeIsLimited has more packets than one call takes.
func TestMergeIsLimited(t *testing.T) {
	var packets [][]byte
	for i := range most + 1 {
		packets = append(packets, packet{seq: uint32(i * 10), data: content(10), flags: flagACK}.bytes())
	}
	var m merger
	if runs := m.plan(packets); len(runs) != 2 || runs[0].count != most {
		t.Errorf("%d runs, the first of %d", len(runs), runs[0].count)
	}
}

// TestMergeAndSplit gives the kernel a run, and takes it as if the kernel passed
// it on: what comes out is what went in.
func TestMergeAndSplit(t *testing.T) {
	data := content(4321)
	var packets [][]byte
	for i := 0; i*1000 < len(data); i++ {
		k := packet{seq: uint32(i * 1000), id: uint16(i), data: data[i*1000 : min(i*1000+1000, len(data))], flags: flagACK, options: timestamps}
		if i == 4 {
			k.flags |= flagPSH
		}
		packets = append(packets, k.bytes())
	}
	var m merger
	runs := m.plan(packets)
	if len(runs) != 1 {
		t.Fatalf("%d runs", len(runs))
	}
	ahead := runs[0].header(make([]byte, mostHeaders), packets[0])
	whole := slices.Clone(ahead[tunnelHeader:])
	for _, p := range packets {
		whole = append(whole, p[runs[0].data:]...)
	}
	if whole[6] != protoDestination || string(whole[atUDP:atUDP+len(options)]) != options {
		t.Errorf("no options: %x", whole[:atUDP+len(options)])
	}
	if got := int(whole[4])<<8 + int(whole[5]); got != len(whole)-atUDP {
		t.Errorf("IPv6 says %d bytes, and there are %d", got, len(whole)-atUDP)
	}
	// Without the options it is as the kernel hands one over.
	h := virtio(ahead[:tunnelHeader])
	if h.udp() != atUDP+len(options) || h.ip() != atIP+len(options) || h.sumFrom() != atTCP+len(options) {
		t.Errorf("headers at %d, %d and %d", h.udp(), h.ip(), h.sumFrom())
	}
	h.setTunnelled(atUDP, atIP, atTCP, runs[0].data, h.size())
	whole = slices.Delete(whole, atUDP, atUDP+len(options))
	whole[6] = protoUDP
	s, ok := newSuper(h, whole)
	if !ok {
		t.Fatal("refused")
	}
	buf := make([]byte, 1500)
	for i, want := range packets {
		if got := buf[:s.next(buf)]; !bytes.Equal(got, want) {
			t.Errorf("packet %d:\n%x\n%x", i, got, want)
		}
	}
}

//go:build linux

package meshtest

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkBetweenNodes compares, in one run, the way between two tasks on two
// nodes and through the mesh with the bare wire and a plain tunnel between the hosts.
func BenchmarkBetweenNodes(b *testing.B) {
	c := newBed(b, 2)
	c.network("ing", "10.0.0.0/24", ingress)
	one, two := c.nodes[0], c.nodes[1]
	from := c.idle(one, "ing", "10.0.0.11/24", "from")
	to := c.idle(two, "ing", "10.0.0.12/24", "to")
	c.service("s", "ing", "10.0.0.100", 8080, "to")
	c.network("closed", "10.5.0.0/24", encrypted)
	secretFrom := c.idle(one, "closed", "10.5.0.11/24", "secret-from")
	secretTo := c.idle(two, "closed", "10.5.0.12/24", "secret-to")
	c.sync()
	// A tunnel as plain as can be, between the hosts.
	for i, n := range c.nodes {
		n.sh(fmt.Sprintf("ip link add bare type vxlan id 9 dstport 8472 local %s remote %s; ip addr add 172.30.0.%d/24 dev bare; ip link set bare up",
			n.addr, c.nodes[1-i].addr, i+1))
	}
	for _, ln := range []net.Listener{to.Listen(":80"), secretTo.Listen(":80"), two.ns.Listen(":7000")} {
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
			}
		}()
	}
	for _, way := range []struct {
		name string
		from place
		at   string
		task *task // that is there, if it is none of many
	}{
		{"wire", one.ns, two.at(7000), nil},
		{"plain tunnel", one.ns, "172.30.0.2:7000", nil},
		{"task to task", from, "10.0.0.12:80", to},
		{"task to task, encrypted", secretFrom, "10.5.0.12:80", secretTo},
		{"VIP", from, "10.0.0.100:80", nil},
		{"mesh by its node", c.client, two.at(8080), nil},
		{"mesh by the other", c.client, one.at(8080), nil},
	} {
		b.Run(way.name+"/connections", func(b *testing.B) {
			for b.Loop() {
				conn, err := dial(way.from, "tcp", way.at, patient)
				if err != nil {
					b.Fatal(err)
				}
				_ = conn.Close()
			}
		})
		b.Run(way.name+"/bytes", func(b *testing.B) {
			conn, err := dial(way.from, "tcp", way.at, patient)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			piece := make([]byte, 1<<20)
			b.SetBytes(2 * int64(len(piece)))
			before := one.serving(b)
			for b.Loop() {
				go func() { _, _ = conn.Write(piece) }()
				if _, err := io.CopyN(io.Discard, conn, int64(len(piece))); err != nil {
					b.Fatal(err)
				}
			}
			if way.task == secretTo {
				one.reportServing(b, before, 2*len(piece)*b.N)
			}
		})
		if way.task == nil {
			continue
		}
		b.Run(way.name+"/bytes one way", func(b *testing.B) {
			ln := way.task.Listen(":81")
			defer func() { _ = ln.Close() }()
			conn, err := dial(way.from, "tcp", strings.TrimSuffix(way.at, "80")+"81", patient)
			if err != nil {
				b.Fatal(err)
			}
			there, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _, _ = conn.Close(), there.Close() }()
			_ = there.SetDeadline(time.Now().Add(time.Minute))
			const piece = 1 << 20
			go func() {
				data := make([]byte, piece)
				for {
					if _, err := conn.Write(data); err != nil {
						return
					}
				}
			}()
			b.SetBytes(piece)
			before := one.serving(b)
			for b.Loop() {
				if _, err := io.CopyN(io.Discard, there, piece); err != nil {
					b.Fatal(err)
				}
			}
			if way.task == secretTo {
				one.reportServing(b, before, piece*b.N)
			}
		})
	}
}

// reportServing says what one end of encrypted networks costs besides what the
// kernel does, where a process serves it.
func (n *node) reportServing(b *testing.B, before time.Duration, bytes int) {
	b.Helper()
	if spent := n.serving(b) - before; spent > 0 {
		b.ReportMetric(float64(spent.Milliseconds())/(float64(bytes)/1e6), "ms-of-a-core/MB")
	}
}

// serving is how long the processor has worked for what serves the node's
// encrypted networks.
func (n *node) serving(b *testing.B) (spent time.Duration) {
	b.Helper()
	for pid := range strings.FieldsSeq(n.sh(serving)) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, ticks := range fields[11:13] { // its own, and the kernel's for it
			n, err := strconv.Atoi(ticks)
			if err != nil {
				b.Fatal(err)
			}
			spent += time.Duration(n) * 10 * time.Millisecond // the kernel's unit for programs
		}
	}
	return spent
}

package dns

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ttl of our own answers, in seconds: tasks come and go.
const ttl = 1

// answer gives the reply to a question about what is ours; nil if it is not.
func (z *Zone) answer(a Asker, query *dns.Msg) *dns.Msg {
	q := query.Question[0]
	if q.Qclass != dns.ClassINET {
		return nil
	}
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative, reply.RecursionAvailable = true, true
	head := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	}
	if addr, ok := reversed(q.Name); ok {
		name, ours := z.Reverse(a, addr)
		switch {
		case name != "":
			if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
				reply.Answer = []dns.RR{&dns.PTR{Hdr: head(dns.TypePTR), Ptr: dns.Fqdn(name)}}
			}
		case ours:
			reply.Rcode = dns.RcodeNameError
		default:
			return nil
		}
		return reply
	}
	addrs, known := z.Lookup(a, q.Name)
	if !known {
		return nil
	}
	// A name that is ours has no addresses of the other kind, and it says so:
	// clients that ask for both wait for both answers.
	for _, addr := range addrs {
		switch {
		case addr.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			reply.Answer = append(reply.Answer, &dns.A{Hdr: head(dns.TypeA), A: addr.AsSlice()})
		case addr.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: addr.AsSlice()})
		}
	}
	// Many clients use the first one alone.
	rand.Shuffle(len(reply.Answer), func(i, j int) {
		reply.Answer[i], reply.Answer[j] = reply.Answer[j], reply.Answer[i]
	})
	return reply
}

// Zones that names for addresses are below.
const (
	reverse4 = ".in-addr.arpa."
	reverse6 = ".ip6.arpa."
)

// reversed reads the name that stands for an address.
func reversed(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if s, ok := strings.CutSuffix(name, reverse4); ok {
		p := strings.Split(s, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		return a, err == nil
	}
	s, ok := strings.CutSuffix(name, reverse6)
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(s[i])
		if n := 62 - i; n%8 == 6 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}

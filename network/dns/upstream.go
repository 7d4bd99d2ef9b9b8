package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// upstreamTime bounds a question to the host's servers. Engines give up on
	// us after four seconds, and do not answer then.
	upstreamTime = 3500 * time.Millisecond
	// tryTime bounds one try while there are others left.
	tryTime = 1500 * time.Millisecond
	// rereadEvery is how often resolv.conf is looked at, when somebody asks.
	rereadEvery = time.Second
)

// upstream are the host's own name servers.
type upstream struct {
	file string
	self string // our address: a host that asks us would be asked by us again

	mu      sync.Mutex
	looked  time.Time
	stamp   time.Time // of the file that was read
	size    int64
	servers []string // host:port
}

var errNoServers = errors.New("the host has no name servers in resolv.conf")

// current gives the servers that the file names now.
func (u *upstream) current() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if now.Sub(u.looked) < rereadEvery {
		return u.servers
	}
	u.looked = now
	st, err := os.Stat(u.file)
	if err == nil && st.ModTime().Equal(u.stamp) && st.Size() == u.size {
		return u.servers
	}
	var conf *dns.ClientConfig
	if err == nil {
		conf, err = dns.ClientConfigFromFile(u.file)
	}
	if err != nil {
		return u.servers // it is being replaced: those from before, for a moment
	}
	u.stamp, u.size, u.servers = st.ModTime(), st.Size(), nil
	for _, s := range conf.Servers {
		if s != u.self {
			u.servers = append(u.servers, net.JoinHostPort(s, conf.Port))
		}
	}
	return u.servers
}

// ask puts a question to the servers in turn, twice, until one has an answer. A
// refusal and a failure are answers only when there are no better ones.
func (u *upstream) ask(ctx context.Context, network string, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	servers := u.current()
	if len(servers) == 0 {
		return nil, errNoServers
	}
	// An ID and a port of our own: the asker's must not tell others what to forge.
	q := query.Copy()
	var worst *dns.Msg
	var err error
	for _, s := range slices.Concat(servers, servers) {
		q.Id = dns.Id()
		reply, e := exchange(ctx, network, s, q)
		switch {
		case e != nil:
			err = e
		case reply.Rcode == dns.RcodeServerFailure || reply.Rcode == dns.RcodeRefused:
			worst = reply
		default:
			return reply, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	if worst != nil {
		return worst, nil
	}
	return nil, err
}

func exchange(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	c := dns.Client{Net: network, UDPSize: dns.MinMsgSize}
	if opt := q.IsEdns0(); opt != nil {
		c.UDPSize = max(opt.UDPSize(), dns.MinMsgSize)
	}
	reply, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil {
		return nil, err
	}
	if len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, q.Question[0].Name) || reply.Question[0].Qtype != q.Question[0].Qtype {
		return nil, errors.New("name server " + server + " answers another question")
	}
	return reply, nil
}

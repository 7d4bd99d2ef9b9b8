package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Transport is raft's on one host, for one life of it.
type Transport struct {
	net  *Network
	host string
	rpcs chan raft.RPC
	dead context.Context // ends with the host's life
	kill context.CancelFunc

	mu        sync.Mutex
	heartbeat func(raft.RPC)
	calls     sync.WaitGroup
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Transport plugs a host in, and whoever had its name before out.
func (n *Network) Transport(host string) *Transport {
	t := &Transport{net: n, host: host, rpcs: make(chan raft.RPC, 16)}
	t.dead, t.kill = context.WithCancel(context.Background())
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.peers[host]; old != nil {
		old.kill()
	}
	n.peers[host] = t
	return t
}

// Close unplugs the host. Messages under way to and from it are lost.
func (t *Transport) Close() error {
	t.kill()
	return nil
}

// Wait waits for what is under way to be gone.
func (t *Transport) Wait() { t.calls.Wait() }

func (t *Transport) Consumer() <-chan raft.RPC                                { return t.rpcs }
func (t *Transport) LocalAddr() raft.ServerAddress                            { return raft.ServerAddress(t.host) }
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress                   { return raft.ServerAddress(b) }

// SetHeartbeatHandler has heartbeats bypass the queue, as over the real port.
func (t *Transport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heartbeat = f
}

func (t *Transport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.net.led(req.Term, string(req.Addr))
	return exchange(t, string(to), req, nil, resp)
}

func (t *Transport) RequestVote(_ raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return exchange(t, string(to), req, nil, resp)
}

func (t *Transport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return exchange(t, string(to), req, nil, resp)
}

func (t *Transport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return exchange(t, string(to), req, nil, resp)
}

func (t *Transport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	all, err := io.ReadAll(data) // the caller takes it away when it has waited long enough
	if err != nil {
		return err
	}
	return exchange(t, string(to), req, all, resp)
}

// led notes who speaks as the leader of a term: there must be one.
func (n *Network) led(term uint64, who string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if other, ok := n.terms[term]; ok && other != who {
		n.wrong = append(n.wrong, fmt.Sprintf("%s and %s both led in term %d", other, who, term))
	}
	n.terms[term] = who
}

// exchange sends a request and waits for the answer. A sender that gives up
// does not call back what it has sent, unless it is a snapshot, which has a
// stream of its own.
func exchange[T any](t *Transport, to string, req any, data []byte, resp *T) error {
	type answer struct {
		resp *T
		err  error
	}
	answers := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.dead, patience)
	way := ctx
	stop := func() {}
	if data == nil {
		way, stop = context.WithTimeout(t.dead, 2*patience)
	}
	t.net.mu.Lock()
	peer := t.net.peers[to]
	t.net.mu.Unlock()
	if peer == nil {
		cancel()
		stop()
		return fmt.Errorf("connect to %s: %w", to, ErrReset)
	}
	send := func(way context.Context) answer {
		if err := t.net.Carry(way, t.host, to); err != nil {
			return answer{err: err}
		}
		got, err := peer.deliver(way, req, data)
		if err == nil {
			err = t.net.Carry(way, to, t.host)
		}
		if err != nil {
			return answer{err: err}
		}
		if got.Error != nil {
			return answer{err: got.Error}
		}
		return answer{resp: got.Response.(*T)}
	}
	t.calls.Go(func() {
		defer stop()
		answers <- send(way)
	})
	if late, yes := t.net.again(link{t.host, to}); yes && data == nil {
		t.calls.Go(func() {
			way, stop := context.WithTimeout(t.dead, patience)
			defer stop()
			if sleep(way, late) == nil {
				send(way)
			}
		})
	}
	defer cancel()
	select {
	case a := <-answers:
		if a.err != nil {
			return fmt.Errorf("call %s: %w", to, a.err)
		}
		*resp = *a.resp
		return nil
	case <-ctx.Done():
		return fmt.Errorf("call %s: %w", to, ctx.Err())
	}
}

// deliver hands a request to raft on this host and waits for its answer.
func (t *Transport) deliver(ctx context.Context, req any, data []byte) (raft.RPCResponse, error) {
	if t.dead.Err() != nil {
		return raft.RPCResponse{}, ErrReset
	}
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: req, RespChan: answers}
	if data != nil {
		rpc.Reader = bytes.NewReader(data)
	}
	t.mu.Lock()
	heartbeat := t.heartbeat
	t.mu.Unlock()
	if a, ok := req.(*raft.AppendEntriesRequest); ok && heartbeat != nil && isHeartbeat(a) {
		heartbeat(rpc)
	} else {
		select {
		case t.rpcs <- rpc:
		case <-t.dead.Done():
			return raft.RPCResponse{}, ErrReset
		case <-ctx.Done():
			return raft.RPCResponse{}, ctx.Err()
		}
	}
	select {
	case r := <-answers:
		return r, nil
	case <-t.dead.Done():
		return raft.RPCResponse{}, ErrReset
	case <-ctx.Done():
		return raft.RPCResponse{}, ctx.Err()
	}
}

// isHeartbeat has raft's own rule for what bears nothing.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.Term != 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// AppendEntriesPipeline lets raft go on sending while answers are outstanding.
func (t *Transport) AppendEntriesPipeline(_ raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipeline{t: t, to: string(to), sent: make(chan *inFlight, 2), done: make(chan raft.AppendFuture, 2)}
	p.ctx, p.cancel = context.WithCancel(t.dead)
	t.calls.Go(p.run)
	return p, nil
}

type pipeline struct {
	t      *Transport
	to     string
	sent   chan *inFlight
	done   chan raft.AppendFuture
	ctx    context.Context
	cancel context.CancelFunc
}

type inFlight struct {
	start time.Time
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	ended chan struct{}
	err   error
}

func (f *inFlight) Error() error                          { <-f.ended; return f.err }
func (f *inFlight) Start() time.Time                      { return f.start }
func (f *inFlight) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *inFlight) Response() *raft.AppendEntriesResponse { return f.resp }

func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.t.net.led(req.Term, string(req.Addr))
	f := &inFlight{start: time.Now(), req: req, resp: resp, ended: make(chan struct{})}
	select {
	case p.sent <- f:
		return f, nil
	case <-p.ctx.Done():
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

func (p *pipeline) Close() error {
	p.cancel()
	return nil
}

func (p *pipeline) run() {
	for {
		select {
		case f := <-p.sent:
			f.err = exchange(p.t, p.to, f.req, nil, f.resp)
			close(f.ended)
			select {
			case p.done <- f:
			case <-p.ctx.Done():
				return
			}
		case <-p.ctx.Done():
			return
		}
	}
}

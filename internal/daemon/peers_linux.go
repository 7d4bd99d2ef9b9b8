package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/session"
)

// What managers answer to other nodes, besides sessions.
const (
	pathJoin     = "/shoal/join"
	pathRenew    = "/shoal/renew"
	pathExpired  = "/shoal/renew-expired"
	pathLeave    = "/shoal/leave"
	pathAttach   = "/shoal/attach"
	pathDetach   = "/shoal/detach"
	pathName     = "/shoal/name"
	pathProgress = "/shoal/progress"
	pathLock     = "/shoal/lock"
	pathAPI      = "/shoal/api"
	pathEcho     = "/shoal/echo" // workers answer it, too
)

// maxPeerBody bounds what a peer may send to one of these, in bytes. A node's
// description with its plugins and labels is the largest.
const maxPeerBody = 256 << 10

// maxPeerHeader bounds the head of a request, in bytes. What is passed on of a
// client's is the largest, with the password of a registry in it.
const maxPeerHeader = 64 << 10

// serve answers other nodes.
func (m *manager) serve(ctx context.Context) error {
	return serveEndpoints(ctx, m.cluster.Port, m, m.endpoints(), m.log)
}

// identify says which node a request comes from.
func identify(r *http.Request) (string, error) {
	id, err := ca.PeerIdentity(r.TLS)
	return id.NodeID, err
}

// answer turns a function into a handler.
func answer(f func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxPeerBody)
		out, err := f(r)
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the peer notices what it did not get
	})
}

func writeError(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), errhttp.ToHTTP(err))
}

func (m *manager) answerJoin(r *http.Request) (any, error) {
	var a control.Applicant
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		return nil, invalid("unreadable application: %v", err)
	}
	if host, _, err := net.SplitHostPort(a.Addr); err != nil || net.ParseIP(host) == nil {
		return nil, invalid("address %q of the new node is not host:port", a.Addr)
	}
	adm, err := m.control.Admit(r.Context(), a)
	if err == nil {
		m.log.Info("a node joined", zap.String("node", adm.NodeID), zap.String("role", string(adm.Role)), zap.String("addr", a.Addr))
	}
	return adm, err
}

func (m *manager) answerRenew(r *http.Request) (any, error) {
	nodeID, err := identify(r)
	if err != nil {
		return nil, err
	}
	request, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return m.control.Renew(r.Context(), nodeID, ca.KeyID(r.TLS.PeerCertificates[0]), request)
}

// answerExpired is open to strangers: an expired certificate does not get its
// owner through the door. What is asked of them is in control.RenewExpired.
func (m *manager) answerExpired(r *http.Request) (any, error) {
	var p ca.Proof
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return nil, invalid("unreadable proof: %v", err)
	}
	adm, err := m.control.RenewExpired(r.Context(), r.TLS, &p)
	if err == nil {
		m.log.Info("a node whose certificate had expired has proven its key and is back", zap.String("node", adm.NodeID))
	}
	return adm, err
}

func (m *manager) answerLeave(r *http.Request) (any, error) {
	nodeID, err := identify(r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, m.control.LeaveNode(r.Context(), nodeID)
}

func (m *manager) answerProgress(*http.Request) (any, error) {
	return m.cluster.Raft.Stats().AppliedIndex, nil
}

// progress asks a new manager how much of the log it has applied.
func (m *manager) progress(ctx context.Context, n *api.Node) (applied uint64, err error) {
	return applied, m.askManager(ctx, n, pathProgress, &applied)
}

// askManager asks another manager for something of its own.
func (m *manager) askManager(ctx context.Context, n *api.Node, path string, out any) error {
	t := transport(m.cluster.Port, n.Addr, ca.Peer{NodeID: n.ID})
	defer t.CloseIdleConnections()
	return ask(ctx, t, http.MethodGet, "https://"+n.Addr+path, nil, out)
}

// transport speaks HTTP/2 to one node, which must be the expected one.
func transport(port *cluster.Port, addr string, expect ca.Peer) *cluster.Transport {
	return cluster.NewTransport(func(ctx context.Context) (*tls.Conn, error) {
		return port.Dial(ctx, addr, cluster.ProtocolHTTP, expect)
	})
}

func (m *member) transport(nodeID, addr string) *cluster.Transport {
	return transport(m.cluster.Port, addr, ca.Peer{NodeID: nodeID, Role: ca.RoleManager})
}

// forwarding keeps the connection to the leader that requests are passed on
// over, for as long as it leads.
type forwarding struct {
	port *cluster.Port

	mu     sync.Mutex
	nodeID string
	addr   string
	kept   *cluster.Transport
}

func (f *forwarding) to(nodeID, addr string) *cluster.Transport {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil || f.nodeID != nodeID || f.addr != addr {
		f.close()
		f.nodeID, f.addr = nodeID, addr
		f.kept = transport(f.port, addr, ca.Peer{NodeID: nodeID, Role: ca.RoleManager})
	}
	return f.kept
}

// close lets requests under way end.
func (f *forwarding) close() {
	if f.kept != nil {
		f.kept.CloseIdleConnections()
	}
}

// idleTimeout is how long a connection of another node is kept that it does not
// use.
const idleTimeout = 2 * time.Minute

// notLeader says where to ask instead.
type notLeader struct{ nodeID, addr string }

func (e *notLeader) Error() string { return "node " + e.nodeID + " leads, at " + e.addr }

// ask makes one request to another node and decodes its answer into out.
func ask(ctx context.Context, t http.RoundTripper, method, url string, in, out any) error {
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case []byte:
		body = strings.NewReader(string(v))
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = strings.NewReader(string(raw))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxPeerBody))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		if id, addr, ok := strings.Cut(resp.Header.Get(session.LeaderHeader), " "); ok {
			return &notLeader{id, addr}
		}
		return errors.Join(errhttp.ToNative(resp.StatusCode), errors.New(strings.TrimSpace(string(raw))))
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("unreadable answer of %s: %w", strconv.Quote(url), err)
	}
	return nil
}

// askLeader asks the managers one after the other until the one that leads has
// answered.
func (m *member) askLeader(ctx context.Context, path string, in, out any) error {
	return m.eachLeader(ctx, func(p swarm.Peer) error {
		t := m.transport(p.NodeID, p.Addr)
		defer t.CloseIdleConnections()
		return ask(ctx, t, http.MethodPost, "https://"+p.Addr+path, in, out)
	})
}

// refused tells whether an error is what a leader thinks of a request, and not
// that it could not be asked.
func refused(err error) bool {
	return errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) ||
		errdefs.IsConflict(err) || errdefs.IsFailedPrecondition(err)
}

// eachLeader calls the managers one after the other until one has answered,
// going where they say that the leader is. Where all fail it says why: what a
// leader refused rather than that another manager is not there.
func (m *member) eachLeader(ctx context.Context, call func(p swarm.Peer) error) error {
	err := errors.New("no manager is known")
	var answer error // the last that says more than where to ask
	for range 2*len(m.book.list()) + 1 {
		p, ok := m.nextManager()
		if !ok {
			return cmp.Or(answer, err)
		}
		if p.NodeID == m.id.NodeID && m.manager == nil {
			continue
		}
		err = call(p)
		var moved *notLeader
		if errors.As(err, &moved) {
			m.book.moved(moved.nodeID, moved.addr)
			continue
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if answer == nil || refused(err) || !refused(answer) {
			answer = err
		}
	}
	return fmt.Errorf("ask the managers: %w", cmp.Or(answer, err))
}

package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/httpapi"
	"shoal/internal/session"
)

// who says which peers may call an endpoint. The zero value lets nobody in.
type who int

const (
	// applicants are anybody at all: the endpoint asks for a proof of its own, a
	// join token or the key of an expired certificate.
	applicants who = iota + 1
	nodes          // of this cluster, by certificate and still members
	managers       // by certificate and by what the managers have agreed on since
)

// where says on which of the nodes that have it an endpoint works. The zero value
// is none.
type where int

const (
	leader  where = iota + 1 // the others name it
	anyNode                  // the handler itself knows if it needs the leader
)

// endpoint is one thing that a node answers to other nodes. Its literals name no
// fields, so that one without a rule does not compile.
type endpoint struct {
	method  string // any if empty
	pattern string // of http.ServeMux
	who     who
	where   where
	serve   http.Handler
}

// endpoints lists all that a manager's port answers over HTTP.
func (m *manager) endpoints() []endpoint {
	api := http.StripPrefix(pathAPI, httpapi.Forwarded(m.api))
	return []endpoint{
		{http.MethodPost, session.PathSession, nodes, leader, m.server},
		{http.MethodPost, session.PathCall + "{id}", nodes, leader, m.server},
		{http.MethodPost, pathJoin, applicants, leader, answer(m.answerJoin)},
		{http.MethodPost, pathRenew, nodes, leader, answer(m.answerRenew)},
		{http.MethodPost, pathExpired, applicants, leader, answer(m.answerExpired)},
		{http.MethodPost, pathLeave, nodes, leader, answer(m.answerLeave)},
		{http.MethodPost, pathAttach, nodes, leader, answer(m.answerAttach)},
		{http.MethodPost, pathDetach, nodes, leader, answer(m.answerDetach)},
		{http.MethodPost, pathName, nodes, leader, answer(m.answerName)},
		{http.MethodGet, pathProgress, managers, anyNode, answer(m.answerProgress)},
		{http.MethodGet, pathLock, managers, anyNode, answer(m.answerLock)},
		{http.MethodPost, pathEcho, nodes, anyNode, answer(m.echo)},
		{"", pathAPI + "/", managers, anyNode, api},
	}
}

func (e *endpoint) check() error {
	if e.who < applicants || e.who > managers || e.where < leader || e.where > anyNode || e.serve == nil {
		return fmt.Errorf("endpoint %s %s: no rule says who may call it, and where", e.method, e.pattern)
	}
	return nil
}

// endpoints lists all that a worker's port answers over HTTP.
func (m *member) endpoints() []endpoint {
	return []endpoint{
		{http.MethodPost, pathEcho, nodes, anyNode, answer(m.echoes.answer)},
	}
}

// doorkeeper is a node that holds requests against rules.
type doorkeeper interface {
	// mayCall holds the peer of a request against a rule.
	mayCall(r *http.Request, rule who) error
	// isLeader tells whether this node leads. If it does not, the header of its
	// answer may name who does.
	isLeader(answer http.Header) bool
}

// peerServer serves endpoints on the port.
func peerServer(by doorkeeper, endpoints []endpoint, log *zap.Logger) (*http.Server, error) {
	mux, err := guarded(by, endpoints)
	if err != nil {
		return nil, err
	}
	return newPeerServer(mux, log), nil
}

// serveEndpoints answers other nodes on the port until ctx ends.
func serveEndpoints(ctx context.Context, port *cluster.Port, by doorkeeper, endpoints []endpoint, log *zap.Logger) error {
	srv, err := peerServer(by, endpoints, log)
	if err != nil {
		return err
	}
	return servePort(ctx, port, srv)
}

// newPeerServer bounds what a peer can cost.
func newPeerServer(h http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{
		Handler:           oneAtATime(h),
		ConnContext:       withVisit,
		ReadHeaderTimeout: headerTime,
		MaxHeaderBytes:    maxPeerHeader,
		IdleTimeout:       idleTimeout,
		ErrorLog:          zap.NewStdLog(log.Named("peers")),
	}
}

// visit is a connection, as its requests see it.
type visit struct {
	conn net.Conn
	busy atomic.Bool
}

type visitKey struct{}

func withVisit(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, visitKey{}, &visit{conn: c})
}

// oneAtATime ends the connection of a stranger that asks for two things at
// once. HTTP/2 lets a peer have hundreds of requests under way, each with a head
// and a body; the port bounds how many strangers there are, and this what each
// of them can cost.
func oneAtATime(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			v, _ := r.Context().Value(visitKey{}).(*visit)
			if v == nil || !v.busy.CompareAndSwap(false, true) {
				if v != nil {
					_ = v.conn.Close()
				}
				panic(http.ErrAbortHandler)
			}
			defer v.busy.Store(false)
		}
		h.ServeHTTP(w, r)
	})
}

// guarded puts every endpoint behind its rule.
func guarded(by doorkeeper, endpoints []endpoint) (http.Handler, error) {
	mux := http.NewServeMux()
	for _, e := range endpoints {
		if err := e.check(); err != nil {
			return nil, err
		}
		pattern := e.pattern
		if e.method != "" {
			pattern = e.method + " " + pattern
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := by.mayCall(r, e.who); err != nil {
				writeError(w, err)
				return
			}
			if e.where == leader && !by.isLeader(w.Header()) {
				writeError(w, errdefs.ErrUnavailable.WithMessage("this manager does not lead"))
				return
			}
			e.serve.ServeHTTP(w, r)
		})
	}
	return mux, nil
}

// mayCall holds the peer of a request against a rule. The certificate of its
// connection is all that says who it is; a connection may be older than what
// the managers have agreed on since, so that is looked at for every request.
func (m *manager) mayCall(r *http.Request, rule who) error {
	if rule == applicants {
		return nil
	}
	id, err := ca.PeerIdentity(r.TLS)
	if err != nil {
		return err
	}
	if err := m.admit(id, cluster.ProtocolHTTP); err != nil {
		return err
	}
	if rule == nodes {
		return nil
	}
	n, ok := m.store.View().Nodes.Get(id.NodeID)
	if id.Role != ca.RoleManager || !ok || n.Role != swarm.NodeRoleManager {
		return errdefs.ErrPermissionDenied.WithMessage("node " + id.NodeID + " is not a manager")
	}
	return nil
}

func (m *manager) isLeader(answer http.Header) bool {
	if m.leading.Load() {
		return true
	}
	if id, addr, ok := m.leader(); ok && id != m.id.NodeID {
		answer.Set(session.LeaderHeader, id+" "+addr)
	}
	return false
}

// mayCall knows members of the cluster and no more: what is for managers or for
// applicants is no business of a worker.
func (m *member) mayCall(r *http.Request, rule who) error {
	id, err := ca.PeerIdentity(r.TLS)
	if err != nil {
		return err
	}
	if rule != nodes || !m.known(id.NodeID) {
		return errdefs.ErrPermissionDenied.WithMessage("node " + id.NodeID + " is not a member of this cluster")
	}
	return nil
}

// isLeader is never so of a worker.
func (m *member) isLeader(http.Header) bool { return false }

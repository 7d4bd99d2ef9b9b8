package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"shoal/internal/control"
)

// Only the leader reads and writes the cluster's state, so that an answer is
// never older than the last one. Another manager passes a request on to it, as
// it came, over the port between nodes. There is one hop at most: a manager that
// is asked for another and does not lead either says so.
//
// While leadership passes from one manager to another nobody answers for a
// moment. The manager that a client asked waits that moment out, and asks again
// as long as it is certain that nothing was done yet.

// forwarded callers are managers that pass on what their administrators ask.
// They get at the cluster's state, and not at this machine's engine.
const forwarded caller = 2

// Forwarded lets h answer what other managers pass on. Whoever serves it has
// made sure that they are managers.
func Forwarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, forwarded)))
	})
}

// undoneHeader is on answers of a manager that could not do what it was asked
// because it does not lead, or not any more.
const undoneHeader = "Shoal-Undone"

// attempt is one try at having a request answered by the leader.
type attempt struct {
	sent   atomic.Bool // some of the request may have reached the leader
	undone bool        // nothing was done and nothing answered: another try is safe
}

type attemptKey struct{}

// undone tells whether an error says that the cluster's state was not touched
// because somebody else leads, or nobody.
func undone(err error) bool {
	var e interface{ Undone() }
	return errors.Is(err, errNoLeader) || errors.As(err, &e)
}

// Proxy passes requests on to the API of a leader at base.
func Proxy(transport http.RoundTripper, base string) http.Handler {
	target, err := url.Parse(base)
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // logs come as they are written
		Rewrite: func(r *httputil.ProxyRequest) {
			if err == nil {
				r.SetURL(target)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get(undoneHeader) != "" {
				return errNoLeader
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			a, ok := r.Context().Value(attemptKey{}).(*attempt)
			switch reads := r.Method == http.MethodGet || r.Method == http.MethodHead; {
			case ok && r.Context().Err() == nil && (reads || !a.sent.Load() || undone(err)):
				a.undone = true
				return
			case undone(err):
				writeError(w, err)
				return
			}
			writeError(w, errdefs.ErrUnavailable.WithMessage("the leader of the swarm does not answer: "+err.Error()))
		},
	}
}

// errNoLeader is in Swarm's words, which tools look for.
var errNoLeader = errdefs.ErrUnknown.WithMessage("rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online. If they are lost for good, go on without them with \"shoal swarm init --force-new-cluster\".")

const (
	// leaderWait is how long a request waits for somebody to lead: several times
	// what an election takes.
	leaderWait = 5 * time.Second
	// leaderLook is how often it looks meanwhile.
	leaderLook = 20 * time.Millisecond
)

// byLeader answers a request about the cluster's state: here, if this manager
// leads, or by the one that does. What another manager passed on is tried once,
// for that one waits already.
func (s *server) byLeader(w http.ResponseWriter, r *request, route *route) error {
	if callerOf(r.Context()) == forwarded {
		err := s.tryLeader(w, r, route)
		if undone(err) {
			w.Header().Set(undoneHeader, "true")
		}
		return err
	}
	// The body is kept for another try.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return invalid("read the request: %v", err)
	}
	if len(body) > maxBody {
		return errTooLarge{}
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.leaderWait)
	defer cancel()
	look := time.NewTicker(leaderLook)
	defer look.Stop()
	for {
		r.Body = io.NopCloser(bytes.NewReader(body))
		err := s.tryLeader(w, r, route)
		if !undone(err) {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return err
		}
		if err := s.admit(route, r); err != nil {
			return err // it is no manager any more
		}
	}
}

// tryLeader is one try; its error tells, by undone, whether another is safe.
func (s *server) tryLeader(w http.ResponseWriter, r *request, route *route) error {
	if r.control != nil {
		c, conditional, err := r.condition()
		if err != nil {
			return err
		}
		if conditional {
			r.Request = r.WithContext(control.OnlyIf(r.Context(), c))
		}
		return route.serve(w, r)
	}
	h := s.node.Forward()
	if h == nil || callerOf(r.Context()) == forwarded {
		return errNoLeader
	}
	a := &attempt{}
	ctx := context.WithValue(r.Context(), attemptKey{}, a)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { a.sent.Store(true) }})
	h.ServeHTTP(w, r.WithContext(ctx))
	if a.undone {
		return errNoLeader
	}
	return nil
}

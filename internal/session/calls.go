package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errhttp"

	"shoal/internal/api"
)

// A call goes the other way than the connection: the leader names it in the
// stream, and the node sends the output as the body of a request of its own.
// So a node needs no open port for it. Where the leader has something to say
// during the call, it is the body of its answer to that request.

// errorTrailer carries what went wrong after output had begun.
const errorTrailer = "Shoal-Error"

// verdict is the first line of a call's output: whether it began at all.
type verdict struct {
	Error  string `json:",omitempty"`
	Status int    `json:",omitempty"` // the error's kind, as an HTTP status
}

// remoteError is a node's refusal: its words, and its kind.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// calls are the ones waiting for their node.
type calls struct {
	mu   sync.Mutex
	open map[string]*pending
}

type pending struct {
	conn   *conn
	input  *io.PipeReader  // what the caller writes; nil where it only reads
	answer chan *answer    // receives once, or is closed when the session ends
	ctx    context.Context // ends with the session, or when nobody waits any more
	cancel context.CancelFunc
}

// answer is the output of a call; closing it lets the node's request end.
type answer struct {
	io.Reader
	verdict verdict
	once    sync.Once
	closed  chan struct{}
}

func (a *answer) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}

func (cs *calls) do(ctx context.Context, c *conn, method string, args json.RawMessage, input *io.PipeReader) (io.ReadCloser, error) {
	id := api.NewID()
	p := &pending{conn: c, answer: make(chan *answer, 1), input: input}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	cs.mu.Lock()
	if cs.open == nil {
		cs.open = map[string]*pending{}
	}
	cs.open[id] = p
	cs.mu.Unlock()

	a, err := p.await(ctx, down{Call: &call{ID: id, Method: method, Args: args}})
	if err != nil {
		cs.take(id)
		p.cancel() // an answer that is on its way in ends there
		return nil, err
	}
	return a, nil
}

// await names the call to the node and waits for it to begin.
func (p *pending) await(ctx context.Context, f down) (*answer, error) {
	if err := p.conn.send(ctx, f); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("node %s did not answer: %w", p.conn.nodeID, ctx.Err())
	case a := <-p.answer:
		if a == nil {
			return nil, fmt.Errorf("node %s: connection lost: %w", p.conn.nodeID, errdefs.ErrUnavailable)
		}
		if a.verdict.Error != "" {
			_ = a.Close()
			return nil, a.verdict.err()
		}
		return a, nil
	}
}

func (v verdict) err() error {
	return &remoteError{text: v.Error, kind: errhttp.ToNative(v.Status)}
}

func (cs *calls) take(id string) *pending {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p := cs.open[id]
	delete(cs.open, id)
	return p
}

// drop tells the callers that wait for a session's node that it is gone.
func (cs *calls) drop(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for id, p := range cs.open {
		if p.conn == c {
			close(p.answer)
			delete(cs.open, id)
		}
	}
}

// answer serves the node's request. It hands the body to the caller and stays
// until that is done with it.
func (cs *calls) answer(w http.ResponseWriter, r *http.Request, nodeID, id string) {
	cs.mu.Lock()
	p := cs.open[id]
	if p == nil || p.conn.nodeID != nodeID { // nobody answers for another node
		cs.mu.Unlock()
		http.Error(w, "no such call", http.StatusGone)
		return
	}
	delete(cs.open, id)
	cs.mu.Unlock()

	rc := http.NewResponseController(w)
	defer atEnd(p.ctx, func() { _ = rc.SetReadDeadline(past) })()

	line, rest, err := firstLine(r.Body)
	a := &answer{closed: make(chan struct{})}
	if err == nil {
		err = json.Unmarshal(line, &a.verdict)
	}
	if err != nil && p.ctx.Err() != nil { // the session ended meanwhile, and with it the reading
		close(p.answer)
		return
	}
	if err != nil {
		a.verdict.Error = "unreadable answer: " + err.Error()
	}
	a.Reader = &trailed{Reader: rest, request: r}
	if p.input != nil {
		defer feed(w, rc, p.input)()
	}
	p.answer <- a
	select {
	case <-a.closed:
	case <-r.Context().Done():
	case <-p.ctx.Done():
	}
	p.cancel()
}

// feed sends a caller's input as the body of the answer, each piece as it comes.
// What it returns ends that.
func feed(w io.Writer, rc *http.ResponseController, input *io.PipeReader) (end func()) {
	done := make(chan struct{})
	_ = rc.Flush() // the node waits for the head before it reads; if it is gone, the call ends anyway
	go func() {
		defer close(done)
		buf := make([]byte, 32<<10)
		for {
			n, err := input.Read(buf)
			if n > 0 {
				if _, err := w.Write(buf[:n]); err != nil || rc.Flush() != nil {
					_ = input.CloseWithError(io.ErrClosedPipe)
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return func() {
		_ = input.CloseWithError(io.ErrClosedPipe)
		_ = rc.SetWriteDeadline(past) // for a write that a node does not take
		<-done
		_ = rc.SetWriteDeadline(time.Time{})
	}
}

// maxVerdict bounds the first line of an answer.
const maxVerdict = 64 << 10

func firstLine(r io.Reader) (line []byte, rest io.Reader, err error) {
	var b [1]byte
	for len(line) < maxVerdict {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, nil, err
		}
		if b[0] == '\n' {
			return line, r, nil
		}
		line = append(line, b[0])
	}
	return nil, nil, errors.New("first line too long")
}

// trailed turns an error that the node reports at the end into a read error.
type trailed struct {
	io.Reader
	request *http.Request
}

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		if msg := t.request.Trailer.Get(errorTrailer); msg != "" {
			return n, errors.New(msg)
		}
	}
	return n, err
}

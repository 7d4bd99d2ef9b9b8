package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/sim"
)

// simLabel is where a service carries the value that clients write.
const simLabel = "value"

// simClient asks one thing after the other, of any manager.
type simClient struct {
	w    *simWorld
	n    int
	only bool // reads
	rng  *rand.Rand
	next int
	seen map[string]sim.Answer // what it read last
}

func (c *simClient) run(ctx context.Context) {
	for c.w.sleep(ctx, time.Duration(c.rng.Int64N(int64(120*time.Millisecond)))) == nil {
		h := c.w.order[c.rng.IntN(len(c.w.order))]
		name := c.w.names[c.rng.IntN(len(c.w.names))]
		what := c.rng.IntN(100)
		l := h.alive()
		if l == nil {
			continue // connection refused
		}
		switch seen, ok := c.seen[name]; {
		case what < 30, c.only && what < 80:
			c.get(ctx, l, name)
		case what < 40, c.only:
			c.list(ctx, l)
		case what < 75 && ok:
			c.write(ctx, l, sim.Call{Kind: sim.Update, Name: name, Value: c.value(), Was: seen.Value, Seen: seen.Version})
		case what < 82:
			c.write(ctx, l, sim.Call{Kind: sim.Delete, Name: name})
		default:
			c.write(ctx, l, sim.Call{Kind: sim.Create, Name: name, Value: c.value()})
		}
	}
}

func (c *simClient) value() string {
	c.next++
	return fmt.Sprintf("%d-%d", c.n, c.next)
}

// simPatience is when a client gives up on an answer.
const simPatience = 2 * time.Second

// do asks one manager. ok is false if no answer came.
func (c *simClient) do(ctx context.Context, l *simLife, method, path string, body any) (*httptest.ResponseRecorder, bool) {
	ctx, cancel := context.WithTimeout(ctx, simPatience)
	defer cancel()
	answers := make(chan *httptest.ResponseRecorder, 1)
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			c.w.t.Error(err)
		}
	}
	c.w.rest.Go(func() {
		if c.w.net.Gate(ctx, l.h.id) != nil || l.ctx.Err() != nil {
			return
		}
		r := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(raw))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		l.enter().ServeHTTP(w, r)
		if c.w.net.Gate(ctx, l.h.id) == nil {
			answers <- w
		}
	})
	select {
	case w := <-answers:
		return w, true
	case <-l.ctx.Done():
	case <-ctx.Done():
	}
	return nil, false
}

// outcome reads an answer as the API means it.
func (c *simClient) outcome(w *httptest.ResponseRecorder) sim.Outcome {
	var e struct{ Message string }
	if w.Code < 300 {
		return sim.Done
	}
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		c.w.t.Errorf("status %d without a message: %s", w.Code, w.Body)
	}
	says := func(s string) bool { return strings.Contains(e.Message, s) }
	c.w.count(fmt.Sprint(w.Code, " ", e.Message))
	switch {
	case w.Code == http.StatusNotFound && strings.HasPrefix(e.Message, "service "):
		return sim.Missing
	case w.Code == http.StatusConflict && says("already exists"):
		return sim.Exists
	case says("update out of sequence"):
		return sim.Conflict
	case says("outcome of the change is not known"), says("the leader of the swarm does not answer"):
		return sim.Unknown
	case says("this node is not the leader"), says("does not have a leader"), says("changed by another request"), says("raft is not running"):
		return sim.Refused
	}
	c.w.t.Errorf("an answer that nobody expects: %d %s", w.Code, e.Message)
	return sim.Unknown
}

func (c *simClient) get(ctx context.Context, l *simLife, name string) bool {
	end := c.w.history.Begin(c.n, l.h.id, sim.Call{Kind: sim.Get, Name: name})
	a := sim.Answer{}
	if w, ok := c.do(ctx, l, http.MethodGet, "/services/"+name, nil); ok {
		if a.Outcome = c.outcome(w); a.Outcome == sim.Done {
			var s swarm.Service
			c.decode(w, &s)
			a = simRead(s)
		}
	}
	end(a)
	c.remember(name, a)
	return a.Outcome == sim.Done || a.Outcome == sim.Missing
}

func (c *simClient) list(ctx context.Context, l *simLife) {
	var calls []sim.Call
	for _, name := range c.w.names {
		calls = append(calls, sim.Call{Kind: sim.Get, Name: name})
	}
	end := c.w.history.Begin(c.n, l.h.id, calls...)
	answers := make([]sim.Answer, len(calls))
	if w, ok := c.do(ctx, l, http.MethodGet, "/services", nil); ok {
		outcome := c.outcome(w)
		var list []swarm.Service
		if outcome == sim.Done {
			outcome = sim.Missing
			c.decode(w, &list)
		}
		for i, call := range calls {
			answers[i].Outcome = outcome
			for _, s := range list {
				if s.Spec.Name == call.Name {
					answers[i] = simRead(s)
				}
			}
		}
	}
	end(answers...)
	for i, a := range answers {
		c.remember(calls[i].Name, a)
	}
}

func simRead(s swarm.Service) sim.Answer {
	return sim.Answer{Outcome: sim.Done, Value: s.Spec.Labels[simLabel], Version: s.Version.Index}
}

func (c *simClient) decode(w *httptest.ResponseRecorder, into any) {
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		c.w.t.Errorf("decode %s: %v", w.Body, err)
	}
}

func (c *simClient) remember(name string, a sim.Answer) {
	if a.Outcome == sim.Done {
		c.seen[name] = a
	}
}

func (c *simClient) write(ctx context.Context, l *simLife, call sim.Call) {
	method, path, body := http.MethodPost, "/services/create", any(simSpec(call))
	switch call.Kind {
	case sim.Update:
		path = fmt.Sprintf("/services/%s/update?version=%d", call.Name, call.Seen)
	case sim.Delete:
		method, path, body = http.MethodDelete, "/services/"+call.Name, nil
	}
	end := c.w.history.Begin(c.n, l.h.id, call)
	a := sim.Answer{}
	if w, ok := c.do(ctx, l, method, path, body); ok {
		a.Outcome = c.outcome(w)
	}
	end(a)
}

func simSpec(c sim.Call) swarm.ServiceSpec {
	return swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: c.Name, Labels: map[string]string{simLabel: c.Value}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "sim"}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: new(uint64(1))}},
	}
}

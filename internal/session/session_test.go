package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"shoal/internal/api"
	"shoal/internal/store"
)

// drawState makes some state out of a small world, so that two of them share
// much.
func drawState(t *rapid.T) *api.NodeState {
	pick := func(label string) bool { return rapid.Bool().Draw(t, label) }
	s := &api.NodeState{
		Index: rapid.Uint64().Draw(t, "index"), ClusterID: "c", DataPathPort: 4789,
		Node:  &api.Node{Meta: api.Meta{ID: "self", Version: rapid.Uint64Range(1, 3).Draw(t, "node")}},
		Tasks: map[string]*api.Assignment{}, Networks: map[string]*api.Network{},
		Endpoints: map[string]*api.Endpoint{}, Remotes: map[string]*api.Remote{}, Peers: map[string]api.Peer{},
		Files: map[string]*api.File{}, Pieces: map[string]*api.Piece{},
	}
	for i := range 4 {
		id := fmt.Sprint(i)
		if pick("network") {
			s.Networks[id] = &api.Network{Meta: api.Meta{ID: id, Version: 1}}
		}
		if pick("peer") {
			s.Peers[id] = api.Peer{NodeID: id, DataPath: netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "addr")}), WireGuard: api.WireGuard{Key: rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(t, "key")}}
		}
		if pick("remote") {
			s.Remotes[id] = &api.Remote{TaskID: id, NodeID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "home")}
		}
		if pick("task") {
			rev := &api.Revision{Meta: api.Meta{ID: "r" + fmt.Sprint(i%2), Version: 1}}
			s.Tasks[id] = &api.Assignment{Revision: rev, Task: &api.Task{
				Meta: api.Meta{ID: id}, Revision: rev.ID,
				DesiredState: rapid.SampledFrom([]swarm.TaskState{"running", "shutdown"}).Draw(t, "desired"),
			}}
		}
		if pick("endpoint") {
			e := &api.Endpoint{ServiceID: id, ServiceName: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")}
			for b := range 3 {
				if pick("backend") {
					e.Backends = append(e.Backends, api.Backend{TaskID: fmt.Sprint(b), Slot: rapid.IntRange(1, 2).Draw(t, "slot")})
				}
			}
			s.Endpoints[id] = e
		}
	}
	for i := range 3 {
		id := fmt.Sprint("f", i)
		if pick("file") {
			s.Files[id] = &api.File{Meta: api.Meta{ID: id, Version: rapid.Uint64Range(1, 2).Draw(t, "labels")}, Of: api.KindSecret}
		}
		if pick("piece") {
			s.Pieces[id] = &api.Piece{Meta: api.Meta{ID: id}, FileID: id, Data: []byte("x")}
		}
	}
	s.Trust = &api.Trust{Roots: []byte(rapid.SampledFrom([]string{"old", "old+new", "new"}).Draw(t, "roots")), Issuer: []byte("old"), Validity: time.Hour}
	return s
}

// TestDiffsAddUp sends one random state after another as differences, through
// JSON, and wants the same state on the other side.
func TestDiffsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAssembly(welcome{ClusterID: "c", DataPathPort: 4789})
		var sent *api.NodeState
		for range rapid.IntRange(1, 5).Draw(t, "states") {
			next := drawState(t)
			for _, f := range diff(sent, next) {
				raw, err := json.Marshal(f)
				if err != nil {
					t.Fatal(err)
				}
				var got down
				if err := json.Unmarshal(raw, &got); err != nil {
					t.Fatal(err)
				}
				a.add(&got)
			}
			sent = next
			got, err := a.state(next.Index)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(next, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
				t.Fatalf("(-sent +received)\n%s", d)
			}
		}
	})
}

// rig is a leader and one node, connected by real HTTP/2.
type rig struct {
	store  *store.Store
	server *Server
	client *Client
	states chan *api.NodeState
	web    *httptest.Server
}

const heartbeat = 100 * time.Millisecond

func newRig(t *testing.T, methods map[string]Method) *rig {
	t.Helper()
	r := &rig{store: store.New(), states: make(chan *api.NodeState, 1000)}
	c := &api.Cluster{Meta: api.Meta{ID: "cluster"}, DataPathPort: 4790}
	c.Spec.Dispatcher.HeartbeatPeriod = heartbeat
	r.update(t, c, &api.Node{Meta: api.Meta{ID: "n1"}, Status: swarm.NodeStatus{State: swarm.NodeStateUnknown}},
		&api.Revision{Meta: api.Meta{ID: "r1"}, ServiceID: "s1"}, &api.Service{Meta: api.Meta{ID: "s1"}}, &api.Network{Meta: api.Meta{ID: "net"}})
	log := zaptest.NewLogger(t)
	r.server = NewServer(ServerConfig{
		Store: r.store, Log: log, Leader: func() (string, string, bool) { return "", "", false },
		Gone: func(string) bool { return false },
		Identify: func(req *http.Request) (string, error) {
			if id := req.Header.Get("Test-Node"); id != "" {
				return id, nil
			}
			return "", errors.New("no certificate")
		},
	})
	r.web = httptest.NewUnstartedServer(r.server)
	r.web.EnableHTTP2 = true
	r.web.StartTLS()
	t.Cleanup(r.web.Close)
	r.client = NewClient(ClientConfig{
		Leader: func(context.Context) (http.RoundTripper, string, error) {
			return asNode{"n1", r.web.Client().Transport}, r.web.URL, nil
		},
		Moved:   func(string, string) {},
		Apply:   func(_ context.Context, s *api.NodeState) error { r.states <- s; return nil },
		Methods: methods, Log: log,
	})
	return r
}

type asNode struct {
	id string
	http.RoundTripper
}

func (a asNode) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Test-Node", a.id)
	return a.RoundTripper.RoundTrip(r)
}

func (r *rig) update(t *testing.T, objects ...api.Object) {
	t.Helper()
	err := r.store.Update(t.Context(), func(tx *store.Tx) error {
		var errs []error
		for _, o := range objects {
			errs = append(errs, tx.Put(o))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// background runs something until the returned function is called, or the test
// ends.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// eventually waits for a condition over the store.
func (r *rig) eventually(t *testing.T, what string, ok func(*store.View) bool) {
	t.Helper()
	f := r.store.Watch(api.KindNode, api.KindTask)
	defer f.Close()
	deadline := time.After(30 * time.Second)
	for !ok(r.store.View()) {
		select {
		case <-f.Ready():
			f.Take()
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) state(t *testing.T, what string, ok func(*api.NodeState) bool) *api.NodeState {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case s := <-r.states:
			if ok(s) {
				return s
			}
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func nodeIs(state swarm.NodeState) func(*store.View) bool {
	return func(v *store.View) bool {
		n, _ := v.Nodes.Get("n1")
		return n.Status.State == state
	}
}

func TestSession(t *testing.T) {
	r := newRig(t, nil)
	background(t, r.server.Run)
	r.client.Hello(Hello{Addr: "192.0.2.1", Description: swarm.NodeDescription{Hostname: "host"}, WireGuard: api.WireGuard{Key: "k1"}})
	stopClient := background(t, r.client.Run)
	r.eventually(t, "node ready", nodeIs(swarm.NodeStateReady))
	if n, _ := r.store.View().Nodes.Get("n1"); n.WireGuard.Key != "k1" || n.WireGuardSince.IsZero() {
		t.Errorf("of the node's key is known: %+v, since %s", n.WireGuard, n.WireGuardSince)
	}

	task := &api.Task{Meta: api.Meta{ID: "t1"}, ServiceID: "s1", Revision: "r1", NodeID: "n1", Slot: 1, DesiredState: swarm.TaskStateRunning}
	task.Status.State = swarm.TaskStateAssigned
	task.Networks = []api.Attachment{{NetworkID: "net", Addr: netip.MustParsePrefix("10.0.0.5/24")}}
	r.update(t, task)
	s := r.state(t, "task arrives", func(s *api.NodeState) bool { return s.Tasks["t1"] != nil })
	if s.ClusterID != "cluster" || s.DataPathPort != 4790 {
		t.Errorf("of the cluster the node knows %q and port %d", s.ClusterID, s.DataPathPort)
	}
	if s.Tasks["t1"].Revision.ID != "r1" {
		t.Fatalf("task came with revision %+v", s.Tasks["t1"].Revision)
	}

	report := func(state swarm.TaskState) {
		r.client.Report([]api.TaskReport{{TaskID: "t1", Status: swarm.TaskStatus{State: state, Timestamp: time.Now(), Err: "for people"}}})
	}
	taskIs := func(state swarm.TaskState) func(*store.View) bool {
		return func(v *store.View) bool { t, _ := v.Tasks.Get("t1"); return t.Status.State == state }
	}
	report(swarm.TaskStateRunning)
	r.eventually(t, "task running", taskIs(swarm.TaskStateRunning))
	r.state(t, "task serves", func(s *api.NodeState) bool {
		return s.Endpoints["s1"] != nil && len(s.Endpoints["s1"].Backends) == 1
	})
	r.client.Report([]api.TaskReport{{TaskID: "t1", Status: swarm.TaskStatus{State: swarm.TaskStateRunning, Err: "for people"}, Unhealthy: true}})
	r.state(t, "unhealthy task serves no more", func(s *api.NodeState) bool {
		return s.Endpoints["s1"] == nil || len(s.Endpoints["s1"].Backends) == 0
	})
	report(swarm.TaskStateStarting) // late news
	report(swarm.TaskStateFailed)
	r.eventually(t, "task failed", taskIs(swarm.TaskStateFailed))
	if task, _ := r.store.View().Tasks.Get("t1"); serves(task) {
		t.Error("a failed task serves")
	}

	stopClient()
	r.eventually(t, "node down", nodeIs(swarm.NodeStateDown))
	background(t, r.client.Run)
	r.client.Hello(Hello{Addr: "192.0.2.2", Description: swarm.NodeDescription{Hostname: "host"}})
	r.eventually(t, "node back", nodeIs(swarm.NodeStateReady))
}

// TestEngineSilent: the managers learn that an engine does not answer, and again
// that it does, once each.
func TestEngineSilent(t *testing.T) {
	r := newRig(t, nil)
	background(t, r.server.Run)
	h := Hello{Addr: "192.0.2.1", Description: swarm.NodeDescription{Hostname: "host"}}
	r.client.Hello(h)
	background(t, r.client.Run)
	node := func() *api.Node { n, _ := r.store.View().Nodes.Get("n1"); return n }
	for _, step := range []struct {
		silent, gone string
		state        swarm.NodeState
	}{
		{"", "", swarm.NodeStateReady},
		{"does not answer", "", swarm.NodeStateReady},
		{"", "is gone", swarm.NodeStateDown},
		{"comes and goes", "", swarm.NodeStateReady},
		{"", "", swarm.NodeStateReady},
	} {
		h.EngineSilent, h.EngineError = step.silent, step.gone
		why := step.silent + step.gone
		r.client.Hello(h)
		r.eventually(t, "node "+why, func(*store.View) bool {
			n := node()
			return n.Status.State == step.state && n.Status.Message == why && n.NoEngine == (why != "")
		})
		version := node().Version
		r.client.Hello(h)
		r.client.Report([]api.TaskReport{{TaskID: "none"}})
		if now := node().Version; now != version {
			t.Errorf("to say %q twice was written twice", why)
		}
	}
}

// TestNewLeader ends the leader's term and begins another: the node comes back
// by itself and repeats what it knows.
func TestNewLeader(t *testing.T) {
	r := newRig(t, nil)
	stop := background(t, r.server.Run)
	r.client.Hello(Hello{Addr: "192.0.2.1"})
	background(t, r.client.Run)
	r.state(t, "first state", func(*api.NodeState) bool { return true })
	stop()
	task := &api.Task{Meta: api.Meta{ID: "t1"}, ServiceID: "s1", Revision: "r1", NodeID: "n1", DesiredState: swarm.TaskStateRunning}
	r.update(t, task)
	r.client.Report([]api.TaskReport{{TaskID: "t1", Status: swarm.TaskStatus{State: swarm.TaskStateRunning}}})
	background(t, r.server.Run)
	r.eventually(t, "report of the time between", func(v *store.View) bool {
		t, _ := v.Tasks.Get("t1")
		return t.Status.State == swarm.TaskStateRunning
	})
}

func TestReportsOfOthersTasksAreIgnored(t *testing.T) {
	r := newRig(t, nil)
	background(t, r.server.Run)
	mine := &api.Task{Meta: api.Meta{ID: "mine"}, ServiceID: "s1", Revision: "r1", NodeID: "n1"}
	other := &api.Task{Meta: api.Meta{ID: "other"}, ServiceID: "s1", Revision: "r1", NodeID: "n2"}
	r.update(t, mine, other)
	w := newStatusWriter(r.store, zaptest.NewLogger(t))
	w.add("n1", api.TaskReport{TaskID: "other", Status: swarm.TaskStatus{State: swarm.TaskStateFailed}})
	w.add("n1", api.TaskReport{TaskID: "mine", Status: swarm.TaskStatus{State: swarm.TaskStateFailed}})
	background(t, w.run)
	r.eventually(t, "own report", func(v *store.View) bool {
		m, _ := v.Tasks.Get("mine")
		return m.Status.State == swarm.TaskStateFailed
	})
	if o, _ := r.store.View().Tasks.Get("other"); o.Status.State != "" {
		t.Fatalf("a node wrote the status of another's task: %+v", o.Status)
	}
}

// TestOversizedStatuses: what nodes report never takes more than an entry holds,
// and one that is too much alone does not stop the others.
func TestOversizedStatuses(t *testing.T) {
	s := store.New()
	w := newStatusWriter(s, zaptest.NewLogger(t))
	const n = 30
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := tx.Put(&api.Task{Meta: api.Meta{ID: fmt.Sprint(i)}, NodeID: "n1"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("\u0001", store.MaxTxn/20) // six bytes each in JSON
	for i := range n {
		status := swarm.TaskStatus{State: swarm.TaskStateFailed, Err: long}
		if i == 0 { // ports are bounded by nothing but the entry
			for range 40_000 {
				status.PortStatus.Ports = append(status.PortStatus.Ports, swarm.PortConfig{Name: "a port"})
			}
		} else if i < 22 {
			for range 1_500 {
				status.PortStatus.Ports = append(status.PortStatus.Ports, swarm.PortConfig{Name: "a port"})
			}
		}
		w.add("n1", api.TaskReport{TaskID: fmt.Sprint(i), Status: status})
	}
	background(t, w.run)
	r := &rig{store: s}
	r.eventually(t, "every status but the one too large", func(v *store.View) bool {
		failed := 0
		for task := range v.Tasks.All() {
			if task.Status.State == swarm.TaskStateFailed {
				failed++
				if len(task.Status.Err) > 2*maxStatusText {
					t.Fatalf("an error of %d bytes was written", len(task.Status.Err))
				}
			}
		}
		return failed == n-1
	})
}

func TestStrangersAreRefused(t *testing.T) {
	r := newRig(t, nil)
	background(t, r.server.Run)
	for id, want := range map[string]int{"": http.StatusForbidden, "stranger": http.StatusServiceUnavailable} {
		req, _ := http.NewRequest(http.MethodPost, r.web.URL+PathSession, nil)
		if id != "" {
			req.Header.Set("Test-Node", id)
		}
		resp, err := r.web.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("node %q: got %d, want %d", id, resp.StatusCode, want)
		}
	}
}

// TestEndOfTermWaitsForNobody: peers that say nothing, or read nothing, hold
// neither the end of a term up nor their own next session.
func TestEndOfTermWaitsForNobody(t *testing.T) {
	r := newRig(t, nil)
	big := make([]api.Object, 0, 24)
	for i := range 24 {
		task := &api.Task{Meta: api.Meta{ID: fmt.Sprint("t", i)}, ServiceID: "s1", Revision: "r1", NodeID: "n1"}
		task.Networks = []api.Attachment{{NetworkID: "net", Addr: netip.MustParsePrefix("10.0.0.5/24"), Aliases: []string{strings.Repeat("x", 200_000)}}}
		big = append(big, task)
	}
	for _, o := range big {
		r.update(t, o)
	}
	stop := background(t, r.server.Run)

	// One that never says Hello, and one that never reads its 5 MB.
	open := func(node string, first string) {
		body, w := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.web.URL+PathSession, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Test-Node", node)
		if first != "" {
			go func() { _, _ = io.WriteString(w, first+"\n") }()
		}
		got := make(chan struct{})
		go func() {
			defer close(got)
			if resp, err := r.web.Client().Transport.RoundTrip(req); err == nil {
				t.Cleanup(func() { resp.Body.Close() })
			}
		}()
		if first != "" {
			<-got
		}
		t.Cleanup(func() { w.Close(); <-got })
	}
	r.update(t, &api.Node{Meta: api.Meta{ID: "n2"}})
	open("n1", `{"Hello":{"Addr":"192.0.2.1:1"}}`)
	open("n2", "")
	r.eventually(t, "the reader that does not read is known", nodeIs(swarm.NodeStateReady))

	r.client.Hello(Hello{Addr: "192.0.2.1:1"})
	background(t, r.client.Run)
	r.state(t, "its next session gets through", func(*api.NodeState) bool { return true })

	ended := make(chan struct{})
	go func() { stop(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the term does not end")
	}
}

// TestHeartbeatChanges shortens the period under a running session: the node is
// told, and not found silent by a period that it does not know yet.
func TestHeartbeatChanges(t *testing.T) {
	r := newRig(t, nil)
	background(t, r.server.Run)
	r.client.Hello(Hello{Addr: "192.0.2.1:1"})
	background(t, r.client.Run)
	r.eventually(t, "node ready", nodeIs(swarm.NodeStateReady))
	c := api.Clone(r.store.View().Cluster())
	c.Spec.Dispatcher.HeartbeatPeriod = heartbeat / 2
	r.update(t, c)
	r.server.mu.Lock()
	p := r.server.pulse
	r.server.mu.Unlock()
	deadline := time.After(30 * time.Second)
	for {
		p.mu.Lock()
		s := p.signs["n1"]
		p.mu.Unlock()
		if s.period == heartbeat/2 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("the node keeps %s", s.period)
		case <-time.After(heartbeat / 20):
		}
	}
	if n, _ := r.store.View().Nodes.Get("n1"); n.Status.State != swarm.NodeStateReady {
		t.Fatalf("node is %+v", n.Status)
	}
}

// TestCredentialsAloneAreSent: rotating a registry's password changes no task.
func TestCredentialsAloneAreSent(t *testing.T) {
	task := &api.Task{Meta: api.Meta{ID: "t"}, Revision: "r"}
	state := func(auth string) *api.NodeState {
		return &api.NodeState{
			Node:  &api.Node{Meta: api.Meta{ID: "n", Version: 1}},
			Tasks: map[string]*api.Assignment{"t": {Task: task, Revision: &api.Revision{Meta: api.Meta{ID: "r"}}, RegistryAuth: auth}},
		}
	}
	if frames := diff(state("old"), state("new")); len(frames) != 1 || frames[0].Task == nil || frames[0].Task.RegistryAuth != "new" {
		t.Fatalf("%+v", frames)
	}
	if frames := diff(state("old"), state("old")); len(frames) != 0 {
		t.Fatalf("%+v", frames)
	}
}

func TestCall(t *testing.T) {
	cut := errors.New("the disk is gone")
	ended := make(chan struct{})
	r := newRig(t, map[string]Method{
		"echo": func(_ context.Context, args json.RawMessage, w io.Writer) error { _, err := w.Write(args); return err },
		"missing": func(context.Context, json.RawMessage, io.Writer) error {
			return fmt.Errorf("task x: %w", errdefs.ErrNotFound)
		},
		"cut": func(_ context.Context, _ json.RawMessage, w io.Writer) error {
			_, _ = w.Write([]byte("half"))
			return cut
		},
		"silent": func(ctx context.Context, _ json.RawMessage, _ io.Writer) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"endless": func(ctx context.Context, _ json.RawMessage, w io.Writer) error {
			defer close(ended)
			_, _ = w.Write(nil) // begun, nothing to say yet
			<-ctx.Done()
			return ctx.Err()
		},
	})
	background(t, r.server.Run)
	if _, err := r.server.Call(t.Context(), "n1", "echo", 1); !errdefs.IsUnavailable(err) {
		t.Fatalf("call to a node without session: %v", err)
	}
	r.client.Hello(Hello{Addr: "192.0.2.1"})
	background(t, r.client.Run)
	r.state(t, "first state", func(*api.NodeState) bool { return true })

	short, cancel := context.WithTimeout(t.Context(), heartbeat)
	defer cancel()
	called := time.Now()
	if _, err := r.server.Call(short, "n1", "silent", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a silent method: %v", err)
	}
	if waited := time.Since(called); waited > 5*time.Second {
		t.Fatalf("waited %s for a silent method", waited)
	}

	out, err := r.server.Call(t.Context(), "n1", "echo", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out); err != nil || string(got) != `"hello"` {
		t.Fatalf("got %q, %v", got, err)
	}
	out.Close()

	if _, err = r.server.Call(t.Context(), "n1", "missing", nil); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v, want not found", err)
	}
	if _, err = r.server.Call(t.Context(), "n1", "unheard of", nil); err == nil {
		t.Fatal("an unknown method was answered")
	}
	out, err = r.server.Call(t.Context(), "n1", "cut", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out); err == nil || err.Error() != cut.Error() || string(got) != "half" {
		t.Fatalf("got %q, %v: an output that broke off must say so", got, err)
	}
	out.Close()

	out, err = r.server.Call(t.Context(), "n1", "endless", nil)
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the method runs on after its caller went away")
	}
}

// TestASlowApplyIsNotTheLeadersSilence: a node whose kernel takes its time hears
// its leader all the same, and goes on with the newest state.
func TestASlowApplyIsNotTheLeadersSilence(t *testing.T) {
	r := newRig(t, nil)
	const period = 2 * time.Second // a busy machine's pauses are no silence either
	c := api.Clone(r.store.View().Cluster())
	c.Spec.Dispatcher.HeartbeatPeriod = period
	r.update(t, c)
	hangs, release := make(chan *api.NodeState, 100), make(chan struct{})
	r.client.cfg.Apply = func(ctx context.Context, s *api.NodeState) error {
		hangs <- s
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	lost := make(chan struct{}, 1)
	r.client.cfg.Online = func(yes bool) {
		if !yes {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}
	background(t, r.server.Run)
	r.client.Hello(Hello{Addr: "192.0.2.1"})
	stop := background(t, r.client.Run)
	<-hangs
	for i := range 3 {
		r.update(t, serving(fmt.Sprint("t", i), "n1"))
	}
	select {
	case <-lost:
		t.Fatal("the session was given up")
	case <-time.After(2 * leaderPatience * beat(period)):
	}
	close(release)
	for s := range hangs {
		if len(s.Tasks) == 3 {
			break
		}
	}
	r.server.mu.Lock()
	session := r.server.sessions["n1"]
	r.server.mu.Unlock()
	waitUntil(t, "the last commit is acknowledged", func() bool {
		session.progress.mu.Lock()
		defer session.progress.mu.Unlock()
		return len(session.progress.marks) == 0
	})
	stop()
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(heartbeat / 20)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// TestCallLeavesNothingBehind: a session lasts for weeks, and what its calls
// hold of it must not.
func TestCallLeavesNothingBehind(t *testing.T) {
	for name, end := range map[string]func(*pending, context.CancelFunc){
		"not even asked":  func(_ *pending, giveUp context.CancelFunc) { giveUp() },
		"no answer":       func(p *pending, giveUp context.CancelFunc) { <-p.conn.out; giveUp() },
		"refused":         func(p *pending, _ context.CancelFunc) { <-p.conn.out; p.answer <- refusal("no") },
		"connection lost": func(p *pending, _ context.CancelFunc) { <-p.conn.out; close(p.answer) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cs calls
				c := &conn{nodeID: "n1", ctx: t.Context(), out: make(chan down)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				failed := make(chan error, 1)
				go func() {
					_, err := cs.do(ctx, c, "logs", nil, nil)
					failed <- err
				}()
				synctest.Wait()
				var p *pending
				for _, p = range cs.open {
				}
				end(p, cancel)
				if err := <-failed; err == nil {
					t.Error("the call did not fail")
				}
				if p.ctx.Err() == nil {
					t.Error("the session still has the call's context")
				}
				if len(cs.open) > 0 {
					t.Error("the call is still open")
				}
			})
		})
	}
}

// TestAnswerCutOff: the session ends while the answer begins, which cuts it off.
func TestAnswerCutOff(t *testing.T) {
	var cs calls
	session, end := context.WithCancel(t.Context())
	c := &conn{nodeID: "n1", ctx: session, out: make(chan down)}
	failed := make(chan error, 1)
	go func() {
		_, err := cs.do(t.Context(), c, "exec", nil, nil)
		failed <- err
	}()
	asked := <-c.out
	body := readerFunc(func([]byte) (int, error) {
		end()
		return 0, os.ErrDeadlineExceeded
	})
	cs.answer(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", body), "n1", asked.Call.ID)
	if err := <-failed; !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "node n1: connection lost") {
		t.Errorf("got %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func refusal(text string) *answer {
	return &answer{verdict: verdict{Error: text, Status: http.StatusNotFound}, closed: make(chan struct{})}
}

func TestDialogue(t *testing.T) {
	ended := make(chan struct{})
	r := newRig(t, nil)
	r.client.cfg.Dialogues = map[string]Dialogue{
		"upper": func(_ context.Context, args json.RawMessage, in io.ReadCloser, w io.Writer) error {
			_, _ = w.Write(nil)
			lines := bufio.NewScanner(in)
			for lines.Scan() {
				if lines.Text() == "bye" {
					_, err := fmt.Fprintf(w, "bye %s", args)
					return err
				}
				if _, err := fmt.Fprintln(w, strings.ToUpper(lines.Text())); err != nil {
					return err
				}
			}
			close(ended)
			return lines.Err()
		},
		"refuse": func(context.Context, json.RawMessage, io.ReadCloser, io.Writer) error {
			return fmt.Errorf("task x: %w", errdefs.ErrNotFound)
		},
	}
	background(t, r.server.Run)
	r.client.Hello(Hello{Addr: "192.0.2.1"})
	background(t, r.client.Run)
	r.state(t, "first state", func(*api.NodeState) bool { return true })

	c, err := r.server.Open(t.Context(), "n1", "upper", "ann")
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(c)
	for _, word := range []string{"one", "two"} { // each answer comes before the next question
		if _, err := fmt.Fprintln(c, word); err != nil {
			t.Fatal(err)
		}
		if got, err := out.ReadString('\n'); err != nil || got != strings.ToUpper(word)+"\n" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if _, err := io.WriteString(c, "bye\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out); err != nil || string(got) != `bye "ann"` {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	if _, err := r.server.Open(t.Context(), "n1", "refuse", nil); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v, want not found", err)
	}

	// The node hears that its caller went away.
	if c, err = r.server.Open(t.Context(), "n1", "upper", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the dialogue goes on after its caller went away")
	}
}

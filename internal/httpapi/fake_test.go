package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/build"
	"shoal/internal/control"
	"shoal/internal/doctor"
	"shoal/internal/events"
	"shoal/internal/store"
)

var testBuild = build.Info{Version: "test", Commit: "0123456", Time: "2026-01-02T03:04:05Z"}

const fakeRoot = `-----BEGIN CERTIFICATE-----
MIIBajCCARCgAwIBAgIUHxs3sIAOmHQNfxGjqmPTAUYhp9gwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIyMDgzMzAwWhcNNDYxMTE3MDgz
MzAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABHZyCTkD1Csw5ddzoc/r39jJwGYr+JRv6DOJcTqmt/JNuWv2Wpjbt8lSYNoE
avq0VgZT6ZcFe6cVlMojjDyrgq6jQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB
Af8EBTADAQH/MB0GA1UdDgQWBBRx5N5RtTYbK62lFq0fYHIjpt4A5TAKBggqhkjO
PQQDAgNIADBFAiABe8rYzKfiV9NANXmTpVKrCL/JDPQTHU9ApGV6WEMiSAIhANA3
z0eWx47vWdOLk8B8dq37xgKt5/6Nryux8TNJu9ZX
-----END CERTIFICATE-----
`

// fakeNode is a node whose cluster is a store without raft.
type fakeNode struct {
	leader http.Handler // of another manager that leads; guarded by mu
	log    *zap.Logger

	mu      sync.Mutex
	status  NodeStatus
	store   *store.Store
	control *control.Control
}

func newFakeNode(log *zap.Logger) *fakeNode {
	return &fakeNode{log: log, status: NodeStatus{State: swarm.LocalNodeStateInactive, DataPlane: "nft"}}
}

func (n *fakeNode) Init(ctx context.Context, req swarm.InitRequest) (string, error) {
	first, err := control.Bootstrap(control.Founding{
		Request:     req,
		ClusterID:   "clusterclusterclusterclus",
		NodeID:      "nodenodenodenodenodenoden",
		IngressID:   "ingressingressingressingr",
		RootCA:      api.RootCA{Cert: []byte(fakeRoot)},
		JoinTokens:  swarm.JoinTokens{Worker: "SWMTKN-1-digest-worker", Manager: "SWMTKN-1-digest-manager"},
		Description: swarm.NodeDescription{Hostname: "n1", Platform: swarm.Platform{Architecture: "x86_64", OS: "linux"}},
		Addr:        "10.9.9.1:2377",
		DataPath:    "10.9.9.1",
	})
	if err != nil {
		return "", err
	}
	first.Node.Status.State = swarm.NodeStateReady
	s := store.New()
	if err := s.Update(ctx, func(tx *store.Tx) error {
		for _, o := range first.Objects() {
			if err := tx.Put(o); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.store = s
	n.control = control.New(control.Config{Store: s, Members: leader{first.Node.ID}, Log: n.log})
	n.status = NodeStatus{
		NodeID: first.Node.ID, NodeAddr: "10.9.9.1", ClusterID: first.Cluster.ID, State: swarm.LocalNodeStateActive,
		ControlAvailable: true, RemoteManagers: []swarm.Peer{{NodeID: first.Node.ID, Addr: "10.9.9.1:2377"}}, DataPlane: "nft",
	}
	return first.Node.ID, nil
}

func (n *fakeNode) Join(context.Context, swarm.JoinRequest) error {
	return errdefs.ErrNotImplemented.WithMessage("joining is not supported by this version of shoal")
}

// errLastManager is what the only manager of a swarm says.
var errLastManager = errdefs.ErrUnavailable.WithMessage("Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ")

func (n *fakeNode) Leave(_ context.Context, force bool) error {
	if !force {
		return errLastManager
	}
	n.set(NodeStatus{State: swarm.LocalNodeStateInactive}, nil)
	return nil
}

// Unlock takes one key.
func (n *fakeNode) Unlock(_ context.Context, req swarm.UnlockRequest) error {
	if req.UnlockKey != "SWMKEY-1-right" {
		return errdefs.ErrUnauthenticated.WithMessage("swarm could not be unlocked: invalid key provided")
	}
	n.set(NodeStatus{State: swarm.LocalNodeStatePending, ControlAvailable: true}, nil)
	return nil
}

func (n *fakeNode) set(st NodeStatus, c *control.Control) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status, n.control = st, c
}

func (n *fakeNode) Status() NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

func (n *fakeNode) RegistryAuth(image string) string {
	if c := n.Control(); c != nil {
		return c.View().RegistryAuth(image)
	}
	return ""
}

func (n *fakeNode) Replica() *control.Control { return n.Control() }

func (n *fakeNode) Control() *control.Control {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.control
}

func (n *fakeNode) Forward() http.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader
}

func (n *fakeNode) Networks() []*api.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.store == nil {
		return nil
	}
	return slices.Collect(n.store.View().Networks.All())
}

type leader struct{ id string }

func (l leader) Leader() string        { return l.id }
func (l leader) Reachable(string) bool { return true }
func (l leader) Applied() uint64       { return 0 }

// fakeLogs gives each task a line on stdout and one on stderr.
type fakeLogs struct {
	open func(ctx context.Context, taskID string, o api.LogOptions) (io.ReadCloser, error)
}

func (f *fakeLogs) TaskLogs(ctx context.Context, _, taskID string, o api.LogOptions) (io.ReadCloser, error) {
	if f.open != nil {
		return f.open(ctx, taskID, o)
	}
	return io.NopCloser(bytes.NewReader(frames(o,
		logEntry{1, "2026-11-22T10:00:01.000000001Z", "hello from " + taskID},
		logEntry{2, "2026-11-22T10:00:02.000000001Z", "oops from " + taskID},
	))), nil
}

type logEntry struct {
	stream byte
	at     string
	text   string
}

// frames writes entries the way an engine does.
func frames(o api.LogOptions, entries ...logEntry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		line := e.text + "\n"
		if o.Details {
			line = "user=x " + line
		}
		if o.Timestamps {
			line = e.at + " " + line
		}
		_, _ = stdcopy.NewStdWriter(&b, stdcopy.StdType(e.stream)).Write([]byte(line)) // a buffer takes all
	}
	return b.Bytes()
}

// orchestrate plays the orchestrator: every slot of every service has one
// running task of the current revision.
func orchestrate(ctx context.Context, t *testing.T, s *store.Store) {
	feed := s.Watch(api.KindService)
	defer feed.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-feed.Ready():
			feed.Take()
		}
		if err := s.Update(ctx, func(tx *store.Tx) error { return settle(tx) }); err != nil && ctx.Err() == nil {
			t.Errorf("fake orchestrator: %v", err)
		}
	}
}

func settle(tx *store.Tx) error {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for task := range tx.Tasks.All() {
		s, ok := tx.Services.Get(task.ServiceID)
		if !ok || task.Revision != s.Revision || task.Slot > int(*s.Spec.Mode.Replicated.Replicas) {
			if err := tx.Delete(api.KindTask, task.ID); err != nil {
				return err
			}
		}
	}
	for s := range tx.Services.All() {
		have := map[int]bool{}
		for task := range tx.Tasks.By(store.ByService, s.ID) {
			have[task.Slot] = true
		}
		for slot := 1; slot <= int(*s.Spec.Mode.Replicated.Replicas); slot++ {
			if have[slot] {
				continue
			}
			var node *api.Node
			for n := range tx.Nodes.All() {
				node = n
			}
			if err := tx.Put(&api.Task{
				Meta: api.Meta{ID: api.NewID()}, ServiceID: s.ID, Revision: s.Revision, Slot: slot, NodeID: node.ID,
				DesiredState: swarm.TaskStateRunning,
				Status: swarm.TaskStatus{
					State: swarm.TaskStateRunning, Message: "started", Timestamp: at,
					ContainerStatus: &swarm.ContainerStatus{ContainerID: strings.Repeat("c", 64), PID: 1},
				},
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// harness is an API on a unix socket, with a client.
type harness struct {
	t      *testing.T
	node   *fakeNode
	logs   *fakeLogs
	execs  *echoExec
	hub    *events.Hub
	socket string
	client *http.Client

	handler http.Handler
}

// fakeDoctor always finds the same.
type fakeDoctor struct{}

func (fakeDoctor) Diagnose(context.Context) []doctor.Finding {
	return []doctor.Finding{{Check: "clock", Level: doctor.Warn, Subject: "n2", Text: "2s ahead", Todo: "set it"}}
}

const noEngine = "unix:///nonexistent/docker.sock"

func newHarness(t *testing.T, dockerHost string) *harness {
	t.Helper()
	log := zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))
	h := &harness{t: t, node: newFakeNode(log), logs: &fakeLogs{}, execs: &echoExec{make(chan string, 1)}, hub: events.NewHub(), socket: filepath.Join(t.TempDir(), "api.sock")}
	handler, err := New(Config{Node: h.node, Logs: h.logs, Execs: h.execs, Doctor: fakeDoctor{}, Events: h.hub, DockerHost: dockerHost, Build: testBuild, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	h.handler = handler
	l, err := Listen(h.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, handler, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	h.client = &http.Client{Transport: transport}
	return h
}

// found makes a cluster and starts the fake orchestrator.
func (h *harness) found() {
	h.t.Helper()
	if _, err := h.node.Init(context.Background(), swarm.InitRequest{}); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { orchestrate(ctx, h.t, h.node.store) })
	h.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// call makes a request and returns its status, header and body.
func (h *harness) call(method, path, body string, header ...string) (int, http.Header, string) {
	h.t.Helper()
	req, err := http.NewRequest(method, "http://shoal"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// get decodes an answer that has to be 200.
func get[T any](h *harness, path string) T {
	h.t.Helper()
	status, _, body := h.call("GET", path, "")
	if status != http.StatusOK {
		h.t.Fatalf("GET %s: %d %s", path, status, body)
	}
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		h.t.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return v
}

// create makes a service and waits until it runs.
func (h *harness) create(name string, replicas int, more string) swarm.Service {
	h.t.Helper()
	status, _, body := h.call("POST", "/services/create", fmt.Sprintf(
		`{"Name":%q,"TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest"}},"Mode":{"Replicated":{"Replicas":%d}}%s}`, name, replicas, more))
	if status != http.StatusCreated {
		h.t.Fatalf("create %s: %d %s", name, status, body)
	}
	eventually(h.t, func() bool {
		return len(get[[]swarm.Task](h, `/tasks?filters={"service":["`+name+`"],"_up-to-date":["true"]}`)) == replicas
	})
	return get[swarm.Service](h, "/services/"+name)
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("condition not met in time")
		}
	}
}

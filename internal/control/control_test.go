package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

type world struct {
	*Control
	t     *testing.T
	ports *fakePorts
}

// fakePorts answers from a map of store.PortKey to owner.
type fakePorts struct {
	taken map[string]string
	err   error

	mu    sync.Mutex
	asked [][]api.Port
}

func (f *fakePorts) InUse(_ context.Context, ports []api.Port) ([]NodePortOwner, error) {
	f.mu.Lock()
	f.asked = append(f.asked, ports)
	f.mu.Unlock()
	var owners []NodePortOwner
	for _, p := range ports {
		if owner, ok := f.taken[store.PortKey(p.Protocol, uint32(p.Published))]; ok {
			owners = append(owners, NodePortOwner{Node: "n1", PortOwner: api.PortOwner{Protocol: p.Protocol, Port: p.Published, Owner: owner}})
		}
	}
	return owners, f.err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ports: &fakePorts{taken: map[string]string{}}}
	w.Control = New(Config{Store: store.New(), Ports: w.ports, Log: zap.NewNop()})
	first, err := Bootstrap(Founding{
		ClusterID: "cluster", NodeID: "node1", IngressID: "ingress1", Addr: "10.0.0.1:2377",
		JoinTokens:  swarm.JoinTokens{Worker: "SWMTKN-1-dig-w", Manager: "SWMTKN-1-dig-m"},
		Description: swarm.NodeDescription{Hostname: "n1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.put(first.Objects()...)
	return w
}

func (w *world) put(objects ...api.Object) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), func(tx *store.Tx) error {
		for _, o := range objects {
			if err := tx.Put(o); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

func spec(name string, changes ...func(*swarm.ServiceSpec)) swarm.ServiceSpec {
	s := swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: name},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "busybox"}},
	}
	for _, c := range changes {
		c(&s)
	}
	return s
}

func publish(ports ...swarm.PortConfig) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.EndpointSpec = &swarm.EndpointSpec{Ports: ports} }
}

func ingress(target, published uint32) swarm.PortConfig {
	return swarm.PortConfig{TargetPort: target, PublishedPort: published}
}

func host(target, published uint32) swarm.PortConfig {
	return swarm.PortConfig{TargetPort: target, PublishedPort: published, PublishMode: "host"}
}

func (w *world) create(s swarm.ServiceSpec) *api.Service {
	w.t.Helper()
	id, err := w.CreateService(w.t.Context(), s, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.service(id)
}

func (w *world) service(id string) *api.Service {
	w.t.Helper()
	s, ok := w.View().Services.Get(id)
	if !ok {
		w.t.Fatalf("no service %s", id)
	}
	return s
}

// change updates a service the way clients do: read, change, send back.
func (w *world) change(id string, change func(*swarm.ServiceSpec)) *api.Service {
	w.t.Helper()
	s := w.service(id)
	next := copySpec(s.Spec)
	change(&next)
	if err := w.UpdateService(w.t.Context(), id, Update{Version: s.Version, Spec: next}); err != nil {
		w.t.Fatal(err)
	}
	return w.service(id)
}

func wantError(t *testing.T, err error, is func(error) bool, text string) {
	t.Helper()
	if err == nil || !is(err) || !strings.Contains(err.Error(), text) {
		t.Fatalf("want error %q of the right kind, got %v", text, err)
	}
}

func TestRevisionChangesOnlyWithWhatTasksDependOn(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web", publish(ingress(80, 8080))))
	first := s.Revision
	r, ok := w.View().Revisions.Get(first)
	if !ok || r.Number != 1 || r.ServiceID != s.ID || r.Spec.TaskTemplate.ContainerSpec.Image != "busybox" {
		t.Fatalf("first revision: %+v", r)
	}

	steps := []struct {
		name    string
		change  func(*swarm.ServiceSpec)
		renewed bool
	}{
		{"scale", func(s *swarm.ServiceSpec) { s.Mode.Replicated = &swarm.ReplicatedService{Replicas: new(uint64(5))} }, false},
		{"service label", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "b"} }, false},
		{"update config", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2} }, false},
		{"nothing", func(*swarm.ServiceSpec) {}, false},
		{"defaults as they are shown", func(s *swarm.ServiceSpec) { *s = insertDefaults(*s) }, false},
		{"another ingress port", func(s *swarm.ServiceSpec) { publish(ingress(80, 8080), ingress(81, 8081))(s) }, false},
		{"environment", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Env = []string{"A=1"} }, true},
		{"host port", func(s *swarm.ServiceSpec) { publish(ingress(80, 8080), host(81, 8081))(s) }, true},
		{"no ingress port", func(s *swarm.ServiceSpec) { publish(host(81, 8081))(s) }, true},
		{"forced", func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ }, true},
	}
	number := uint64(1)
	for _, step := range steps {
		before := w.service(s.ID)
		after := w.change(s.ID, step.change)
		if renewed := after.Revision != before.Revision; renewed != step.renewed {
			t.Errorf("%s: new revision: %v, want %v", step.name, renewed, step.renewed)
		}
		previous, revision := &before.Spec, before.Revision
		if sameJSON(after.Spec, before.Spec) { // nothing to go back from
			previous, revision = before.Previous, before.PreviousRevision
		}
		if after.PreviousRevision != revision || !sameJSON(after.Previous, previous) {
			t.Errorf("%s: previous spec or revision not kept", step.name)
		}
		if step.renewed {
			number++
		}
		if r, _ := w.View().Revisions.Get(after.Revision); r == nil || r.Number != number {
			t.Errorf("%s: revision %+v, want number %d", step.name, r, number)
		}
	}
}

// TestAlikeRevisions: revisions that differ in placement alone are alike, whatever
// lies between them.
func TestAlikeRevisions(t *testing.T) {
	w := newWorld(t)
	id := w.create(spec("web")).ID
	placed := func(p *swarm.Placement) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = p }
	}
	image := func(name string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = name }
	}
	managers := &swarm.Placement{Constraints: []string{"node.role==manager"}}
	first, _ := w.View().Revisions.Get(w.service(id).Revision)
	seen := map[*api.Revision]string{first: "first"} // what each is like
	for _, step := range []struct {
		name   string
		change func(*swarm.ServiceSpec)
		like   string
	}{
		{"constraint", placed(managers), "first"},
		{"other constraint", placed(&swarm.Placement{Constraints: []string{"node.role==worker"}}), "first"},
		{"preference", placed(&swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}}), "first"},
		{"image", image("other"), "image"},
		{"other image placed", placed(managers), "image"},
		{"both", func(s *swarm.ServiceSpec) { image("busybox")(s); placed(&swarm.Placement{MaxReplicas: 2})(s) }, "first"},
		{"port and placement", func(s *swarm.ServiceSpec) { publish(host(80, 8080))(s); placed(managers)(s) }, "port and placement"},
	} {
		now := w.change(id, step.change)
		r, _ := w.View().Revisions.Get(now.Revision)
		for other, like := range seen {
			if alike := r.Alike(other); alike != (like == step.like) {
				t.Errorf("%s, and one that is like %s: alike %v", step.name, like, alike)
			}
		}
		seen[r] = step.like
	}
}

func TestRollbackReturnsToThePreviousRevision(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	wantError(t, w.UpdateService(t.Context(), "web", Update{Version: s.Version, Rollback: true}),
		errdefs.IsFailedPrecondition, "service web does not have a previous spec")

	updated := w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "busybox:2" })
	if err := w.UpdateService(t.Context(), "web", Update{Version: updated.Version, Rollback: true}); err != nil {
		t.Fatal(err)
	}
	back := w.service(s.ID)
	if back.Revision != s.Revision || back.PreviousRevision != updated.Revision || back.Spec.TaskTemplate.ContainerSpec.Image != "busybox" {
		t.Fatalf("rolled back to %+v", back)
	}
	if back.UpdateStatus == nil || back.UpdateStatus.State != swarm.UpdateStateRollbackStarted {
		t.Fatalf("update status: %+v", back.UpdateStatus)
	}
	again := w.change(s.ID, func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "b"} })
	if again.UpdateStatus != nil {
		t.Fatalf("update status not cleared: %+v", again.UpdateStatus)
	}
	if got := w.View().Revisions.Len(); got != 2 {
		t.Fatalf("%d revisions, want 2", got)
	}
}

func TestUpdateIsOptimistic(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "b"} })
	if err := w.UpdateService(t.Context(), "web", Update{Version: s.Version, Spec: s.Spec}); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("got %v", err)
	}
	wantError(t, w.UpdateService(t.Context(), "nosuch", Update{}), errdefs.IsNotFound, "service nosuch not found")
}

func TestUpdateRefusesChangeOfNameAndMode(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	wantError(t, w.UpdateService(t.Context(), "web", Update{Version: s.Version, Spec: spec("other")}),
		errdefs.IsNotImplemented, "renaming services is not supported")
	global := spec("web", func(s *swarm.ServiceSpec) { s.Mode.Global = &swarm.GlobalService{} })
	wantError(t, w.UpdateService(t.Context(), "web", Update{Version: s.Version, Spec: global}),
		errdefs.IsNotImplemented, "service mode change is not allowed")
}

func TestRegistryAuthIsKeptAndNeverShown(t *testing.T) {
	w := newWorld(t)
	const auth = "eyJ1c2VybmFtZSI6InUifQ=="
	_, err := w.CreateService(t.Context(), spec("bad"), "not base64!")
	wantError(t, err, errdefs.IsInvalidArgument, "X-Registry-Auth")
	id, err := w.CreateService(t.Context(), spec("web"), auth)
	if err != nil {
		t.Fatal(err)
	}
	if s := w.change(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ }); s.RegistryAuth != auth {
		t.Fatalf("lost credentials: %q", s.RegistryAuth)
	}
	s := w.service(id)
	wantError(t, w.UpdateService(t.Context(), id, Update{Version: s.Version, Spec: s.Spec, RegistryAuthFrom: "elsewhere"}),
		errdefs.IsInvalidArgument, "unsupported registryAuthFrom value")
	if err := w.UpdateService(t.Context(), id, Update{Version: s.Version, Spec: s.Spec, RegistryAuth: "e30="}); err != nil {
		t.Fatal(err)
	}
	if got := w.service(id); got.RegistryAuth != "e30=" || got.Revision != s.Revision {
		t.Fatalf("new credentials: %q, revision changed: %v", got.RegistryAuth, got.Revision != s.Revision)
	}
	shown, err := w.Service(id, true)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(fmt.Sprintf("%+v", shown), auth) {
		t.Fatal("credentials are shown")
	}
}

func TestConcurrentCreatesOfOneName(t *testing.T) {
	w := newWorld(t)
	errs := race(8, func(int) error {
		_, err := w.CreateService(t.Context(), spec("web"), "")
		return err
	})
	oneWins(t, errs, errdefs.IsAlreadyExists, "name conflicts with an existing object: service web already exists")
}

func TestConcurrentCreatesWithOnePort(t *testing.T) {
	w := newWorld(t)
	errs := race(8, func(i int) error {
		_, err := w.CreateService(t.Context(), spec(fmt.Sprint("web", i), publish(ingress(80, 8080))), "")
		return err
	})
	oneWins(t, errs, errdefs.IsInvalidArgument, "port '8080' is already in use by service 'web")
}

func TestConcurrentAutomaticPortsDiffer(t *testing.T) {
	w := newWorld(t)
	for i, err := range race(16, func(i int) error {
		_, err := w.CreateService(t.Context(), spec(fmt.Sprint("web", i), publish(ingress(80, 0))), "")
		return err
	}) {
		if err != nil {
			t.Fatalf("create %d: %v", i, err)
		}
	}
	seen := map[uint32]bool{}
	for s := range w.View().Services.All() {
		port := s.Endpoint.Ports[0].PublishedPort
		if port < 30000 || port > 32767 || seen[port] {
			t.Errorf("service %s has port %d", s.Spec.Name, port)
		}
		seen[port] = true
	}
}

func TestConcurrentUpdatesFromOneVersion(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web"))
	errs := race(8, func(i int) error {
		next := copySpec(s.Spec)
		next.TaskTemplate.ForceUpdate = uint64(i + 1)
		return w.UpdateService(t.Context(), "web", Update{Version: s.Version, Spec: next})
	})
	oneWins(t, errs, func(err error) bool { return errors.Is(err, ErrOutOfSequence) }, "update out of sequence")
	if n := w.View().Revisions.Len(); n != 2 {
		t.Errorf("%d revisions, want 2: losers wrote something", n)
	}
}

func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errs
}

func oneWins(t *testing.T, errs []error, is func(error) bool, text string) {
	t.Helper()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantError(t, err, is, text)
	}
	if won != 1 {
		t.Fatalf("%d of %d succeeded", won, len(errs))
	}
}

func TestNodes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	n, err := w.Node("n1")
	if err != nil {
		t.Fatal(err)
	}
	if n.ManagerStatus == nil || n.ManagerStatus.Addr != "10.0.0.1:2377" {
		t.Fatalf("manager status: %+v", n.ManagerStatus)
	}
	version := n.Version.Index
	demoted := swarm.NodeSpec{Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityActive}
	wantError(t, w.UpdateNode(ctx, "n1", version, demoted), errdefs.IsInvalidArgument, "attempting to demote the last manager of the swarm")
	wantError(t, w.UpdateNode(ctx, "n1", version, swarm.NodeSpec{Role: "boss"}), errdefs.IsInvalidArgument, `invalid Role: "boss": --role must be worker or manager`)
	wantError(t, w.UpdateNode(ctx, "n1", version, swarm.NodeSpec{Availability: "maybe"}), errdefs.IsInvalidArgument, `invalid Availability: "maybe": --availability must be active, pause or drain`)
	drained := swarm.NodeSpec{Annotations: swarm.Annotations{Labels: map[string]string{"zone": "a"}}, Role: swarm.NodeRoleManager, Availability: swarm.NodeAvailabilityDrain}
	if err := w.UpdateNode(ctx, "n1", version, drained); err != nil {
		t.Fatal(err)
	}
	if err := w.UpdateNode(ctx, "n1", version, drained); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("got %v", err)
	}
	wantError(t, w.RemoveNode(ctx, "n1", true), errdefs.IsFailedPrecondition, "is a cluster manager and is a member of the raft cluster")

	worker := &api.Node{
		Meta: api.Meta{ID: "node2"}, Description: swarm.NodeDescription{Hostname: "n2"},
		Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}, Status: swarm.NodeStatus{State: swarm.NodeStateReady},
	}
	w.put(worker)
	wantError(t, w.RemoveNode(ctx, "n2", false), errdefs.IsFailedPrecondition, "node node2 is not down and can't be removed: run 'shoal swarm leave' on n2, or stop its daemon")
	for filter, want := range map[string]int{
		"": 2, "role=worker": 1, "role=manager": 1, "name=n": 2, "name=n2": 1, "id=node1": 1,
		"node.label=zone=a": 1, "node.label=zone": 1, "node.label=zone=b": 0, "membership=accepted": 2, "membership=pending": 0, "label=x": 0,
	} {
		nodes, err := w.Nodes(args(filter))
		if err != nil || len(nodes) != want {
			t.Errorf("filter %q: %d nodes, %v; want %d", filter, len(nodes), err, want)
		}
	}
	_, err = w.Nodes(args("colour=red"))
	wantError(t, err, errdefs.IsInvalidArgument, "invalid filter 'colour'")
	_, err = w.Nodes(args("role=boss"))
	wantError(t, err, errdefs.IsInvalidArgument, "Invalid role filter: 'boss'")
	_, err = w.Node("node")
	wantError(t, err, errdefs.IsInvalidArgument, "node node is ambiguous (2 matches found)")
	_, err = w.Node("")
	wantError(t, err, errdefs.IsNotFound, "not found")
	if err := w.RemoveNode(ctx, "n2", true); err != nil {
		t.Fatal(err)
	}
}

// TestLeaveNode forgets the keys of a node that goes: it may come again, at the
// same address and with others.
func TestLeaveNode(t *testing.T) {
	w := newWorld(t)
	w.put(&api.Node{
		Meta: api.Meta{ID: "node2"}, Description: swarm.NodeDescription{Hostname: "n2"},
		Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}, Status: swarm.NodeStatus{State: swarm.NodeStateReady},
		WireGuard: api.WireGuard{Key: "key", Last: "last"}, WireGuardSince: time.Now(),
	})
	if err := w.LeaveNode(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	n, _ := w.View().Nodes.Get("node2")
	if n.Status.State != swarm.NodeStateDown || n.WireGuard != (api.WireGuard{}) || !n.WireGuardSince.IsZero() {
		t.Errorf("%+v", n)
	}
}

func args(filter string) filters.Args {
	if filter == "" {
		return filters.NewArgs()
	}
	k, v, _ := strings.Cut(filter, "=")
	return filters.NewArgs(filters.Arg(k, v))
}

// TestDesiredState: what clients are told is wanted of a task whose slot is
// still wanted.
func TestDesiredState(t *testing.T) {
	run := uint64(0)
	for _, c := range []struct {
		state     swarm.TaskState
		iteration *uint64
		want      swarm.TaskState
	}{
		{swarm.TaskStatePending, nil, swarm.TaskStateRunning},
		{swarm.TaskStateRunning, nil, swarm.TaskStateRunning},
		{swarm.TaskStateFailed, nil, swarm.TaskStateShutdown},
		{swarm.TaskStateComplete, nil, swarm.TaskStateShutdown},
		{swarm.TaskStateRunning, &run, swarm.TaskStateComplete},
		{swarm.TaskStateComplete, &run, swarm.TaskStateComplete},
	} {
		w := newWorld(t)
		s := w.create(spec("web"))
		w.put(&api.Task{
			Meta: api.Meta{ID: "task1"}, ServiceID: s.ID, Revision: s.Revision, Slot: 1, Iteration: c.iteration,
			DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: c.state},
		})
		tasks, err := w.Tasks(args("desired-state=" + string(c.want)))
		if err != nil || len(tasks) != 1 || tasks[0].DesiredState != c.want {
			t.Errorf("%s, job %v: %+v, %v; want %s", c.state, c.iteration != nil, tasks, err, c.want)
		}
	}
}

func TestTasks(t *testing.T) {
	w := newWorld(t)
	s := w.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"stack": "st"} }))
	task := &api.Task{
		Meta: api.Meta{ID: "task1"}, ServiceID: s.ID, Revision: s.Revision, Slot: 1, NodeID: "node1",
		DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: swarm.TaskStateRunning},
	}
	w.put(task)
	w.change(s.ID, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
	w.put(&api.Task{
		Meta: api.Meta{ID: "task2"}, ServiceID: s.ID, Revision: w.service(s.ID).Revision, Slot: 1, NodeID: "node1",
		DesiredState: swarm.TaskStateReady,
	})

	for filter, want := range map[string]int{
		"": 2, "service=web": 2, "node=n1": 2, "desired-state=running": 1, "desired-state=READY": 1, "_up-to-date=true": 1,
		"name=web.1": 2, "name=api": 0, "id=task1": 1, "label=stack=st": 2, "label=stack=other": 0, "runtime=plugin": 0, "runtime=container": 2,
	} {
		tasks, err := w.Tasks(args(filter))
		if err != nil || len(tasks) != want {
			t.Errorf("filter %q: %d tasks, %v; want %d", filter, len(tasks), err, want)
		}
	}
	_, err := w.Tasks(args("service=nosuch"))
	wantError(t, err, errdefs.IsNotFound, "service nosuch not found")
	_, err = w.Tasks(args("desired-state=fine"))
	wantError(t, err, errdefs.IsInvalidArgument, "Invalid desired-state filter: 'fine': must be a task's state")
	if got, err := w.Task("web.1.task1"); err != nil || got.ID != "task1" {
		t.Errorf("by name: %v, %v", got.ID, err)
	}
	if err := w.RemoveService(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Tasks(args("name=web.1")); err != nil || len(got) != 2 || got[0].Spec.ContainerSpec.Image != "busybox" {
		t.Errorf("tasks of a removed service: %+v, %v", got, err)
	}
}

func TestServiceStatusLeavesOutLostNodes(t *testing.T) {
	w := newWorld(t)
	w.put(&api.Node{Meta: api.Meta{ID: "node2"}, Status: swarm.NodeStatus{State: swarm.NodeStateDown}})
	s := w.create(spec("web"))
	for i, node := range []string{"node1", "node2"} {
		w.put(&api.Task{
			Meta: api.Meta{ID: fmt.Sprint("task", i)}, ServiceID: s.ID, NodeID: node,
			Status: swarm.TaskStatus{State: swarm.TaskStateRunning},
		})
	}
	services, err := w.Services(args("name=web"), true)
	if err != nil || len(services) != 1 || *services[0].ServiceStatus != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 1}) {
		t.Fatalf("%+v %v", services, err)
	}
}

func TestCluster(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	cl, err := w.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	next := cl.Spec
	next.Orchestration.TaskHistoryRetentionLimit = new(int64(9))
	if err := w.UpdateCluster(ctx, cl.Version.Index, next, swarm.UpdateFlags{RotateWorkerToken: true}); err != nil {
		t.Fatal(err)
	}
	after, err := w.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	secret, ok := strings.CutPrefix(after.JoinTokens.Worker, "SWMTKN-1-dig-")
	if !ok || len(secret) != 25 || after.JoinTokens.Manager != cl.JoinTokens.Manager || *after.Spec.Orchestration.TaskHistoryRetentionLimit != 9 {
		t.Fatalf("after rotation: %+v", after)
	}
	if err := w.UpdateCluster(ctx, cl.Version.Index, next, swarm.UpdateFlags{}); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("got %v", err)
	}
	noBeat := next
	noBeat.Dispatcher.HeartbeatPeriod = 0
	if err := w.UpdateCluster(ctx, after.Version.Index, noBeat, swarm.UpdateFlags{}); err != nil {
		t.Fatal(err)
	}
	if after, err = w.Cluster(); err != nil || after.Spec.Dispatcher.HeartbeatPeriod != defaultHeartbeat {
		t.Errorf("no heartbeat period stands for %s (%v)", after.Spec.Dispatcher.HeartbeatPeriod, err)
	}
	for refused, change := range map[string]func(*swarm.Spec){
		"task-history-limit 1001 is too many": func(s *swarm.Spec) { s.Orchestration.TaskHistoryRetentionLimit = new(int64(1001)) },
		"raft ticks are fixed in shoal":       func(s *swarm.Spec) { s.Raft.ElectionTick = 20 },
		"HeartbeatTick 1":                     func(s *swarm.Spec) { s.Raft.HeartbeatTick = 2 },
		"heartbeat time period is: 1s":        func(s *swarm.Spec) { s.Dispatcher.HeartbeatPeriod = time.Second - 1 },
		"cannot be a negative duration":       func(s *swarm.Spec) { s.Dispatcher.HeartbeatPeriod = -1 },
	} {
		spec := next
		change(&spec)
		wantError(t, w.UpdateCluster(ctx, after.Version.Index, spec, swarm.UpdateFlags{}), errdefs.IsInvalidArgument, refused)
	}
}

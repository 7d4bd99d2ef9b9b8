package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"shoal/internal/api"
)

func service(id, name string, ports ...uint32) *api.Service {
	s := &api.Service{Meta: api.Meta{ID: id}}
	s.Spec.Name = name
	for _, p := range ports {
		s.Endpoint.Ports = append(s.Endpoint.Ports, swarm.PortConfig{Protocol: "tcp", PublishedPort: p, TargetPort: 80})
	}
	return s
}

func mustUpdate(t *testing.T, s *Store, fn func(tx *Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func names(v *View) []string {
	var out []string
	for s := range v.Services.All() {
		out = append(out, s.Spec.Name)
	}
	return out
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := New()
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "web", 80)) })
	before := s.View()

	broken := errors.New("second thoughts")
	err := s.Update(t.Context(), func(tx *Tx) error {
		if err := tx.Put(service("b", "db")); err != nil {
			return err
		}
		if _, ok := tx.Services.One(ByName, "db"); !ok {
			t.Error("a transaction does not read its own write")
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the function's own error", err)
	}
	if got := names(s.View()); !slices.Equal(got, []string{"web"}) {
		t.Fatalf("services after a failed transaction: %v", got)
	}
	mustUpdate(t, s, func(tx *Tx) error { return tx.Delete(api.KindService, "a") })
	if got := names(before); !slices.Equal(got, []string{"web"}) {
		t.Fatalf("a view changed under its reader: %v", got)
	}
	if got := s.View().Services.Len(); got != 0 {
		t.Fatalf("%d services after the only one was deleted", got)
	}
}

func TestUniqueKeys(t *testing.T) {
	tests := map[string]struct {
		second *api.Service
		ok     bool
	}{
		"same name":          {service("b", "web"), false},
		"same port":          {service("b", "other", 8080), false},
		"same object":        {service("a", "web", 8080), true},
		"other name":         {service("b", "webx", 8081), true},
		"renamed in place":   {service("a", "web2", 8080), true},
		"port of a deletion": {service("b", "other", 8082), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := New()
			mustUpdate(t, s, func(tx *Tx) error {
				return errors.Join(tx.Put(service("a", "web", 8080)), tx.Put(service("c", "gone", 8082)))
			})
			mustUpdate(t, s, func(tx *Tx) error { return tx.Delete(api.KindService, "c") })
			err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(tt.second) })
			if tt.ok && err != nil {
				t.Fatal(err)
			}
			if !tt.ok && !errdefs.IsAlreadyExists(err) {
				t.Fatalf("got %v, want already exists", err)
			}
		})
	}
}

// TestDeposedLeader replays an entry that was written against an older version
// of its object: it must change nothing, whoever sends it.
func TestDeposedLeader(t *testing.T) {
	s := New()
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "web")) })

	var late []byte
	old := New()
	if err := old.Restore(snapshot(t, s)); err != nil {
		t.Fatal(err)
	}
	old.Connect(proposeFunc(func(data []byte) error { late = data; return nil }))
	mustUpdate(t, old, func(tx *Tx) error {
		return errors.Join(tx.Put(service("a", "late")), tx.Put(service("z", "extra")))
	})

	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "newer")) })
	if err := s.Apply(10, late); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
	if got := names(s.View()); !slices.Equal(got, []string{"newer"}) {
		t.Fatalf("services: %v", got)
	}
	if got := s.View().Index; got != 10 {
		t.Fatalf("index %d: an entry without effect still counts", got)
	}
}

// TestLateUniqueness has two transactions that do not know of each other take
// one name: the second fails whole.
func TestLateUniqueness(t *testing.T) {
	s := New()
	var entries [][]byte
	s.Connect(proposeFunc(func(data []byte) error { entries = append(entries, data); return nil }))
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "web")) })
	mustUpdate(t, s, func(tx *Tx) error {
		return errors.Join(tx.Put(service("b", "db")), tx.Put(service("c", "web")))
	})
	if err := s.Apply(1, entries[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(2, entries[1]); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("got %v, want already exists", err)
	}
	if got := names(s.View()); !slices.Equal(got, []string{"web"}) {
		t.Fatalf("services: %v: half a transaction took effect", got)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	s := New()
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(&api.Task{Meta: api.Meta{ID: "t"}}) })
	const writers, rounds = 4, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				err := s.Update(t.Context(), func(tx *Tx) error {
					old, _ := tx.Tasks.Get("t")
					n := api.Clone(old)
					n.Slot++
					return tx.Put(n)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	task, _ := s.View().Tasks.Get("t")
	if task.Slot != writers*rounds {
		t.Fatalf("counted %d, want %d", task.Slot, writers*rounds)
	}
}

func TestCheckGuardsWhatWasRead(t *testing.T) {
	s := New()
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "web")) })
	runs := 0
	mustUpdate(t, s, func(tx *Tx) error {
		runs++
		svc, ok := tx.Services.Get("a")
		if !ok {
			return nil
		}
		tx.Check(svc)
		if runs == 1 { // somebody deletes the service between read and commit
			mustUpdate(t, s, func(tx *Tx) error { return tx.Delete(api.KindService, "a") })
		}
		return tx.Put(&api.Task{Meta: api.Meta{ID: "t"}, ServiceID: "a"})
	})
	if s.View().Tasks.Len() != 0 {
		t.Fatal("a task was made for a service that is gone")
	}
}

func TestFeed(t *testing.T) {
	s := New()
	f := s.Watch(api.KindService)
	defer f.Close()
	<-f.Ready()
	if _, all := f.Take(); !all {
		t.Fatal("a new feed must ask for a full look")
	}
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "one")) })
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(&api.Task{Meta: api.Meta{ID: "t"}}) })
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "two")) })
	<-f.Ready()
	dirty, all := f.Take()
	if all || len(dirty) != 1 || dirty[0].ID != "a" || dirty[0].Old != nil {
		t.Fatalf("got %+v, all=%v", dirty, all)
	}
	mustUpdate(t, s, func(tx *Tx) error { return tx.Put(service("a", "three")) })
	mustUpdate(t, s, func(tx *Tx) error { return tx.Delete(api.KindService, "a") })
	dirty, _ = f.Take()
	if len(dirty) != 1 || dirty[0].Old.(*api.Service).Spec.Name != "two" {
		t.Fatalf("got %+v, want the object as of the last Take", dirty)
	}
	if err := s.Restore(snapshot(t, New())); err != nil {
		t.Fatal(err)
	}
	if _, all := f.Take(); !all {
		t.Fatal("a restored snapshot may have changed everything")
	}
}

func TestSnapshot(t *testing.T) {
	s := New()
	mustUpdate(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.Put(service("a", "web", 80)),
			tx.Put(&api.Node{Meta: api.Meta{ID: "n"}}),
			tx.Put(&api.Task{Meta: api.Meta{ID: "t"}, ServiceID: "a", NodeID: "n"}),
			tx.Put(&api.Cluster{Meta: api.Meta{ID: "c"}}),
			tx.Put(&api.Network{Meta: api.Meta{ID: "net"}}),
			tx.Put(&api.Revision{Meta: api.Meta{ID: "r"}, ServiceID: "a"}))
	})
	data := snapshot(t, s).Bytes()
	back := New()
	if err := back.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(data, snapshot(t, back).Bytes()); diff != "" {
		t.Fatalf("a snapshot does not survive a round trip:\n%s", diff)
	}
	if _, ok := back.View().Tasks.One(ByNode, "n"); !ok {
		t.Fatal("indexes were not rebuilt")
	}
	for cut := range len(data) - 1 {
		if err := back.Restore(bytes.NewReader(data[:cut])); err == nil {
			t.Fatalf("a snapshot cut at byte %d of %d was accepted", cut, len(data))
		}
	}
	if back.View().Services.Len() != 1 {
		t.Fatal("a refused snapshot changed the state")
	}
}

func TestTooLarge(t *testing.T) {
	s := New()
	err := s.Update(t.Context(), func(tx *Tx) error {
		return tx.Put(service("a", string(bytes.Repeat([]byte("x"), MaxTxn))))
	})
	if !errors.Is(err, ErrTooLarge) || !errdefs.IsInvalidArgument(err) {
		t.Fatalf("got %v", err)
	}
}

func snapshot(t *testing.T, s *Store) *bytes.Buffer {
	t.Helper()
	w, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("objects=%d", n), func(b *testing.B) {
			s := New()
			for i := range n {
				_ = s.Update(b.Context(), func(tx *Tx) error {
					return tx.Put(&api.Task{Meta: api.Meta{ID: fmt.Sprint(i)}, ServiceID: "s", NodeID: "n"})
				})
			}
			i := 0
			for b.Loop() {
				i++
				_ = s.Update(b.Context(), func(tx *Tx) error {
					return tx.Put(&api.Task{Meta: api.Meta{ID: fmt.Sprint(i % n)}, ServiceID: "s", NodeID: "n"})
				})
			}
		})
	}
}

// TestObserver hears of each change that took effect, and of no other.
func TestObserver(t *testing.T) {
	s := New()
	var heard []string
	id := func(o api.Object) string {
		if o == nil {
			return "-"
		}
		return o.Head().ID + "@" + fmt.Sprint(o.Head().Version)
	}
	s.Observe(func(_ time.Time, old, now api.Object) { heard = append(heard, id(old)+" "+id(now)) })
	mustUpdate(t, s, func(tx *Tx) error { return errors.Join(tx.Put(service("a", "web")), tx.Put(service("b", "db"))) })
	mustUpdate(t, s, func(tx *Tx) error {
		a, _ := tx.Services.Get("a")
		tx.Check(a)
		return tx.Delete(api.KindService, "b")
	})
	put := func(id, name string) Change {
		raw, _ := json.Marshal(service(id, name))
		return Change{Kind: api.KindService, Op: OpPut, ID: id, Object: raw}
	}
	data, _ := json.Marshal(Txn{Changes: []Change{put("c", "new"), put("d", "web")}}) // a name that is taken: nothing of it counts
	if err := s.Apply(9, data); err == nil {
		t.Fatal("two services of one name")
	}
	if want := []string{"- a@1", "- b@1", "b@1 -"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}

// TestUnreadable: what a newer version has committed stops this one, whichever
// part of it is unknown. A refusal would leave this manager with another state
// than the others have.
func TestUnreadable(t *testing.T) {
	for name, data := range map[string]string{
		"no transaction":                `{"Changes":`,
		"a kind":                        `{"Changes":[{"Kind":"moon","Op":"put","ID":"a","Object":{"ID":"a"}}]}`,
		"an object":                     `{"Changes":[{"Kind":"node","Op":"put","ID":"a","Object":{"ID":7}}]}`,
		"an operation":                  `{"Changes":[{"Kind":"node","Op":"merge","ID":"a"}]}`,
		"an operation, of what is gone": `{"Changes":[{"Kind":"node","Op":"merge","ID":"a","PrevVersion":7}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			err := s.Apply(3, []byte(data))
			var u interface{ Unreadable() }
			if !errors.As(err, &u) {
				t.Fatalf("got %v, want an error that stops this manager", err)
			}
			if got := s.View().Index; got != 0 {
				t.Errorf("the state says it is at entry %d", got)
			}
		})
	}
	s := New()
	err := s.Apply(3, []byte(`{"Changes":[{"Kind":"node","Op":"delete","ID":"a","PrevVersion":7}]}`))
	if !errors.Is(err, ErrConflict) || s.View().Index != 3 {
		t.Errorf("what does not hold any more: %v, at entry %d", err, s.View().Index)
	}
}

package control

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/seal"
	"shoal/internal/api"
)

func TestNextLock(t *testing.T) {
	locked := api.Lock{Epoch: 4, Key: "k4", Previous: []string{"k3"}}
	open := api.Lock{Epoch: 5, Previous: []string{"k4", "k3"}}
	pending := api.Lock{Epoch: 4, Key: "k4", Pending: "k5", Previous: []string{"k3"}}
	for _, c := range []struct {
		name           string
		from           api.Lock
		locked, rotate bool
		want           api.Lock
	}{
		{"never locked", api.Lock{}, false, false, api.Lock{}},
		{"nothing to rotate", api.Lock{}, false, true, api.Lock{}},
		{"turned on", api.Lock{}, true, false, api.Lock{Pending: "new"}},
		{"stays on", locked, true, false, locked},
		{"rotated", locked, true, true, api.Lock{Epoch: 4, Key: "k4", Pending: "new", Previous: []string{"k3"}}},
		{"rotated before it was shown", pending, true, true, api.Lock{Epoch: 4, Key: "k4", Pending: "new", Previous: []string{"k3"}}},
		{"not shown yet", pending, true, false, pending},
		{"turned off", locked, false, false, open},
		{"turned off before it was shown", pending, false, false, open},
		{"turned on again", open, true, false, api.Lock{Epoch: 5, Pending: "new", Previous: []string{"k4", "k3"}}},
	} {
		if got := nextLock(c.from, c.locked, c.rotate, "new"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got, want := shown(pending, "k5"), (api.Lock{Epoch: 5, Key: "k5", Previous: []string{"k4", "k3"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("shown: %+v, want %+v", got, want)
	}
	if got := shown(pending, "k4"); !reflect.DeepEqual(got, pending) {
		t.Errorf("another key was shown: %+v", got)
	}
}

func TestAutolock(t *testing.T) {
	w := newWorld(t)
	update := func(locked, rotate bool) error {
		cl, err := w.Cluster()
		if err != nil {
			t.Fatal(err)
		}
		cl.Spec.EncryptionConfig.AutoLockManagers = locked
		return w.UpdateCluster(t.Context(), cl.Version.Index, cl.Spec, swarm.UpdateFlags{RotateManagerUnlockKey: rotate})
	}
	show := func() UnlockKeys {
		k, err := w.UnlockKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.UnlockKeyShown(t.Context(), k.UnlockKey); err != nil {
			t.Fatal(err)
		}
		return k
	}
	force := func() string { return w.View().Cluster().Lock.Key }
	if k := show(); k.UnlockKey != "" || force() != "" {
		t.Fatalf("a key before there is a lock: %+v", k)
	}
	if err := update(true, false); err != nil {
		t.Fatal(err)
	}
	if force() != "" {
		t.Fatal("a key that nobody knows is in force")
	}
	first := show()
	if _, err := seal.ParseUnlockKey(first.UnlockKey); err != nil || force() != first.UnlockKey || len(first.PreviousKeys) != 0 {
		t.Fatalf("%+v, in force %s", first, force())
	}
	if err := update(true, true); err != nil || force() != first.UnlockKey {
		t.Fatalf("rotated: %v, in force %s", err, force())
	}
	second := show()
	if second.UnlockKey == first.UnlockKey || !slices.Equal(second.PreviousKeys, []string{first.UnlockKey}) || force() != second.UnlockKey {
		t.Fatalf("after a rotation: %+v, in force %s", second, force())
	}
	if err := w.RetireUnlockKeys(t.Context(), 1); err != nil || len(show().PreviousKeys) != 1 {
		t.Fatalf("keys were retired for a lock of before: %v", err)
	}
	if err := w.RetireUnlockKeys(t.Context(), 2); err != nil || len(show().PreviousKeys) != 0 || force() != second.UnlockKey {
		t.Fatalf("after retiring: %v, in force %s", err, force())
	}

	// Managers that are away do not make the list endless.
	for range maxPreviousKeys {
		if err := update(true, true); err != nil {
			t.Fatal(err)
		}
		show()
	}
	last := force()
	wantError(t, update(true, true), errdefs.IsFailedPrecondition, "may still need one of the last")
	if k := show(); k.UnlockKey != last {
		t.Fatal("a rotation was refused and took place")
	}
	if err := update(false, false); err != nil || force() != "" {
		t.Fatalf("turned off: %v, in force %s", err, force())
	}
}

// TestUpdateBesideLockChanges: what managers change by themselves does not get
// in the way of who is about to change the cluster; what others change does.
func TestUpdateBesideLockChanges(t *testing.T) {
	w := newWorld(t)
	read := func() swarm.Swarm {
		cl, err := w.Cluster()
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	update := func(from swarm.Swarm) error {
		return w.UpdateCluster(t.Context(), from.Version.Index, from.Spec, swarm.UpdateFlags{})
	}
	first := read()
	first.Spec.EncryptionConfig.AutoLockManagers = true
	if err := update(first); err != nil {
		t.Fatal(err)
	}
	before := read()
	key, err := w.UnlockKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.UnlockKeyShown(t.Context(), key.UnlockKey); err != nil {
		t.Fatal(err)
	}
	if read().Version.Index == before.Version.Index {
		t.Fatal("the lock did not change")
	}
	if err := update(first); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("from before another user's change: %v", err)
	}
	if err := update(before); err != nil {
		t.Fatalf("from before the managers' own change: %v", err)
	}
	if err := update(before); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("twice: %v", err)
	}
	ahead := read()
	ahead.Version.Index++
	if err := update(ahead); !errors.Is(err, ErrOutOfSequence) {
		t.Fatalf("from the future: %v", err)
	}
}

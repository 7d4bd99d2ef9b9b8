package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// A secret or config never changes, in Docker's API nor here: what a task was
// started with can then be told from its revision, and gone back to. To change
// one means another file of the same name, the next version of it, and services
// that refer to that instead: to them it is an update like any other, which rolls
// their tasks as their update settings say, and which a rollback takes back. The
// version before is retired. It is kept for as long as something refers to it.

// Replacement is what came of ReplaceFile.
type Replacement struct {
	ID       string
	Version  uint64
	Services []string // names of those that were moved to it
}

// Movers are the services that come to use a new version at once.
type Movers int

const (
	// MoveAll moves all that use any version of the file.
	MoveAll Movers = iota
	// MoveOthers leaves those alone that are of the file's own stack: whoever deploys
	// the stack is about to update them, and makes one update of two.
	MoveOthers
)

// ReplaceFile gives a secret or config other data, and moves the services that
// use any version of it. Labels and template driver stay where spec says nothing
// of them. With the same data nothing is new, but services that still use an older
// version are moved: a call that was interrupted can be repeated.
func (c *Control) ReplaceFile(ctx context.Context, kind api.Kind, ref string, spec swarm.ConfigSpec, movers Movers) (Replacement, error) {
	old, err := findFile(c.View(), kind, ref)
	if err != nil {
		return Replacement{}, err
	}
	return c.replaceFile(ctx, old, spec, movers)
}

// WouldReplace says what ReplaceFile would do: without an ID there would be a new
// version, which these services would come to use. Of the data it tells no more.
func (c *Control) WouldReplace(kind api.Kind, ref string, spec swarm.ConfigSpec) (Replacement, error) {
	v := c.View()
	old, err := findFile(v, kind, ref)
	if err != nil {
		return Replacement{}, err
	}
	if err := completeFile(old, &spec); err != nil {
		return Replacement{}, err
	}
	if !newData(v, old, &spec) {
		return Replacement{ID: old.ID, Version: old.Number}, nil
	}
	all := slices.Collect(v.Files(kind).By(store.ByVersion, old.Spec.Name))
	return Replacement{Version: old.Number + 1, Services: usersOf(v, all)}, nil
}

// completeFile fills in what a spec leaves as it is, and checks the whole.
func completeFile(old *api.File, spec *swarm.ConfigSpec) error {
	if old.Retired {
		return invalid("%s %s is an old version: name the newest, %s", old.Of, shownName(old), old.Spec.Name)
	}
	spec.Name = old.Spec.Name
	if spec.Labels == nil {
		spec.Labels = old.Spec.Labels
	}
	switch t := spec.Templating; {
	case t == nil:
		spec.Templating = old.Spec.Templating
	case t.Name == "":
		spec.Templating = nil // none any more
	}
	return validateFile(old.Of, spec)
}

func newData(v *store.View, old *api.File, spec *swarm.ConfigSpec) bool {
	return !bytes.Equal(fileData(v, old), spec.Data) || !sameJSON(spec.Templating, old.Spec.Templating)
}

// replaceFile replaces a file as it was looked at.
func (c *Control) replaceFile(ctx context.Context, old *api.File, spec swarm.ConfigSpec, movers Movers) (Replacement, error) {
	kind := old.Of
	if err := completeFile(old, &spec); err != nil {
		return Replacement{}, err
	}
	m := move{to: old, movers: movers, now: c.now()}

	c.references.RLock() // what is moved to must stay
	defer c.references.RUnlock()
	var err error
	var moved []string
	switch {
	case newData(c.View(), old, &spec):
		m.to = newFile(kind, spec)
		err = c.putFile(ctx, m.to, spec.Data, func(tx *store.Tx) error {
			var err error
			moved, err = m.begin(tx, old)
			return err
		})
	case !sameJSON(spec.Labels, old.Spec.Labels):
		err = c.relabelFile(ctx, old, spec.Labels)
	}
	for more := true; err == nil && more; {
		var some []string
		err = c.update(ctx, func(tx *store.Tx) error {
			some, more, err = m.users(tx, moveBudget)
			return err
		})
		if err == nil {
			moved = append(moved, some...)
		}
	}
	slices.Sort(moved)
	if err != nil && m.to != old && len(moved) > 0 {
		return Replacement{}, fmt.Errorf("%s %s has a new version, but not all services use it yet, repeat this to move them: %w", kind, spec.Name, err)
	}
	return Replacement{ID: m.to.ID, Version: m.to.Number, Services: moved}, err
}

// move is how services come to use a version of a file.
type move struct {
	to     *api.File
	movers Movers
	now    time.Time
}

// begin retires a file for the new one, and moves as many users as fit beside it:
// all of them together, unless they are very many.
func (m move) begin(tx *store.Tx, old *api.File) (moved []string, err error) {
	was, ok := tx.Files(old.Of).Get(old.ID)
	if !ok || was.Version != old.Version {
		return nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("%s %s was changed by another request in the meantime: try again", old.Of, old.Spec.Name))
	}
	was = api.Clone(was)
	was.Retired = true
	if err := tx.Put(was); err != nil {
		return nil, err
	}
	moved, _, err = m.users(tx, moveBudget-base64Size(api.PieceSize))
	return moved, err
}

// moveBudget is how much of a transaction services may fill that are moved.
const moveBudget = store.MaxTxn - 64<<10

func base64Size(n int) int { return (n + 2) / 3 * 4 }

// users has services use the file that use another version of it, as far as the
// budget reaches; more says that it did not reach all.
func (m move) users(tx *store.Tx, budget int) (moved []string, more bool, err error) {
	ids := map[string]bool{}
	for f := range tx.Files(m.to.Of).By(store.ByVersion, m.to.Spec.Name) {
		ids[f.ID] = f.ID != m.to.ID
	}
	stay := ""
	if m.movers == MoveOthers {
		stay = m.to.Spec.Labels[api.StackLabel]
	}
	for s := range tx.Services.All() {
		if !usesVersion(&s.Spec, m.to.Of, ids) || stay != "" && s.Spec.Labels[api.StackLabel] == stay {
			continue
		}
		n := api.Clone(s)
		n.Spec = copySpec(s.Spec)
		repoint(n.Spec.TaskTemplate.ContainerSpec, m.to, ids)
		n.Previous, n.PreviousRevision, n.UpdateStatus = &s.Spec, s.Revision, nil
		n.JobStatus = nextRun(s, m.now)
		raw, err := json.Marshal(&n.Spec)
		if err != nil {
			return nil, false, err
		}
		// A service is written with two specs, and its revision with one.
		if budget -= 3*len(raw) + 8<<10; budget < 0 {
			return moved, true, nil
		}
		if err := errors.Join(revise(tx, n), tx.Put(n)); err != nil {
			return nil, false, err
		}
		moved = append(moved, n.Spec.Name)
	}
	return moved, false, nil
}

func usesVersion(spec *swarm.ServiceSpec, kind api.Kind, ids map[string]bool) bool {
	secrets, configs := api.FileIDs(spec.TaskTemplate.ContainerSpec)
	used := secrets
	if kind == api.KindConfig {
		used = configs
	}
	return slices.ContainsFunc(used, func(id string) bool { return ids[id] })
}

// repoint replaces references to old versions. The container's spec is a copy,
// but what hangs below it is shared.
func repoint(c *swarm.ContainerSpec, to *api.File, ids map[string]bool) {
	if to.Of == api.KindSecret {
		c.Secrets = slices.Clone(c.Secrets)
		for i, r := range c.Secrets {
			if ids[r.SecretID] {
				c.Secrets[i] = &swarm.SecretReference{File: r.File, SecretID: to.ID, SecretName: to.Spec.Name}
			}
		}
		return
	}
	c.Configs = slices.Clone(c.Configs)
	for i, r := range c.Configs {
		if ids[r.ConfigID] {
			c.Configs[i] = &swarm.ConfigReference{File: r.File, Runtime: r.Runtime, ConfigID: to.ID, ConfigName: to.Spec.Name}
		}
	}
}

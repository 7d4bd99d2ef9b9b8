package control

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Secrets and configs are the same to the store: a name, labels, and data that
// never changes. Only what may be shown of them differs.

// maxData are Swarm's limits of a file's data, in bytes.
var maxData = map[api.Kind]int{api.KindSecret: 500 << 10, api.KindConfig: 1000 << 10}

// fileName is what Swarm allows. An @ is not among it: NAME@2 is a version.
var fileName = regexp.MustCompile(`^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`)

const maxFileName = 64

// templateDriver is the one way to fill in placeholders that there is.
const templateDriver = "golang"

// CreateSecret admits a new secret and returns its ID.
func (c *Control) CreateSecret(ctx context.Context, spec swarm.SecretSpec) (string, error) {
	if spec.Driver != nil {
		return "", unsupported("secret driver %q is", spec.Driver.Name)
	}
	return c.createFile(ctx, api.KindSecret, secretSpec(spec))
}

// CreateConfig admits a new config and returns its ID.
func (c *Control) CreateConfig(ctx context.Context, spec swarm.ConfigSpec) (string, error) {
	return c.createFile(ctx, api.KindConfig, spec)
}

func secretSpec(s swarm.SecretSpec) swarm.ConfigSpec {
	return swarm.ConfigSpec{Annotations: s.Annotations, Data: s.Data, Templating: s.Templating}
}

func (c *Control) createFile(ctx context.Context, kind api.Kind, spec swarm.ConfigSpec) (string, error) {
	if err := validateFile(kind, &spec); err != nil {
		return "", err
	}
	free := func(v *store.View) error {
		if _, taken := v.Files(kind).One(store.ByName, spec.Name); taken {
			// Clients look for the words, with their prefix.
			return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("rpc error: code = AlreadyExists desc = %s %s already exists", kind, spec.Name))
		}
		return nil
	}
	if err := free(c.View()); err != nil {
		return "", err // before anything of it is written
	}
	f := newFile(kind, spec)
	err := c.putFile(ctx, f, spec.Data, func(tx *store.Tx) error { return free(&tx.View) })
	return f.ID, err
}

func newFile(kind api.Kind, spec swarm.ConfigSpec) *api.File {
	f := &api.File{Meta: api.Meta{ID: api.NewID()}, Of: kind, Spec: spec, Number: 1}
	f.Spec.Data = nil
	if f.Spec.Labels == nil {
		f.Spec.Labels = map[string]string{}
	}
	return f
}

// putFile writes a file with its data. Data that does not fit into one
// transaction goes ahead of the file, piece by piece: it counts for nothing until
// the file is there, with the last piece and whatever last writes.
func (c *Control) putFile(ctx context.Context, f *api.File, data []byte, last func(tx *store.Tx) error) (err error) {
	pieces := f.Split(data)
	defer func() {
		if err != nil && len(pieces) > 1 && !errdefs.IsUnknown(err) {
			c.dropPieces(ctx, f)
		}
	}()
	ahead, end := pieces[:len(pieces)-1], pieces[len(pieces)-1]
	for _, p := range ahead {
		if err := c.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(p) }); err != nil {
			return err
		}
	}
	return c.update(ctx, func(tx *store.Tx) error {
		if err := last(tx); err != nil {
			return err
		}
		for _, p := range ahead {
			if _, ok := tx.Pieces.Get(p.ID); !ok {
				return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("%s %s took too long to be written: try again", f.Of, f.Spec.Name))
			}
		}
		for o := range tx.Files(f.Of).By(store.ByVersion, f.Spec.Name) {
			f.Number = max(f.Number, o.Number+1)
		}
		if err := tx.Put(end); err != nil {
			return err
		}
		return tx.Put(f)
	})
}

// dropTime bounds how long is spent on data that no file came to have.
const dropTime = 5 * time.Second

// dropPieces removes what was written of a file that did not come to be. What it
// fails to remove TendFiles finds.
func (c *Control) dropPieces(ctx context.Context, f *api.File) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	_ = c.store.Update(ctx, func(tx *store.Tx) error { return deletePieces(tx, f) })
}

func deletePieces(tx *store.Tx, f *api.File) error {
	for _, id := range f.Pieces {
		if err := tx.Delete(api.KindPiece, id); err != nil {
			return err
		}
	}
	return nil
}

func deleteFile(tx *store.Tx, f *api.File) error {
	if err := deletePieces(tx, f); err != nil {
		return err
	}
	return tx.Delete(f.Of, f.ID)
}

func validateFile(kind api.Kind, spec *swarm.ConfigSpec) error {
	switch most := maxData[kind]; {
	case spec.Name == "":
		return invalid("name must be provided: the %s has none", kind)
	case len(spec.Name) > maxFileName || !fileName.MatchString(spec.Name):
		return invalid("invalid name, only %d [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]: %s %q", maxFileName, kind, spec.Name)
	case len(spec.Data) == 0 || len(spec.Data) >= most:
		return invalid("%s data must be larger than 0 and less than %d bytes: %s has %d", kind, most, spec.Name, len(spec.Data))
	}
	if err := validateFileLabels(spec.Labels); err != nil {
		return err
	}
	if t := spec.Templating; t != nil && t.Name != "" {
		if t.Name != templateDriver {
			return unsupported("template driver %q is", t.Name)
		}
		if err := api.CheckTemplate(spec.Data); err != nil {
			return invalid("%s %s: %v", kind, spec.Name, err)
		}
	}
	return nil
}

func validateFileLabels(labels map[string]string) error {
	for label := range labels {
		if strings.HasPrefix(label, api.SettingPrefix) {
			return invalid("label %q: this version of shoal knows no such setting", label)
		}
	}
	return nil
}

// UpdateFile is Docker's update of a secret or config: of its labels, which are all
// that may change of one. With other data, which Docker refuses, it makes a new
// version, as ReplaceFile does: so the stock client can deploy a stack whose
// files have changed.
func (c *Control) UpdateFile(ctx context.Context, kind api.Kind, ref string, version uint64, spec swarm.ConfigSpec) error {
	v := c.View()
	old, err := findFile(v, kind, ref)
	switch {
	case err != nil:
		return err
	case old.Version != version:
		return ErrOutOfSequence
	case spec.Name != old.Spec.Name && spec.Name != shownName(old):
		return invalid("only updates to Labels are allowed")
	}
	data := fileData(v, old)
	other := spec.Data != nil && !bytes.Equal(spec.Data, data)
	switch {
	case other && spec.Templating == nil:
		spec.Templating = &swarm.Driver{} // the spec is whole, and has none
	case !other && spec.Templating != nil && !sameJSON(spec.Templating, old.Spec.Templating):
		spec.Data, other = data, true
	}
	if !other {
		return c.relabelFile(ctx, old, spec.Labels)
	}
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	if _, err = c.replaceFile(ctx, old, spec, MoveOthers); errdefs.IsConflict(err) {
		return ErrOutOfSequence
	}
	return err
}

// relabelFile gives a file, as it was looked at, other labels.
func (c *Control) relabelFile(ctx context.Context, old *api.File, labels map[string]string) error {
	if err := validateFileLabels(labels); err != nil {
		return err
	}
	return c.update(ctx, func(tx *store.Tx) error {
		now, ok := tx.Files(old.Of).Get(old.ID)
		if !ok {
			return notFound(old.Of, old.Spec.Name)
		}
		if now.Version != old.Version {
			return ErrOutOfSequence
		}
		f := api.Clone(now)
		if f.Spec.Labels = labels; f.Spec.Labels == nil {
			f.Spec.Labels = map[string]string{}
		}
		return tx.Put(f)
	})
}

// RemoveFile removes a secret or config with all its versions, or one version of
// it. One that a service uses stays. A service may still be rolled back to a spec
// that uses it, as in Swarm: it is then told what is missing.
func (c *Control) RemoveFile(ctx context.Context, kind api.Kind, ref string) error {
	c.references.Lock() // until it is gone nobody may come to refer to it
	defer c.references.Unlock()
	return c.update(ctx, func(tx *store.Tx) error {
		f, err := findFile(&tx.View, kind, ref)
		if err != nil {
			return err
		}
		going := []*api.File{f}
		if !f.Retired {
			going = slices.Collect(tx.Files(kind).By(store.ByVersion, f.Spec.Name))
		}
		if users := usersOf(&tx.View, going); len(users) > 0 {
			services := "services"
			if len(users) == 1 {
				services = "service"
			}
			return invalid("%s '%s' is in use by the following %s: %s", kind, shownName(f), services, strings.Join(users, ", "))
		}
		for _, f := range going {
			if err := deleteFile(tx, f); err != nil {
				return err
			}
		}
		return nil
	})
}

// usersOf names the services whose spec uses one of the files.
func usersOf(v *store.View, files []*api.File) []string {
	ids := map[string]bool{}
	for _, f := range files {
		ids[f.ID] = true
	}
	var names []string
	for s := range v.Services.All() {
		if uses(&s.Spec, ids) {
			names = append(names, s.Spec.Name)
		}
	}
	slices.Sort(names)
	return names
}

func uses(spec *swarm.ServiceSpec, ids map[string]bool) bool {
	secrets, configs := api.FileIDs(spec.TaskTemplate.ContainerSpec)
	return slices.ContainsFunc(append(secrets, configs...), func(id string) bool { return ids[id] })
}

// Secret returns one secret by ID, name, NAME@VERSION or beginning of the ID.
// Its data is never shown.
func (c *Control) Secret(ref string) (Secret, error) {
	f, err := findFile(c.View(), api.KindSecret, ref)
	if err != nil {
		return Secret{}, err
	}
	return dockerSecret(f), nil
}

// Config returns one config, as Secret does, with its data.
func (c *Control) Config(ref string) (ConfigFile, error) {
	v := c.View()
	f, err := findFile(v, api.KindConfig, ref)
	if err != nil {
		return ConfigFile{}, err
	}
	return dockerConfig(v, f), nil
}

// Secrets lists the secrets that fit the filters, and retired versions where they
// are asked for. Clients of Docker's know nothing of these: what they are shown of a
// stack they remove piece by piece, and a version goes with its secret.
func (c *Control) Secrets(f filters.Args, retired bool) ([]Secret, error) {
	files, err := listFiles(c.View(), api.KindSecret, f, retired, "names")
	out := []Secret{}
	for _, f := range files {
		out = append(out, dockerSecret(f))
	}
	return out, err
}

// Configs lists the configs, as Secrets does.
func (c *Control) Configs(f filters.Args, retired bool) ([]ConfigFile, error) {
	v := c.View()
	files, err := listFiles(v, api.KindConfig, f, retired)
	out := []ConfigFile{}
	for _, f := range files {
		out = append(out, dockerConfig(v, f))
	}
	return out, err
}

func listFiles(v *store.View, kind api.Kind, f filters.Args, retired bool, more ...string) ([]*api.File, error) {
	if err := accept(f, append(more, "name", "id", "label")...); err != nil {
		return nil, err
	}
	var out []*api.File
	for o := range v.Files(kind).All() {
		if (retired || !o.Retired) && prefix(f, "name", shownName(o)) && prefix(f, "id", o.ID) && labelled(f, "label", o.Spec.Labels) &&
			anyOf(f, "names", func(n string) bool { return n == shownName(o) }) {
			out = append(out, o)
		}
	}
	return out, nil
}

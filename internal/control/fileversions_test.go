package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// consumer makes a service that uses a secret, or a config.
func (w *world) consumer(name, secret, config string) string {
	w.t.Helper()
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: name}}
	c := &swarm.ContainerSpec{Image: "web:1"}
	if secret != "" {
		s, err := w.Secret(secret)
		if err != nil {
			w.t.Fatal(err)
		}
		c.Secrets = []*swarm.SecretReference{{SecretID: s.ID, SecretName: secret, File: &swarm.SecretReferenceFileTarget{Name: "k", Mode: 0o444}}}
	}
	if config != "" {
		s, err := w.Config(config)
		if err != nil {
			w.t.Fatal(err)
		}
		c.Configs = []*swarm.ConfigReference{{ConfigID: s.ID, ConfigName: config, File: &swarm.ConfigReferenceFileTarget{Name: "c", Mode: 0o444}}}
	}
	spec.TaskTemplate.ContainerSpec = c
	id, err := w.CreateService(w.t.Context(), spec, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// uses gives the data of the secret that a service uses.
func (w *world) uses(name string) string {
	w.t.Helper()
	s, ok := w.View().Services.One(store.ByName, name)
	if !ok {
		w.t.Fatalf("no service %s", name)
	}
	f, ok := w.View().Secrets.Get(s.Spec.TaskTemplate.ContainerSpec.Secrets[0].SecretID)
	if !ok {
		return "gone"
	}
	return string(fileData(w.View(), f))
}

func (w *world) rollBack(name string) error {
	s, _ := w.View().Services.One(store.ByName, name)
	return w.UpdateService(w.t.Context(), name, Update{Version: s.Version, Rollback: true})
}

func (w *world) secretNames() string {
	all, err := w.Secrets(filters.NewArgs(), true)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Spec.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (w *world) mustCreate(kind api.Kind, name, data string) {
	w.t.Helper()
	if _, err := w.createFile(w.t.Context(), kind, config(name, []byte(data))); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mustReplace(name, data string) Replacement {
	w.t.Helper()
	r, err := w.ReplaceFile(w.t.Context(), api.KindSecret, name, swarm.ConfigSpec{Data: []byte(data)}, MoveAll)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// TestVersions: changing a secret is an update of the services that use it, and
// of no others; a rollback brings the old one back.
func TestVersions(t *testing.T) {
	w := newWorld(t)
	w.mustCreate(api.KindSecret, "key", "one")
	w.mustCreate(api.KindConfig, "key", "config")
	w.consumer("web", "key", "")
	w.consumer("api", "key", "key")
	w.consumer("other", "", "key")
	revision := func(name string) string {
		s, _ := w.View().Services.One(store.ByName, name)
		return s.Revision
	}
	other, first := revision("other"), revision("web")

	would, err := w.WouldReplace(api.KindSecret, "key", swarm.ConfigSpec{Data: []byte("two")})
	if err != nil || would.ID != "" || would.Version != 2 || !slices.Equal(would.Services, []string{"api", "web"}) || w.uses("web") != "one" {
		t.Fatalf("before anything is done: %+v, %v", would, err)
	}
	r := w.mustReplace("key", "two")
	if would, err := w.WouldReplace(api.KindSecret, "key", swarm.ConfigSpec{Data: []byte("two")}); err != nil || would.ID != r.ID {
		t.Fatalf("nothing would be new: %+v, %v", would, err)
	}
	if r.Version != 2 || !slices.Equal(r.Services, []string{"api", "web"}) {
		t.Fatalf("%+v", r)
	}
	if w.uses("web") != "two" || w.uses("api") != "two" || revision("web") == first || revision("other") != other {
		t.Fatal("all users have the new version, and nobody else is touched")
	}
	if got := w.secretNames(); got != "key key@1" {
		t.Fatalf("listed: %s", got)
	}
	if all, err := w.Secrets(filters.NewArgs(), false); err != nil || len(all) != 1 || all[0].Spec.Name != "key" {
		t.Fatalf("clients that know no versions are shown %+v, %v", all, err)
	}
	now, err := w.Secret("key")
	if err != nil || now.ID != r.ID || now.Shoal == nil || now.Shoal.Version != 2 || now.Shoal.Retired {
		t.Fatalf("%+v, %v", now, err)
	}
	if again := w.mustReplace("key", "two"); again.ID != r.ID || len(again.Services) != 0 {
		t.Fatalf("the same data is nothing new: %+v", again)
	}

	if err := w.rollBack("web"); err != nil {
		t.Fatal(err)
	}
	if w.uses("web") != "one" || revision("web") != first || w.uses("api") != "two" {
		t.Fatal("a rollback brings the old secret and revision back, of this service alone")
	}
	err = w.RemoveFile(t.Context(), api.KindSecret, "key@1")
	if err == nil || err.Error() != "secret 'key@1' is in use by the following service: web" {
		t.Fatal(err)
	}
	err = w.RemoveFile(t.Context(), api.KindSecret, "key")
	if err == nil || err.Error() != "secret 'key' is in use by the following services: api, web" {
		t.Fatal(err)
	}
	if _, err := w.ReplaceFile(t.Context(), api.KindSecret, "key@1", swarm.ConfigSpec{Data: []byte("x")}, MoveAll); err == nil {
		t.Fatal("an old version has no next one")
	}

	if r := w.mustReplace("key", "three"); r.Version != 3 || len(r.Services) != 2 {
		t.Fatalf("whoever uses any version moves: %+v", r)
	}
	if _, err := w.tendFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.secretNames(); got != "key key@1 key@2" {
		t.Fatalf("revisions may go back to what is gone: %s", got)
	}
	r, err = w.ReplaceFile(t.Context(), api.KindSecret, "key", swarm.ConfigSpec{Data: []byte("four"), Templating: &swarm.Driver{}}, MoveOthers)
	if err != nil || r.Version != 4 || len(r.Services) != 2 || w.uses("web") != "four" {
		t.Fatalf("a secret of no stack leaves nobody alone: %+v, %v, %s", r, err, w.uses("web"))
	}
	for _, name := range []string{"web", "api"} {
		if err := w.RemoveService(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	// Those who watch the store clear revisions away.
	if err := w.store.Update(t.Context(), func(tx *store.Tx) error {
		for r := range tx.View.Revisions.All() {
			if _, ok := tx.Services.Get(r.ServiceID); !ok {
				if err := tx.Delete(api.KindRevision, r.ID); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tendFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.secretNames(); got != "key" {
		t.Fatalf("old versions that nobody can use are kept: %s", got)
	}
	if err := w.RemoveFile(t.Context(), api.KindSecret, "key"); err != nil {
		t.Fatal(err)
	}
}

// TestDeployedByDocker: a stock client gives a secret of a stack other data. What
// deploying the stack will not update is moved at once.
func TestDeployedByDocker(t *testing.T) {
	w := newWorld(t)
	stack := map[string]string{api.StackLabel: "st"}
	id, err := w.CreateSecret(t.Context(), swarm.SecretSpec{Annotations: swarm.Annotations{Name: "st_key", Labels: stack}, Data: []byte("one")})
	if err != nil {
		t.Fatal(err)
	}
	w.consumer("st_web", "st_key", "")
	w.consumer("elsewhere", "st_key", "")
	web, _ := w.View().Services.One(store.ByName, "st_web")
	spec := copySpec(web.Spec)
	spec.Labels = stack
	if err := w.UpdateService(t.Context(), "st_web", Update{Version: web.Version, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	update := func(id string, data string) error {
		s, err := w.Secret(id)
		if err != nil {
			t.Fatal(err)
		}
		spec := s.Spec
		spec.Data = []byte(data)
		return w.UpdateFile(t.Context(), api.KindSecret, id, s.Version.Index, secretSpec(spec))
	}
	if err := update(id, "two"); err != nil {
		t.Fatal(err)
	}
	if w.uses("st_web") != "one" || w.uses("elsewhere") != "two" {
		t.Errorf("st_web uses %s, elsewhere %s", w.uses("st_web"), w.uses("elsewhere"))
	}
	now, err := w.Secret("st_key")
	if err != nil || now.ID == id || now.Shoal.Version != 2 || now.Spec.Labels[api.StackLabel] != "st" {
		t.Fatalf("%+v, %v", now, err)
	}
	old, err := w.Secret(id)
	if err != nil || old.Spec.Name != "st_key@1" {
		t.Fatalf("the version before: %+v, %v", old, err)
	}
	if err := update(id, "three"); err == nil || err.Error() != "secret st_key@1 is an old version: name the newest, st_key" {
		t.Errorf("an old version: %v", err)
	}
	err = w.UpdateFile(t.Context(), api.KindSecret, now.ID, now.Version.Index-1, secretSpec(swarm.SecretSpec{Annotations: now.Spec.Annotations, Data: []byte("x")}))
	if !errors.Is(err, ErrOutOfSequence) {
		t.Errorf("from an old version of the object: %v", err)
	}
}

// TestRollbackToRemovedSecret says what is missing.
func TestRollbackToRemovedSecret(t *testing.T) {
	w := newWorld(t)
	w.mustCreate(api.KindSecret, "key", "one")
	w.consumer("web", "key", "")
	w.mustReplace("key", "two")
	if err := w.RemoveFile(t.Context(), api.KindSecret, "key@1"); err != nil {
		t.Fatal(err)
	}
	if err := w.rollBack("web"); err == nil || err.Error() != "secret not found: key" {
		t.Fatal(err)
	}
}

// TestManyUsers: more services than fit into one transaction.
func TestManyUsers(t *testing.T) {
	w := newWorld(t)
	w.mustCreate(api.KindSecret, "key", "one")
	for i := range 60 {
		w.consumer(fmt.Sprintf("s%d", i), "key", "")
	}
	if r := w.mustReplace("key", strings.Repeat("x", 400<<10)); len(r.Services) != 60 {
		t.Fatalf("%d services moved", len(r.Services))
	}
}

func TestSecretOfANewService(t *testing.T) {
	w := newWorld(t)
	spec := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web"}}
	spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Image: "web:1", Secrets: []*swarm.SecretReference{secretRef("a", "a", ""), secretRef("b", "b", "")}, Configs: []*swarm.ConfigReference{configRef("c", "c")},
	}
	if _, err := w.CreateService(t.Context(), spec, ""); err == nil || err.Error() != "secrets not found: a, b" {
		t.Fatal(err)
	}
	spec.TaskTemplate.ContainerSpec.Secrets = nil
	if _, err := w.CreateService(t.Context(), spec, ""); err == nil || err.Error() != "config not found: c" {
		t.Fatal(err)
	}
}

package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// withFiles is a state with one task that uses one templated secret and one config.
func withFiles(text string) (*api.NodeState, *api.Assignment) {
	s := &api.NodeState{Files: map[string]*api.File{}, Pieces: map[string]*api.Piece{}, Node: &api.Node{}}
	s.Node.Description.Hostname, s.Node.Spec.Labels = "host1", map[string]string{"rack": "r1"}
	add := func(kind api.Kind, id, driver, data string) {
		f := &api.File{Meta: api.Meta{ID: id}, Of: kind}
		if driver != "" {
			f.Spec.Templating = &swarm.Driver{Name: driver}
		}
		for _, p := range f.Split([]byte(data)) {
			s.Pieces[p.ID] = p
		}
		s.Files[id] = f
	}
	add(api.KindSecret, "key-id", "golang", text)
	add(api.KindConfig, "conf-id", "", "{{as it is}}")
	r := &api.Revision{}
	r.Spec.Name = "web"
	r.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Env:     []string{"SLOT={{.Task.Slot}}"},
		Secrets: []*swarm.SecretReference{{SecretID: "key-id", SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "k", UID: "7", GID: "8", Mode: 0o400}}},
		Configs: []*swarm.ConfigReference{{ConfigID: "conf-id", ConfigName: "conf", File: &swarm.ConfigReferenceFileTarget{Name: "etc/conf", Mode: 0o444}}},
	}
	return s, &api.Assignment{Task: &api.Task{Meta: api.Meta{ID: "t1"}, Slot: 3}, Revision: r}
}

func compiledFiles(s *api.NodeState, a *api.Assignment) ([]file, error) {
	values := api.PlaceholdersOf(&a.Revision.Spec, a.Task, s.Node)
	spec, err := values.Fill(a.Revision.Spec.TaskTemplate.ContainerSpec)
	if err != nil {
		return nil, err
	}
	return compileFiles(s, a, spec, values)
}

func TestCompileFiles(t *testing.T) {
	files, err := compiledFiles(withFiles(`{{.Service.Name}} {{env "SLOT"}} {{index .Node.Labels "rack"}} {{config "etc/conf"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []file{
		{target: "/run/secrets/k", uid: 7, gid: 8, mode: 0o400, data: []byte("web 3 r1 {{as it is}}")},
		{target: "/etc/conf", mode: 0o444, data: []byte("{{as it is}}")},
	}
	if !slices.EqualFunc(files, want, func(a, b file) bool {
		return a.target == b.target && a.uid == b.uid && a.gid == b.gid && a.mode == b.mode && string(a.data) == string(b.data)
	}) {
		t.Errorf("%+v", files)
	}
}

func TestFilesThatCanNotBeMade(t *testing.T) {
	for want, change := range map[string]func(s *api.NodeState, a *api.Assignment){
		"secret not found: key":     func(s *api.NodeState, _ *api.Assignment) { delete(s.Files, "key-id") },
		"config conf is incomplete": func(s *api.NodeState, _ *api.Assignment) { delete(s.Pieces, s.Files["conf-id"].Pieces[0]) },
		"secret key: secret target n": func(s *api.NodeState, _ *api.Assignment) {
			s.Pieces[s.Files["key-id"].Pieces[0]].Data = []byte(`{{secret "n"}} `)
		},
		`secret key: owner "root" is`: func(_ *api.NodeState, a *api.Assignment) {
			a.Revision.Spec.TaskTemplate.ContainerSpec.Secrets[0].File.UID = "root"
		},
	} {
		s, a := withFiles("s3cret plain.. ")
		change(s, a)
		if _, err := compiledFiles(s, a); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestFileStore(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to give files away")
	}
	fs := newFileStore(filepath.Join(t.TempDir(), "files"))
	defer func() { _ = fs.clear() }()
	one := []file{{target: "/run/secrets/k", uid: 7, gid: 8, mode: 0o400, data: []byte("x")}}
	for range 2 { // again after an attempt that failed halfway
		mounts, err := fs.put("t1", one)
		if err != nil || len(mounts) != 1 || !mounts[0].ReadOnly || mounts[0].Target != "/run/secrets/k" {
			t.Fatalf("%+v, %v", mounts, err)
		}
		if st, err := os.Stat(mounts[0].Source); err != nil || st.Mode() != 0o400 {
			t.Fatalf("%+v, %v", st, err)
		}
	}
	if st, err := os.Stat(fs.dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Fatalf("others may look: %+v, %v", st, err)
	}
	has := func(taskID string) bool { _, err := os.Stat(filepath.Join(fs.dir, taskID)); return err == nil }

	seen := fs.begin()
	if _, err := fs.put("t2", one); err != nil { // while containers are listed
		t.Fatal(err)
	}
	fs.sweep(seen, func(string) bool { return false })
	if has("t1") || !has("t2") {
		t.Fatal("a sweep is to remove what had no container before it began")
	}
	seen = fs.begin()
	fs.sweep(seen, func(id string) bool { return id == "t2" })
	if !has("t2") {
		t.Fatal("files of a container are gone")
	}
	fs.drop("t2")
	if has("t2") {
		t.Fatal("files outlive their container")
	}
	if !fs.lost(errors.New("invalid mount config for type \"bind\": bind source path does not exist: "+fs.dir+"/t2/0")) ||
		fs.lost(errors.New("bind source path does not exist: /data")) {
		t.Error("which files are lost")
	}
	if err := fs.clear(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fs.dir); err == nil {
		t.Error("the directory stays")
	}
}

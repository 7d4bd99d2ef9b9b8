package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Secrets and configs are files in memory: a tmpfs of the host has a directory
// for each task, and each file of it is mounted into the task's container. They
// are there for as long as the container is, so that it can be started again by
// whoever may, with a daemon or without. After a reboot they are gone: the
// container can not start then, and its task is replaced.

// file is a secret or config as it is to be in a container.
type file struct {
	target   string
	uid, gid int
	mode     os.FileMode
	data     []byte
}

// compileFiles gives the files of a task. spec is the container's with its
// placeholders filled in. Errors name files, and never quote them.
func compileFiles(s *api.NodeState, a *api.Assignment, spec *swarm.ContainerSpec, values *api.Placeholders) ([]file, error) {
	x := fileSource{state: s, spec: spec, values: values}
	var files []file
	add := func(kind api.Kind, id, name, target, uid, gid string, mode os.FileMode) error {
		data, err := x.expanded(kind, id, name)
		if err != nil {
			return err
		}
		f := file{target: target, mode: mode.Perm(), data: data}
		if f.uid, f.gid, err = owner(uid, gid); err != nil {
			return refuse("%s %s: %v", kind, name, err)
		}
		files = append(files, f)
		return nil
	}
	for _, r := range spec.Secrets {
		if r.File == nil {
			return nil, refuse("secret %s: no target", r.SecretName)
		}
		if err := add(api.KindSecret, r.SecretID, r.SecretName, api.SecretPath(r.File.Name), r.File.UID, r.File.GID, r.File.Mode); err != nil {
			return nil, err
		}
	}
	for _, r := range spec.Configs {
		if r.File == nil {
			return nil, refuse("config %s: only files are supported as a target", r.ConfigName)
		}
		if err := add(api.KindConfig, r.ConfigID, r.ConfigName, api.ConfigPath(r.File.Name), r.File.UID, r.File.GID, r.File.Mode); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func owner(uid, gid string) (u, g int, err error) {
	for _, id := range []struct {
		text string
		to   *int
	}{{uid, &u}, {gid, &g}} {
		if id.text == "" {
			continue // root
		}
		n, err := strconv.ParseUint(id.text, 10, 31)
		if err != nil {
			return 0, 0, fmt.Errorf("owner %q is not a number", id.text)
		}
		*id.to = int(n)
	}
	return u, g, nil
}

// fileSource knows the data of a task's files.
type fileSource struct {
	state  *api.NodeState
	spec   *swarm.ContainerSpec
	values *api.Placeholders
}

// raw is a file's data as its user wrote it.
func (x *fileSource) raw(kind api.Kind, id, name string) (*api.File, []byte, error) {
	f := x.state.Files[id]
	if f == nil || f.Of != kind {
		return nil, nil, refuse("%s not found: %s", kind, name)
	}
	data, ok := f.Join(func(id string) (*api.Piece, bool) { p := x.state.Pieces[id]; return p, p != nil })
	if !ok {
		return nil, nil, refuse("%s %s is incomplete", kind, name)
	}
	return f, data, nil
}

// expanded is a file's data as it is to be in the container.
func (x *fileSource) expanded(kind api.Kind, id, name string) ([]byte, error) {
	f, data, err := x.raw(kind, id, name)
	if err != nil {
		return nil, err
	}
	if t := f.Spec.Templating; t == nil || t.Name == "" {
		return data, nil
	}
	data, err = x.values.Expand(data, api.Sources{
		Secret: func(target string) (string, error) {
			for _, r := range x.spec.Secrets {
				if r.File != nil && r.File.Name == target {
					return x.text(api.KindSecret, r.SecretID, r.SecretName)
				}
			}
			return "", api.Missing(api.KindSecret, target)
		},
		Config: func(target string) (string, error) {
			for _, r := range x.spec.Configs {
				if r.File != nil && r.File.Name == target {
					return x.text(api.KindConfig, r.ConfigID, r.ConfigName)
				}
			}
			return "", api.Missing(api.KindConfig, target)
		},
		Env: func(name string) string {
			for _, e := range x.spec.Env {
				if k, v, ok := strings.Cut(e, "="); ok && k == name {
					return v
				}
			}
			return ""
		},
	})
	if err != nil {
		return nil, refuse("%s %s: %v", kind, name, err)
	}
	return data, nil
}

// text is what a template gets of another file: the data as written, as in Swarm.
func (x *fileSource) text(kind api.Kind, id, name string) (string, error) {
	_, data, err := x.raw(kind, id, name)
	return string(data), err
}

// fileStore holds the files of tasks on this host.
type fileStore struct {
	dir string

	mu      sync.Mutex
	touched map[string]bool // tasks whose files were written since the last sweep began
}

func newFileStore(dir string) *fileStore { return &fileStore{dir: dir, touched: map[string]bool{}} }

// put writes the files of a task and gives their mounts.
func (fs *fileStore) put(taskID string, files []file) ([]mount.Mount, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.touched[taskID] = true
	if err := onTmpfs(fs.dir); err != nil {
		return nil, fmt.Errorf("prepare memory for secrets and configs: %w", err)
	}
	dir := filepath.Join(fs.dir, taskID)
	// What an earlier attempt left may be half of it, or another file's.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("prepare memory for secrets and configs: %w", err)
	}
	mounts := make([]mount.Mount, len(files))
	for i, f := range files {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := writeFile(name, f); err != nil {
			_ = os.RemoveAll(dir)
			return nil, fmt.Errorf("write the file for %s: %w", f.target, err)
		}
		mounts[i] = mount.Mount{Type: mount.TypeBind, Source: name, Target: f.target, ReadOnly: true}
	}
	return mounts, nil
}

// writeFile gives the file to its owner before it can be read by anybody.
func writeFile(name string, f file) error {
	if err := os.WriteFile(name, f.data, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chown(name, f.uid, f.gid), os.Chmod(name, f.mode))
}

// label gives the files of a task an SELinux label.
func (fs *fileStore) label(taskID, label string) error {
	dir := filepath.Join(fs.dir, taskID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("label secrets and configs: %w", err)
	}
	for _, f := range entries {
		if err := setLabel(filepath.Join(dir, f.Name()), label); err != nil {
			return fmt.Errorf("label secrets and configs for SELinux: %w", err)
		}
	}
	return nil
}

// drop removes the files of a task.
func (fs *fileStore) drop(taskID string) {
	if taskID == "" {
		return
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_ = os.RemoveAll(filepath.Join(fs.dir, taskID)) // what remains the next sweep removes
}

// clear removes everything.
func (fs *fileStore) clear() error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return removeTmpfs(fs.dir)
}

// begin notes which tasks have files, before containers are listed.
func (fs *fileStore) begin() []string {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	clear(fs.touched)
	entries, err := os.ReadDir(fs.dir)
	if err != nil {
		return nil // there are none
	}
	var tasks []string
	for _, e := range entries {
		tasks = append(tasks, e.Name())
	}
	return tasks
}

// sweep removes the files of those tasks that have no container. One that was
// written to since begin may be about to have one.
func (fs *fileStore) sweep(tasks []string, has func(taskID string) bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, id := range tasks {
		if !fs.touched[id] && !has(id) {
			_ = os.RemoveAll(filepath.Join(fs.dir, id))
		}
	}
}

// lost tells whether an engine's error means that a container's files are gone.
func (fs *fileStore) lost(err error) bool {
	text := err.Error()
	return strings.Contains(text, fs.dir+"/") &&
		(strings.Contains(text, "bind source path does not exist") || strings.Contains(text, "no such file or directory"))
}

package control

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Secret is one as clients see it: Docker's object, and which version it is if
// there were others.
type Secret struct {
	swarm.Secret
	Shoal *FileVersion `json:",omitempty"`
}

// ConfigFile is a config as clients see it.
type ConfigFile struct {
	swarm.Config
	Shoal *FileVersion `json:",omitempty"`
}

// FileVersion says which version of its name a file is.
type FileVersion struct {
	Version uint64
	Retired bool // a newer one has its name
}

func dockerSecret(f *api.File) Secret {
	spec := shownSpec(f)
	return Secret{
		Secret: swarm.Secret{ID: f.ID, Meta: f.Docker(), Spec: swarm.SecretSpec{Annotations: spec.Annotations, Templating: spec.Templating}},
		Shoal:  fileVersion(f),
	}
}

func dockerConfig(v *store.View, f *api.File) ConfigFile {
	spec := shownSpec(f)
	spec.Data = fileData(v, f)
	return ConfigFile{Config: swarm.Config{ID: f.ID, Meta: f.Docker(), Spec: spec}, Shoal: fileVersion(f)}
}

func shownSpec(f *api.File) swarm.ConfigSpec {
	spec := f.Spec
	spec.Name = shownName(f)
	return spec
}

func fileVersion(f *api.File) *FileVersion {
	if f.Number == 1 && !f.Retired {
		return nil
	}
	return &FileVersion{Version: f.Number, Retired: f.Retired}
}

// shownName is what a file is listed under. Clients find a file by its name, so
// that only one may have it.
func shownName(f *api.File) string {
	if f.Retired {
		return fmt.Sprintf("%s@%d", f.Spec.Name, f.Number)
	}
	return f.Spec.Name
}

func fileData(v *store.View, f *api.File) []byte {
	data, _ := f.Join(v.Pieces.Get) // a file is written with its last piece, and removed with all
	return data
}

// findFile knows versions as NAME@2, too, whether or not they are retired.
func findFile(v *store.View, kind api.Kind, ref string) (*api.File, error) {
	t := v.Files(kind)
	return find(t, kind, ref, func(yield func(*api.File) bool) {
		name, version, ok := strings.Cut(ref, "@")
		if !ok {
			t.By(store.ByName, ref)(yield)
			return
		}
		for f := range t.By(store.ByVersion, name) {
			if strconv.FormatUint(f.Number, 10) == version && !yield(f) {
				return
			}
		}
	})
}

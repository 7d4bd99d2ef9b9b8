package control

import (
	"path"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// fileRef is how a service uses a secret or config.
type fileRef struct {
	kind             api.Kind
	id, name         string
	target, uid, gid string
	file             bool // it is to be a file
}

func fileRefs(c *swarm.ContainerSpec) []fileRef {
	var refs []fileRef
	for _, r := range c.Secrets {
		ref := fileRef{kind: api.KindSecret}
		if r != nil {
			ref.id, ref.name = r.SecretID, r.SecretName
			if f := r.File; f != nil {
				ref.file, ref.target, ref.uid, ref.gid = true, f.Name, f.UID, f.GID
			}
		}
		refs = append(refs, ref)
	}
	for _, r := range c.Configs {
		ref := fileRef{kind: api.KindConfig}
		if r != nil {
			ref.id, ref.name = r.ConfigID, r.ConfigName
			if f := r.File; f != nil {
				ref.file, ref.target, ref.uid, ref.gid = true, f.Name, f.UID, f.GID
			}
		}
		refs = append(refs, ref)
	}
	return refs
}

// path is where the file is in the container.
func (r *fileRef) path() string {
	if r.kind == api.KindSecret {
		return api.SecretPath(r.target)
	}
	return api.ConfigPath(r.target)
}

// validateFileRefs checks how a container uses secrets and configs, by itself.
func validateFileRefs(c *swarm.ContainerSpec) error {
	for _, r := range c.Configs {
		if r != nil && r.Runtime != nil {
			return unsupported("config %s: a runtime target is", r.ConfigName)
		}
	}
	taken := map[string]fileRef{}
	for _, m := range c.Mounts {
		taken[path.Clean(m.Target)] = fileRef{}
	}
	for _, r := range fileRefs(c) {
		switch {
		case r.id == "" || r.name == "":
			return invalid("malformed %s reference", r.kind)
		case !r.file && r.kind == api.KindSecret:
			return invalid("malformed secret reference, no target provided")
		case !r.file:
			return invalid("malformed config reference, no target provided")
		case r.target == "" || strings.HasSuffix(r.target, "/") || r.path() == "/":
			return invalid("malformed file %s reference, invalid target file name provided", r.kind)
		}
		for what, id := range map[string]string{"uid": r.uid, "gid": r.gid} {
			if _, err := strconv.ParseUint(id, 10, 31); id != "" && err != nil {
				return invalid("%s %s: %s %q is not a number", r.kind, r.name, what, id)
			}
		}
		other, is := taken[r.path()]
		switch {
		case is && other.kind == "":
			return invalid("ContainerSpec: duplicate mount point: %s", r.path())
		case is && other.kind == r.kind:
			return invalid("%s references '%s' and '%s' have a conflicting target: '%s'", r.kind, other.name, r.name, r.target)
		case is:
			return invalid("%s '%s' and %s '%s' have a conflicting target: '%s'", other.kind, other.name, r.kind, r.name, r.path())
		}
		taken[r.path()] = r
	}
	return nil
}

// resolveFiles makes sure that what a service refers to is there, and stays until
// the service is written. The caller shares references.
func resolveFiles(tx *store.Tx, spec *swarm.ServiceSpec) error {
	lacking := map[api.Kind][]string{}
	for _, r := range fileRefs(spec.TaskTemplate.ContainerSpec) {
		if f, ok := tx.Files(r.kind).Get(r.id); ok {
			tx.Check(f)
		} else {
			lacking[r.kind] = append(lacking[r.kind], r.name)
		}
	}
	for _, kind := range []api.Kind{api.KindSecret, api.KindConfig} {
		switch names := lacking[kind]; len(names) {
		case 0:
		case 1:
			return invalid("%s not found: %s", kind, names[0])
		default:
			return invalid("%ss not found: %s", kind, strings.Join(names, ", "))
		}
	}
	return nil
}

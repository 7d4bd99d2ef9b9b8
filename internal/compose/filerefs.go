package compose

import (
	"errors"
	"os"
	"sort"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/swarm"
)

// fileRef is where a secret or config becomes a file.
type fileRef struct {
	name, target, uid, gid string
	mode                   os.FileMode
}

func (c converter) reference(path string, f types.FileReferenceConfig, object types.FileObjectConfig) fileRef {
	r := fileRef{name: c.objectName(f.Source, object), target: f.Target, uid: f.UID, gid: f.GID, mode: 0o444}
	if r.target == "" {
		r.target = f.Source
	}
	if r.uid == "" {
		r.uid = "0"
	}
	if r.gid == "" {
		r.gid = "0"
	}
	if f.Mode != nil {
		r.mode = os.FileMode(*f.Mode)
	}
	return r
}

func (c converter) secretReferences(path string, files []types.ServiceSecretConfig) ([]*swarm.SecretReference, error) {
	var list []*swarm.SecretReference
	var wrong error
	for _, f := range files {
		object, ok := c.model.Secrets[f.Source]
		if !ok {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".secrets", "undefined secret %q", f.Source))
			continue
		}
		r := c.reference(path, types.FileReferenceConfig(f), types.FileObjectConfig(object))
		list = append(list, &swarm.SecretReference{
			SecretName: r.name,
			File:       &swarm.SecretReferenceFileTarget{Name: r.target, UID: r.uid, GID: r.gid, Mode: r.mode},
		})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].SecretName < list[j].SecretName })
	return list, wrong
}

func (c converter) configReferences(path string, s types.ServiceConfig) ([]*swarm.ConfigReference, error) {
	var list []*swarm.ConfigReference
	var wrong error
	for _, f := range s.Configs {
		object, ok := c.model.Configs[f.Source]
		if !ok {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".configs", "undefined config %q", f.Source))
			continue
		}
		r := c.reference(path, types.FileReferenceConfig(f), types.FileObjectConfig(object))
		list = append(list, &swarm.ConfigReference{
			ConfigName: r.name,
			File:       &swarm.ConfigReferenceFileTarget{Name: r.target, UID: r.uid, GID: r.gid, Mode: r.mode},
		})
	}
	if s.CredentialSpec != nil && s.CredentialSpec.Config != "" {
		object, ok := c.model.Configs[s.CredentialSpec.Config]
		if !ok {
			wrong = errors.Join(wrong, c.checker.errorAt(path+".credential_spec.config", "undefined config %q", s.CredentialSpec.Config))
		}
		list = append(list, &swarm.ConfigReference{
			ConfigName: c.objectName(s.CredentialSpec.Config, types.FileObjectConfig(object)),
			Runtime:    &swarm.ConfigReferenceRuntimeTarget{},
		})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].ConfigName < list[j].ConfigName })
	return list, wrong
}

// credentialSpec names the config by what the cluster calls it; the ID takes its place once it is known.
func (c converter) credentialSpec(path string, s *types.CredentialSpecConfig) (*swarm.CredentialSpec, error) {
	if s == nil {
		return nil, nil
	}
	given := 0
	for _, value := range []string{s.Config, s.File, s.Registry} {
		if value != "" {
			given++
		}
	}
	if given > 1 {
		return nil, c.checker.errorAt(path+".credential_spec", "cannot specify more than one of config, file and registry")
	}
	out := &swarm.CredentialSpec{File: s.File, Registry: s.Registry}
	if s.Config != "" {
		out.Config = c.objectName(s.Config, types.FileObjectConfig(c.model.Configs[s.Config]))
	}
	return out, nil
}

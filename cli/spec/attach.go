package spec

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/docker/docker/api/types/swarm"
)

// Secrets turns files into references, with the IDs by name that the server gave.
func Secrets(files []File, ids map[string]string) ([]*swarm.SecretReference, error) {
	var refs []*swarm.SecretReference
	targets := map[string]bool{}
	for _, f := range files {
		if targets[f.Target] {
			return nil, fmt.Errorf("duplicate secret target for %s not allowed", f.Source)
		}
		targets[f.Target] = true
		id, ok := ids[f.Source]
		if !ok {
			return nil, fmt.Errorf("secret not found: %s", f.Source)
		}
		refs = append(refs, &swarm.SecretReference{
			File:     &swarm.SecretReferenceFileTarget{Name: f.Target, UID: f.UID, GID: f.GID, Mode: f.Mode},
			SecretID: id, SecretName: f.Source,
		})
	}
	return refs, nil
}

// Configs turns files into references, with the IDs by name that the server gave.
func Configs(files []File, ids map[string]string) ([]*swarm.ConfigReference, error) {
	var refs []*swarm.ConfigReference
	targets := map[string]bool{}
	for _, f := range files {
		if targets[f.Target] {
			return nil, fmt.Errorf("duplicate config target for %s not allowed", f.Source)
		}
		targets[f.Target] = true
		id, ok := ids[f.Source]
		if !ok {
			return nil, fmt.Errorf("config not found: %s", f.Source)
		}
		refs = append(refs, &swarm.ConfigReference{
			File:     &swarm.ConfigReferenceFileTarget{Name: f.Target, UID: f.UID, GID: f.GID, Mode: f.Mode},
			ConfigID: id, ConfigName: f.Source,
		})
	}
	return refs, nil
}

// EditSecrets removes references by name, and adds.
func EditSecrets(old, added []*swarm.SecretReference, gone []string) []*swarm.SecretReference {
	kept := slices.DeleteFunc(slices.Clone(old), func(r *swarm.SecretReference) bool { return slices.Contains(gone, r.SecretName) })
	return append(kept, added...)
}

// EditConfigs removes references by name, and adds.
func EditConfigs(old, added []*swarm.ConfigReference, gone []string) []*swarm.ConfigReference {
	kept := slices.DeleteFunc(slices.Clone(old), func(r *swarm.ConfigReference) bool { return slices.Contains(gone, r.ConfigName) })
	return append(kept, added...)
}

// EditNetworks removes attachments by network ID, and adds. All are IDs; names has what the user called those added.
func EditNetworks(old, added []swarm.NetworkAttachmentConfig, gone []string, names map[string]string) ([]swarm.NetworkAttachmentConfig, error) {
	out := slices.DeleteFunc(slices.Clone(old), func(n swarm.NetworkAttachmentConfig) bool { return slices.Contains(gone, n.Target) })
	for _, n := range added {
		if slices.ContainsFunc(out, func(have swarm.NetworkAttachmentConfig) bool { return have.Target == n.Target }) {
			return nil, fmt.Errorf("service is already attached to network %s", names[n.Target])
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b swarm.NetworkAttachmentConfig) int { return cmp.Compare(a.Target, b.Target) })
	return out, nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/flags"
	"shoal/cli/spec"
)

func (s *session) serviceCreate(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	service, err := spec.Create(in.Set, in.args)
	if err != nil {
		return err
	}
	task := &service.TaskTemplate
	if err := s.networkIDs(ctx, task.Networks); err != nil {
		return err
	}
	if task.ContainerSpec.Secrets, err = s.secrets(ctx, flags.Get[[]spec.File](in.Set, "secret")); err != nil {
		return err
	}
	if task.ContainerSpec.Configs, err = s.configs(ctx, flags.Get[[]spec.File](in.Set, "config")); err != nil {
		return err
	}
	if err := s.credentialSpec(ctx, task.ContainerSpec); err != nil {
		return err
	}
	var options swarm.ServiceCreateOptions
	if in.Bool("with-registry-auth") {
		if options.EncodedRegistryAuth, err = registryAuth(ctx, task.ContainerSpec.Image); err != nil {
			return err
		}
	}
	var unpinned []string
	if !in.Bool("no-resolve-image") {
		unpinned = s.pin(ctx, task, options.EncodedRegistryAuth)
	}
	response, err := api.ServiceCreate(ctx, service, options)
	if err != nil {
		return err
	}
	s.warn(append(unpinned, response.Warnings...))
	fmt.Fprintln(s.out, response.ID)
	if in.Bool("detach") {
		return nil
	}
	return s.wait(ctx, response.ID, orDefault(service.Name, response.ID), in.Bool("quiet"))
}

func (s *session) serviceUpdate(ctx context.Context, in input) error {
	name := in.args[0]
	var options swarm.ServiceUpdateOptions
	var unpinned []string
	same := unchanged()
	id, _, err := s.changeService(ctx, name, &options, func(now *swarm.Service) (_ string, err error) {
		if in.Bool("rollback") {
			if err := errors.Join(onlyRollback(in.Set), same(now)); err != nil {
				return "", err
			}
			options.Rollback = "previous"
		} else {
			if err := spec.Update(in.Set, &now.Spec); err != nil {
				return "", err
			}
			if err := s.updateReferences(ctx, in.Set, &now.Spec.TaskTemplate); err != nil {
				return "", err
			}
		}
		task := &now.Spec.TaskTemplate
		if in.Bool("with-registry-auth") {
			if options.EncodedRegistryAuth, err = registryAuth(ctx, task.ContainerSpec.Image); err != nil {
				return "", err
			}
		} else {
			// The credentials kept with the present spec go on being used.
			options.RegistryAuthFrom = swarm.RegistryAuthFromSpec
		}
		if in.Changed("image") && !in.Bool("no-resolve-image") {
			unpinned = s.pin(ctx, task, options.EncodedRegistryAuth)
		}
		return "", nil
	})
	s.warn(unpinned)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, name)
	if in.Bool("detach") {
		return nil
	}
	return s.wait(ctx, id, name, in.Bool("quiet"))
}

// onlyRollback refuses flags that would change the spec which a rollback is about to throw away.
func onlyRollback(f flags.Set) error {
	for _, flag := range f {
		switch flag.Long {
		case "rollback", "detach", "quiet", "with-registry-auth":
		default:
			if flag.IsSet() {
				return errors.New("other flags may not be combined with --rollback")
			}
		}
	}
	return nil
}

// updateReferences applies the flags that name other objects of the cluster.
func (s *session) updateReferences(ctx context.Context, f flags.Set, task *swarm.TaskSpec) error {
	c := task.ContainerSpec
	if f.AnyChanged("secret-add", "secret-rm") {
		added, err := s.secrets(ctx, flags.Get[[]spec.File](f, "secret-add"))
		if err != nil {
			return err
		}
		c.Secrets = spec.EditSecrets(c.Secrets, added, f.List("secret-rm"))
	}
	if f.AnyChanged("config-add", "config-rm") {
		added, err := s.configs(ctx, flags.Get[[]spec.File](f, "config-add"))
		if err != nil {
			return err
		}
		c.Configs = spec.EditConfigs(c.Configs, added, f.List("config-rm"))
	}
	if f.Changed("credential-spec") {
		if err := s.credentialSpec(ctx, c); err != nil {
			return err
		}
	}
	if !f.AnyChanged("network-add", "network-rm") {
		return nil
	}
	added := flags.Get[[]swarm.NetworkAttachmentConfig](f, "network-add")
	called := make([]string, len(added))
	for i, n := range added {
		called[i] = n.Target
	}
	if err := s.networkIDs(ctx, added); err != nil {
		return err
	}
	names := map[string]string{}
	for i, n := range added {
		names[n.Target] = called[i]
	}
	var gone []swarm.NetworkAttachmentConfig
	for _, name := range f.List("network-rm") {
		gone = append(gone, swarm.NetworkAttachmentConfig{Target: name})
	}
	if err := s.networkIDs(ctx, gone); err != nil {
		return err
	}
	var ids []string
	for _, n := range gone {
		ids = append(ids, n.Target)
	}
	networks, err := spec.EditNetworks(task.Networks, added, ids, names)
	task.Networks = networks
	return err
}

// networkIDs replaces the names of networks by their IDs.
func (s *session) networkIDs(ctx context.Context, networks []swarm.NetworkAttachmentConfig) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	for i := range networks {
		found, err := api.NetworkInspect(ctx, networks[i].Target, network.InspectOptions{Scope: "swarm"})
		if err != nil {
			return err
		}
		networks[i].Target = found.ID
	}
	return nil
}

// networkNames is the reverse of networkIDs, for showing. An ID that is not known stays.
func (s *session) networkNames(ctx context.Context, service swarm.Service) map[string]string {
	names := map[string]string{}
	for _, n := range service.Spec.TaskTemplate.Networks {
		names[n.Target] = n.Target
		if found, err := s.conn.NetworkInspect(ctx, n.Target, network.InspectOptions{Scope: "swarm"}); err == nil {
			names[n.Target] = found.Name
		}
	}
	return names
}

func (s *session) secrets(ctx context.Context, files []spec.File) ([]*swarm.SecretReference, error) {
	if len(files) == 0 {
		return nil, nil
	}
	api, err := s.api()
	if err != nil {
		return nil, err
	}
	found, err := api.SecretList(ctx, swarm.SecretListOptions{Filters: named(files)})
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, secret := range found {
		ids[secret.Spec.Name] = secret.ID
	}
	return spec.Secrets(files, ids)
}

func (s *session) configs(ctx context.Context, files []spec.File) ([]*swarm.ConfigReference, error) {
	if len(files) == 0 {
		return nil, nil
	}
	ids, err := s.configIDs(ctx, named(files))
	if err != nil {
		return nil, err
	}
	return spec.Configs(files, ids)
}

func (s *session) configIDs(ctx context.Context, which filters.Args) (map[string]string, error) {
	api, err := s.api()
	if err != nil {
		return nil, err
	}
	found, err := api.ConfigList(ctx, swarm.ConfigListOptions{Filters: which})
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, config := range found {
		ids[config.Spec.Name] = config.ID
	}
	return ids, nil
}

// credentialSpec replaces the name of the config that a credential spec is in by its ID, and gives the container the
// config without a file.
func (s *session) credentialSpec(ctx context.Context, c *swarm.ContainerSpec) error {
	if c.Privileges == nil || c.Privileges.CredentialSpec == nil || c.Privileges.CredentialSpec.Config == "" {
		return nil
	}
	name := c.Privileges.CredentialSpec.Config
	ids, err := s.configIDs(ctx, filters.NewArgs(filters.Arg("name", name)))
	if err != nil {
		return err
	}
	id, ok := ids[name]
	if !ok {
		return fmt.Errorf("config not found: %s", name)
	}
	c.Privileges.CredentialSpec.Config = id
	c.Configs = append(c.Configs, &swarm.ConfigReference{Runtime: &swarm.ConfigReferenceRuntimeTarget{}, ConfigID: id, ConfigName: name})
	return nil
}

// named filters by name. The server matches prefixes; the caller picks the exact one.
func named(files []spec.File) filters.Args {
	args := filters.NewArgs()
	for _, f := range files {
		args.Add("name", f.Source)
	}
	return args
}

// resolveTimeout bounds the question to the registry. Creating a service does not need the answer, and an engine
// without a way out takes half a minute to notice.
const resolveTimeout = 10 * time.Second

// pin replaces the image's tag by the digest it has now, so that all nodes run the same image. If the registry does
// not say, the image stays as it is, and the user is told once the service is made.
func (s *session) pin(ctx context.Context, task *swarm.TaskSpec, auth string) (warnings []string) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	named, err := reference.ParseNormalizedNamed(task.ContainerSpec.Image)
	if err != nil {
		return nil // the server refuses it with a better message
	}
	named = reference.TagNameOnly(named)
	image := reference.FamiliarString(named)
	found, err := s.conn.DistributionInspect(ctx, image, auth)
	if client.IsErrConnectionFailed(err) {
		return nil // the request that matters is about to say so
	}
	if err != nil {
		return []string{fmt.Sprintf("image %s could not be accessed on a registry to record\nits digest. Each node will access %s independently,\npossibly leading to different nodes running different\nversions of the image.\n", image, image)}
	}
	if _, pinned := named.(reference.Canonical); !pinned {
		if canonical, err := reference.WithDigest(named, found.Descriptor.Digest); err == nil {
			task.ContainerSpec.Image = reference.FamiliarString(canonical)
		}
	}
	var platforms []swarm.Platform
	for _, p := range found.Platforms {
		arch := p.Architecture
		// Images say "arm" and nodes say which arm, so the two would never match.
		if strings.EqualFold(arch, "arm") {
			arch = ""
		}
		platforms = append(platforms, swarm.Platform{Architecture: arch, OS: p.OS})
	}
	if len(platforms) > 0 {
		if task.Placement == nil {
			task.Placement = &swarm.Placement{}
		}
		task.Placement.Platforms = platforms
	}
	return nil
}

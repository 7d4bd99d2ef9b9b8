package cli

import (
	"context"
	"errors"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/flags"
)

func (s *session) secretCommands() []leaf {
	n := s.secretNoun()
	return s.fileCommands(n, leaf{
		name: "create", args: "SECRET [file|-]", usage: "Create a secret from a file or STDIN as content",
		flags: append(fileFlags(n.kind), flags.Text("driver", "d", "Secret driver")), arity: arity{1, 2},
		run: func(ctx context.Context, in input) error { return s.secretCreate(ctx, n, in) },
	})
}

func (s *session) secretCreate(ctx context.Context, n fileNoun, in input) error {
	driver := in.Text("driver") != ""
	switch {
	case driver && len(in.args) == 2:
		return errors.New("when using secret driver secret data must be empty")
	case driver:
		_, err := n.create(ctx, in, nil) // the daemon says that it knows none
		return err
	case len(in.args) == 1:
		return errors.New("secret file is required")
	}
	return s.fileCreate(ctx, n, in, in.args[1])
}

func (s *session) secretNoun() fileNoun {
	return fileNoun{
		kind: "secret",
		create: func(ctx context.Context, in input, data []byte) (string, error) {
			api, err := s.api()
			if err != nil {
				return "", err
			}
			spec := swarm.SecretSpec{
				Annotations: swarm.Annotations{Name: in.args[0], Labels: labels(in)}, Data: data, Templating: templating(in),
			}
			if driver := in.Text("driver"); driver != "" {
				spec.Driver = &swarm.Driver{Name: driver}
			}
			made, err := api.SecretCreate(ctx, spec)
			return made.ID, err
		},
		list: func(ctx context.Context, which filters.Args) ([]file, error) {
			var found []swarm.Secret
			err := s.withVersions(ctx, "secrets", which, &found)
			var files []file
			for _, secret := range found {
				files = append(files, secretFile(secret))
			}
			return files, err
		},
		inspect: func(ctx context.Context, name string) (file, []byte, error) {
			api, err := s.api()
			if err != nil {
				return file{}, nil, err
			}
			secret, raw, err := api.SecretInspectWithRaw(ctx, name)
			return secretFile(secret), raw, err
		},
		remove: func(ctx context.Context, name string) error {
			api, err := s.api()
			if err != nil {
				return err
			}
			return api.SecretRemove(ctx, name)
		},
	}
}

func secretFile(secret swarm.Secret) file {
	f := file{object: secret, id: secret.ID, Meta: secret.Meta, Annotations: secret.Spec.Annotations}
	if secret.Spec.Driver != nil {
		f.driver = secret.Spec.Driver.Name
	}
	return f
}

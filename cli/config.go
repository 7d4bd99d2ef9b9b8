package cli

import (
	"context"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

func (s *session) configCommands() []leaf {
	n := s.configNoun()
	return s.fileCommands(n, leaf{
		name: "create", args: "CONFIG file|-", usage: "Create a config from a file or STDIN",
		flags: fileFlags(n.kind), arity: arity{2, 2},
		run: func(ctx context.Context, in input) error { return s.fileCreate(ctx, n, in, in.args[1]) },
	})
}

func (s *session) configNoun() fileNoun {
	return fileNoun{
		kind: "config",
		create: func(ctx context.Context, in input, data []byte) (string, error) {
			api, err := s.api()
			if err != nil {
				return "", err
			}
			made, err := api.ConfigCreate(ctx, swarm.ConfigSpec{
				Annotations: swarm.Annotations{Name: in.args[0], Labels: labels(in)}, Data: data, Templating: templating(in),
			})
			return made.ID, err
		},
		list: func(ctx context.Context, which filters.Args) ([]file, error) {
			var found []swarm.Config
			err := s.withVersions(ctx, "configs", which, &found)
			var files []file
			for _, config := range found {
				files = append(files, configFile(config))
			}
			return files, err
		},
		inspect: func(ctx context.Context, name string) (file, []byte, error) {
			api, err := s.api()
			if err != nil {
				return file{}, nil, err
			}
			config, raw, err := api.ConfigInspectWithRaw(ctx, name)
			return configFile(config), raw, err
		},
		remove: func(ctx context.Context, name string) error {
			api, err := s.api()
			if err != nil {
				return err
			}
			return api.ConfigRemove(ctx, name)
		},
	}
}

func configFile(config swarm.Config) file {
	return file{object: config, id: config.ID, Meta: config.Meta, Annotations: config.Spec.Annotations, data: config.Spec.Data}
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	containertypes "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// container is one running task as the engine of its host sees it.
type container struct {
	host *testbed.Host
	id   string
	name string // service.slot.task ID
}

// slot is the part of the name that a replacement shares, as in web.1.
func (c container) slot() string {
	service, rest, _ := strings.Cut(c.name, ".")
	slot, _, _ := strings.Cut(rest, ".")
	return service + "." + slot
}

// containers are the service's running ones, over all hosts, by name.
func (s *story) containers(ctx context.Context) ([]container, error) {
	var found []container
	for _, h := range s.bed.Hosts() {
		engine, err := h.Engine()
		if err != nil {
			return nil, err
		}
		list, err := engine.ContainerList(ctx, containertypes.ListOptions{
			Filters: filters.NewArgs(filters.Arg("label", "com.docker.swarm.service.name=web")),
		})
		engine.Close()
		if err != nil {
			return nil, fmt.Errorf("list the containers of %s: %w", h.Name, err)
		}
		for _, c := range list {
			found = append(found, container{host: h, id: c.ID, name: strings.TrimPrefix(c.Names[0], "/")})
		}
	}
	slices.SortFunc(found, func(a, b container) int { return cmp.Compare(a.name, b.name) })
	return found, nil
}

// tasks maps a container's host name, which the web server reports, to the
// task's name.
func (s *story) tasks(ctx context.Context) (map[string]string, error) {
	list, err := s.containers(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(list))
	for _, c := range list {
		names[c.id[:12]] = c.slot()
	}
	return names, nil
}

// replacement waits until another task runs in the place of a dead one, and
// the managers know it.
func (s *story) replacement(ctx context.Context, dead container) (container, error) {
	api, err := s.first().API()
	if err != nil {
		return container{}, err
	}
	defer api.Close()
	var found container
	err = testbed.Poll(ctx, settle, func() error {
		running, err := s.containers(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(running, func(c container) bool { return c.slot() == dead.slot() && c.id != dead.id })
		if i < 0 {
			return fmt.Errorf("nothing runs in the place of %s", dead.name)
		}
		found = running[i]
		task, _, err := api.TaskInspectWithRaw(ctx, found.name[strings.LastIndexByte(found.name, '.')+1:])
		if err != nil {
			return err
		}
		if task.Status.State != swarm.TaskStateRunning {
			return fmt.Errorf("%s is %s", found.name, task.Status.State)
		}
		return nil
	})
	return found, err
}

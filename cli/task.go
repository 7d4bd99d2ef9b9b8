package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stringid"
	"github.com/docker/go-units"

	"shoal/cli/flags"
	"shoal/cli/format"
)

func taskFlags() flags.Set {
	return flags.Set{
		flags.Filters("Filter output based on conditions provided"),
		flags.Text("format", "", format.Usage),
		flags.Bool("no-resolve", "", "Do not map IDs to Names"),
		flags.Bool("no-trunc", "", "Do not truncate output"),
		flags.Bool("quiet", "q", "Only display task IDs"),
	}
}

// resolver turns IDs into names, each asked for once.
type resolver struct {
	s     *session
	names map[string]string
	off   bool // --no-resolve
}

func (s *session) resolver(off bool) *resolver {
	return &resolver{s: s, names: map[string]string{}, off: off}
}

func (r *resolver) lookup(id string, ask func() (string, error)) string {
	if r.off || id == "" {
		return id
	}
	if name, ok := r.names[id]; ok {
		return name
	}
	name, err := ask()
	if err != nil || name == "" {
		// What an ID belonged to may be gone; the ID is then all there is to say.
		name = id
	}
	r.names[id] = name
	return name
}

func (r *resolver) service(ctx context.Context, id string) string {
	return r.lookup(id, func() (string, error) {
		service, _, err := r.s.conn.ServiceInspectWithRaw(ctx, id, swarm.ServiceInspectOptions{})
		return service.Spec.Name, err
	})
}

func (r *resolver) node(ctx context.Context, id string) string {
	return r.lookup(id, func() (string, error) {
		node, _, err := r.s.conn.NodeInspectWithRaw(ctx, id)
		if node.Spec.Name != "" {
			return node.Spec.Name, err
		}
		return node.Description.Hostname, err
	})
}

// task is what a task is called: service.slot, or service.node for one that runs on every node.
func (r *resolver) task(ctx context.Context, t swarm.Task) string {
	name := r.service(ctx, t.ServiceID)
	if t.Slot != 0 {
		return fmt.Sprintf("%s.%d", name, t.Slot)
	}
	return fmt.Sprintf("%s.%s", name, t.NodeID)
}

func (s *session) serviceTasks(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	ids, missing, err := s.serviceIDs(ctx, in.args)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return errors.Join(missing...)
	}
	which, err := s.taskFilters(ctx, in)
	if err != nil {
		return err
	}
	for _, id := range ids {
		which.Add("service", id)
	}
	tasks, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: which})
	if err != nil {
		return err
	}
	if err := s.printTasks(ctx, in, tasks, false); err != nil {
		return err
	}
	return errors.Join(missing...)
}

// serviceIDs finds services by name, ID or the beginning of an ID. What is not found does not hide the rest.
func (s *session) serviceIDs(ctx context.Context, names []string) (ids []string, missing []error, err error) {
	byID, byName := filters.NewArgs(), filters.NewArgs()
	for _, name := range names {
		byID.Add("id", name)
		byName.Add("name", name)
	}
	var found []swarm.Service
	for _, which := range []filters.Args{byID, byName} {
		services, err := s.conn.ServiceList(ctx, swarm.ServiceListOptions{Filters: which})
		if err != nil {
			return nil, nil, err
		}
		found = append(found, services...)
	}
	for _, name := range names {
		id, err := pickService(found, name)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, missing, nil
}

func pickService(found []swarm.Service, name string) (string, error) {
	var prefixed []string
	for _, service := range found {
		if service.ID == name || service.Spec.Name == name {
			return service.ID, nil
		}
		if strings.HasPrefix(service.ID, name) && !slices.Contains(prefixed, service.ID) {
			prefixed = append(prefixed, service.ID)
		}
	}
	switch len(prefixed) {
	case 0:
		return "", fmt.Errorf("no such service: %s", name)
	case 1:
		return prefixed[0], nil
	}
	return "", fmt.Errorf("multiple services found with provided prefix: %s", name)
}

// taskFilters are those of --filter, with node=self made out.
func (s *session) taskFilters(ctx context.Context, in input) (filters.Args, error) {
	which := in.Filters()
	for _, node := range which.Get("node") {
		id, err := s.nodeReference(ctx, node)
		if err != nil {
			return which, err
		}
		which.Del("node", node)
		which.Add("node", id)
	}
	return which, nil
}

// printTasks prints what service ps and node ps show. Only node ps shortens the IDs of --quiet, as in Docker.
func (s *session) printTasks(ctx context.Context, in input, tasks []swarm.Task, shortIDs bool) error {
	view := taskView{names: s.resolver(in.Bool("no-resolve")), full: in.Bool("no-trunc"), shortIDs: true}
	how := listFormat(in, "{{.ID}}")
	if how == "{{.ID}}" {
		view.shortIDs = shortIDs
	}
	// In the table, earlier tasks of a slot hang below the present one.
	view.tree = how == "" || strings.HasPrefix(strings.TrimSpace(how), "table")
	return view.table(ctx, tasks).Write(s.out, how)
}

// taskView is how tasks are to be shown.
type taskView struct {
	names    *resolver
	full     bool // --no-trunc
	shortIDs bool
	tree     bool
}

func (v taskView) table(ctx context.Context, tasks []swarm.Task) format.Table {
	t := format.Table{
		Headers: map[string]string{
			"ID": "ID", "Name": "NAME", "Image": "IMAGE", "Node": "NODE", "DesiredState": "DESIRED STATE",
			"CurrentState": "CURRENT STATE", "Error": "ERROR", "Ports": "PORTS",
		},
		Default: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
	}
	called := make(map[string]string, len(tasks))
	for _, task := range tasks {
		called[task.ID] = v.names.task(ctx, task)
	}
	slices.SortStableFunc(tasks, func(a, b swarm.Task) int {
		if c := naturally(called[a.ID], called[b.ID]); c != 0 {
			return c
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	previous := ""
	for _, task := range tasks {
		name := called[task.ID]
		if v.tree && name == previous {
			name = ` \_ ` + name
		} else {
			previous = name
		}
		t.Rows = append(t.Rows, v.row(ctx, task, name))
	}
	return t
}

func (v taskView) row(ctx context.Context, task swarm.Task, name string) format.Row {
	id, image, failure := task.ID, "", task.Status.Err
	if c := task.Spec.ContainerSpec; c != nil {
		image = c.Image
	}
	if !v.full {
		image, failure = withoutDigest(image), shorten(failure, 30)
		if v.shortIDs {
			id = stringid.TruncateID(id)
		}
	}
	if failure != "" {
		failure = `"` + failure + `"`
	}
	return format.Row{
		"ID": id, "Name": name, "Image": image, "Node": v.names.node(ctx, task.NodeID),
		"DesiredState": title(task.DesiredState),
		"CurrentState": fmt.Sprintf("%s %s ago", title(task.Status.State), strings.ToLower(units.HumanDuration(time.Since(task.Status.Timestamp)))),
		"Error":        failure,
		"Ports":        taskPorts(task.Status.PortStatus.Ports),
	}
}

// taskPorts shows what a task publishes on its own node.
func taskPorts(ports []swarm.PortConfig) string {
	var out []string
	for _, p := range ports {
		out = append(out, fmt.Sprintf("*:%d->%d/%s", p.PublishedPort, p.TargetPort, p.Protocol))
	}
	return strings.Join(out, ",")
}

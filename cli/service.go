package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stringid"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/cli/spec"
)

func (s *session) serviceCommands() []leaf {
	return append(s.powerCommands(), []leaf{
		{name: "create", args: "IMAGE [COMMAND] [ARG...]", usage: "Create a new service", flags: spec.CreateFlags(), arity: atLeastOne, verbatim: true, run: s.serviceCreate},
		{
			name: "inspect", args: "SERVICE [SERVICE...]", usage: "Display detailed information on one or more services",
			flags: inspectFlags(), arity: atLeastOne, run: s.serviceInspect,
		},
		s.explainCommand(),
		s.historyCommand(),
		{name: "logs", args: "SERVICE|TASK", usage: "Fetch the logs of a service or task", flags: logsFlags(), arity: one, run: s.serviceLogs},
		{name: "ls", aliases: []string{"list"}, usage: "List services", flags: listFlags(), arity: none, run: s.serviceList},
		{name: "ps", args: "SERVICE [SERVICE...]", usage: "List the tasks of one or more services", flags: taskFlags(), arity: atLeastOne, run: s.serviceTasks},
		{name: "rm", aliases: []string{"remove"}, args: "SERVICE [SERVICE...]", usage: "Remove one or more services", arity: atLeastOne, run: s.serviceRemove},
		{
			name: "rollback", args: "SERVICE", usage: "Revert changes to a service's configuration",
			flags: append(waitFlags(), flags.Text("to", "", "Go back to this revision (number or name) instead of the previous one")),
			arity: one, run: s.serviceRollback,
		},
		{
			name: "scale", args: "SERVICE=REPLICAS [SERVICE=REPLICAS...]", usage: "Scale one or multiple replicated services",
			flags: flags.Set{waitFlags().Lookup("detach")}, arity: atLeastOne, run: s.serviceScale,
		},
		{name: "update", args: "SERVICE", usage: "Update a service", flags: spec.UpdateFlags(), arity: one, run: s.serviceUpdate},
	}...)
}

func listFlags() flags.Set {
	return flags.Set{
		flags.Filters("Filter output based on conditions provided"),
		flags.Text("format", "", format.Usage),
		flags.Bool("quiet", "q", "Only display IDs"),
	}
}

func inspectFlags() flags.Set {
	return flags.Set{
		flags.Text("format", "f", format.InspectUsage),
		flags.Bool("pretty", "", "Print the information in a human friendly format"),
	}
}

func waitFlags() flags.Set {
	return flags.Set{
		flags.Bool("detach", "d", "Exit immediately instead of waiting for the service to converge"),
		flags.Bool("quiet", "q", "Suppress progress output"),
	}
}

func (s *session) serviceList(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	// Counting tasks costs the server something; IDs need no counts.
	services, err := api.ServiceList(ctx, swarm.ServiceListOptions{Filters: in.Filters(), Status: !in.Bool("quiet") || in.Changed("format")})
	if err != nil {
		return err
	}
	slices.SortStableFunc(services, func(a, b swarm.Service) int { return naturally(a.Spec.Name, b.Spec.Name) })
	return serviceTable(services).Write(s.out, listFormat(in, "{{.ID}}"))
}

// listFormat is --format, or else what --quiet shows.
func listFormat(in input, quiet string) string {
	if !in.Changed("format") && in.Bool("quiet") {
		return quiet
	}
	return in.Text("format")
}

func serviceTable(services []swarm.Service) format.Table {
	t := format.Table{
		Headers: map[string]string{"ID": "ID", "Name": "NAME", "Mode": "MODE", "Replicas": "REPLICAS", "Image": "IMAGE", "Ports": "PORTS"},
		Default: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
	}
	for _, service := range services {
		image := ""
		if c := service.Spec.TaskTemplate.ContainerSpec; c != nil {
			image = withoutDigest(c.Image)
		}
		t.Rows = append(t.Rows, format.Row{
			"ID": stringid.TruncateID(service.ID), "Name": service.Spec.Name, "Mode": modeName(service.Spec.Mode),
			"Replicas": replicas(service), "Image": image, "Ports": ingressPorts(service.Endpoint.Ports),
		})
	}
	return t
}

func modeName(m swarm.ServiceMode) string {
	switch {
	case m.Global != nil:
		return "global"
	case m.ReplicatedJob != nil:
		return "replicated job"
	case m.GlobalJob != nil:
		return "global job"
	case m.Replicated != nil:
		return "replicated"
	}
	return ""
}

func replicas(service swarm.Service) string {
	var st swarm.ServiceStatus
	if service.ServiceStatus != nil {
		st = *service.ServiceStatus
	}
	stop := stopped(service.Spec)
	if r := service.Spec.Mode.Replicated; stop && r != nil && r.Replicas != nil {
		st.DesiredTasks = *r.Replicas
	}
	text := fmt.Sprintf("%d/%d", st.RunningTasks, st.DesiredTasks)
	if stop {
		text += " (stopped)"
	}
	switch mode := service.Spec.Mode; {
	case mode.ReplicatedJob != nil && mode.ReplicatedJob.TotalCompletions != nil:
		text += fmt.Sprintf(" (%d/%d completed)", st.CompletedTasks, *mode.ReplicatedJob.TotalCompletions)
	case mode.GlobalJob != nil:
		text += fmt.Sprintf(" (%d/%d completed)", st.CompletedTasks, st.DesiredTasks+st.CompletedTasks)
	}
	if p := service.Spec.TaskTemplate.Placement; p != nil && p.MaxReplicas > 0 && service.Spec.Mode.Global == nil && service.Spec.Mode.GlobalJob == nil {
		text += fmt.Sprintf(" (max %d per node)", p.MaxReplicas)
	}
	return text
}

// withoutDigest is the image as people name it: a tag without the digest it was pinned to.
func withoutDigest(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	if tagged, ok := ref.(reference.NamedTagged); ok {
		if plain, err := reference.WithTag(reference.TrimNamed(ref), tagged.Tag()); err == nil {
			return reference.FamiliarString(plain)
		}
	}
	return image
}

func (s *session) serviceRemove(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range in.args {
		if err := api.ServiceRemove(ctx, name); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(s.out, name)
	}
	return errors.Join(failed...)
}

func (s *session) serviceScale(ctx context.Context, in input) error {
	type order struct {
		name string
		n    uint64
	}
	var orders []order
	var failed []error
	for _, arg := range in.args {
		name, number, ok := strings.Cut(arg, "=")
		if !ok {
			return exitError{1, fmt.Sprintf("invalid scale specifier '%s'.\nSee 'shoal service scale --help'.\n\nUsage:  shoal service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\nScale one or multiple replicated services", arg)}
		}
		n, err := parseUint(number)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: invalid replicas value %s: %w", name, number, err))
			continue
		}
		orders = append(orders, order{name, n})
	}

	type scaled struct{ id, name string }
	var done []scaled
	for _, o := range orders {
		id, err := s.scale(ctx, o.name, o.n)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", o.name, err))
			continue
		}
		fmt.Fprintf(s.out, "%s scaled to %d\n", o.name, o.n)
		done = append(done, scaled{id, o.name})
	}
	if !in.Bool("detach") {
		for _, service := range done {
			if err := s.wait(ctx, service.id, service.name, false); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", service.name, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (s *session) scale(ctx context.Context, name string, n uint64) (string, error) {
	id, _, err := s.changeService(ctx, name, &swarm.ServiceUpdateOptions{}, func(now *swarm.Service) (string, error) {
		if spec.Scale(&now.Spec.Mode, n) != nil {
			return "", errors.New("scale can only be used with replicated or replicated-job mode")
		}
		return "", nil
	})
	return id, err
}

func (s *session) serviceRollback(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	name := in.args[0]
	same := unchanged()
	var id string
	err = retried(func() error {
		service, _, err := api.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
		if err != nil {
			return err
		}
		if err := same(&service); err != nil {
			return err
		}
		id = service.ID
		var response swarm.ServiceUpdateResponse
		if to := in.Text("to"); in.Changed("to") {
			query := url.Values{"to": {to}, "version": {service.Version.String()}}
			err = s.ask(ctx, http.MethodPost, "/shoal/services/"+url.PathEscape(id)+"/rollback?"+query.Encode(), nil, &response)
		} else {
			response, err = api.ServiceUpdate(ctx, id, service.Version, service.Spec, swarm.ServiceUpdateOptions{Rollback: "previous"})
		}
		s.warn(response.Warnings)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, name)
	if in.Bool("detach") {
		return nil
	}
	return s.wait(ctx, id, name, in.Bool("quiet"))
}

func (s *session) warn(warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(s.err, warning)
	}
}

// serviceInspect prints services as they are with the defaults filled in.
func (s *session) serviceInspect(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if in.Bool("pretty") && in.Changed("format") {
		return errors.New("--format is incompatible with human friendly format")
	}
	lookup := func(name string) (format.Object, error) {
		service, raw, err := api.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{InsertDefaults: true})
		if errdefs.IsNotFound(err) {
			err = exitError{1, "Error: no such service: " + name}
		}
		return format.Object{Value: service, Raw: raw}, err
	}
	if !in.Bool("pretty") {
		return format.Inspect(s.out, in.args, in.Text("format"), lookup)
	}
	var failed []error
	for _, name := range in.args {
		object, err := lookup(name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		service := object.Value.(swarm.Service)
		if err := printService(s.out, service, s.networkNames(ctx, service)); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

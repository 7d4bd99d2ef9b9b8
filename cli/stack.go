package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/compose"
)

func (s *session) stackCommands() []leaf {
	return []leaf{
		{name: "config", usage: "Outputs the final config file, after doing merges and interpolations", flags: stackFileFlags(
			flags.Bool("skip-interpolation", "", "Skip interpolation and output only merged config")), arity: none, run: s.stackConfig},
		{
			name: "deploy", aliases: []string{"up"}, args: "STACK", usage: "Deploy a new stack or update an existing stack",
			flags: stackDeployFlags(), arity: one, run: s.stackDeploy,
		},
		{name: "ls", aliases: []string{"list"}, usage: "List stacks", flags: flags.Set{flags.Text("format", "", format.Usage)}, arity: none, run: s.stackList},
		{
			name: "plan", args: "STACK", usage: "Show what deploying a stack would change, and where its tasks would run",
			flags: stackPlanFlags(), arity: one, run: s.stackPlan,
		},
		{name: "ps", args: "STACK", usage: "List the tasks in the stack", flags: taskFlags(), arity: one, run: s.stackTasks},
		{
			name: "rm", aliases: []string{"remove", "down"}, args: "STACK [STACK...]", usage: "Remove one or more stacks",
			flags: flags.Set{flags.Bool("detach", "d", "Do not wait for stack removal").WithDefault("true")}, arity: atLeastOne, run: s.stackRemove,
		},
		{name: "services", args: "STACK", usage: "List the services in the stack", flags: listFlags(), arity: one, run: s.stackServices},
	}
}

// stackFileFlags are the flags that say which files to read, and how.
func stackFileFlags(more ...*flags.Flag) flags.Set {
	return append(flags.Set{
		flags.List("compose-file", "c", `Path to a Compose file, or "-" to read from stdin`),
		flags.List("env-file", "", "Read variables for the Compose file from a file, beside the environment"),
		flags.List("profile", "", "Deploy services of this profile, too"),
	}, more...)
}

// readStack reads the files that a command was given.
func (s *session) readStack(ctx context.Context, in input, name string) (*compose.Project, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, list := range in.List("compose-file") { // it may be a list with commas, as Docker's
		files = append(files, strings.Split(list, ",")...)
	}
	profiles := in.List("profile")
	if fromEnv := os.Getenv("COMPOSE_PROFILES"); fromEnv != "" {
		profiles = append(profiles, strings.Split(fromEnv, ",")...)
	}
	env := map[string]string{}
	for _, pair := range os.Environ() {
		key, value, _ := strings.Cut(pair, "=")
		env[key] = value
	}
	return compose.Load(ctx, compose.Input{
		Name: name, Files: files, Stdin: s.in, Dir: dir, Env: env, EnvFiles: in.List("env-file"), Profiles: profiles,
		Verbatim: in.Bool("skip-interpolation"),
	})
}

func (s *session) stackConfig(ctx context.Context, in input) error {
	project, err := s.readStack(ctx, in, "")
	if err != nil {
		return err
	}
	text, err := project.YAML()
	if err != nil {
		return err
	}
	s.warn(project.Warnings)
	_, err = s.out.Write(text)
	return err
}

// ofStack filters what belongs to a stack.
func ofStack(name string) filters.Args {
	return filters.NewArgs(filters.Arg("label", compose.LabelNamespace+"="+name))
}

func validStacks(names []string) error {
	for _, name := range names {
		if !compose.ValidName(name) {
			return fmt.Errorf("invalid stack name: %q", name)
		}
	}
	return nil
}

func (s *session) stackList(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	services, err := api.ServiceList(ctx, swarm.ServiceListOptions{Filters: filters.NewArgs(filters.Arg("label", compose.LabelNamespace))})
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, service := range services {
		count[service.Spec.Labels[compose.LabelNamespace]]++
	}
	t := format.Table{
		Headers: map[string]string{"Name": "NAME", "Services": "SERVICES"},
		Default: "{{.Name}}\t{{.Services}}",
	}
	for name, n := range count {
		t.Rows = append(t.Rows, format.Row{"Name": name, "Services": strconv.Itoa(n)})
	}
	slices.SortFunc(t.Rows, func(a, b format.Row) int { return naturally(a["Name"].(string), b["Name"].(string)) })
	return t.Write(s.out, in.Text("format"))
}

func (s *session) stackServices(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if err := validStacks(in.args); err != nil {
		return err
	}
	which := in.Filters()
	which.Add("label", compose.LabelNamespace+"="+in.args[0])
	services, err := api.ServiceList(ctx, swarm.ServiceListOptions{Filters: which, Status: !in.Bool("quiet") || in.Changed("format")})
	if err != nil {
		return err
	}
	if len(services) == 0 {
		fmt.Fprintf(s.err, "Nothing found in stack: %s\n", in.args[0])
		return nil
	}
	slices.SortStableFunc(services, func(a, b swarm.Service) int { return naturally(a.Spec.Name, b.Spec.Name) })
	return serviceTable(services).Write(s.out, listFormat(in, "{{.ID}}"))
}

func (s *session) stackTasks(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if err := validStacks(in.args); err != nil {
		return err
	}
	which, err := s.taskFilters(ctx, in)
	if err != nil {
		return err
	}
	which.Add("label", compose.LabelNamespace+"="+in.args[0])
	tasks, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: which})
	if err != nil {
		return err
	}
	if len(tasks) == 0 {
		return fmt.Errorf("nothing found in stack: %s", in.args[0])
	}
	return s.printTasks(ctx, in, tasks, false)
}

// parts is what there is of a stack in the cluster.
type parts struct {
	services []swarm.Service
	secrets  []swarm.Secret
	configs  []swarm.Config
	networks []network.Summary
}

func (s *session) partsOf(ctx context.Context, stack string) (p parts, err error) {
	if p.services, err = s.conn.ServiceList(ctx, swarm.ServiceListOptions{Filters: ofStack(stack)}); err != nil {
		return p, err
	}
	if p.networks, err = s.conn.NetworkList(ctx, network.ListOptions{Filters: ofStack(stack)}); err != nil {
		return p, err
	}
	if p.secrets, err = s.conn.SecretList(ctx, swarm.SecretListOptions{Filters: ofStack(stack)}); err != nil {
		return p, err
	}
	if p.configs, err = s.conn.ConfigList(ctx, swarm.ConfigListOptions{Filters: ofStack(stack)}); err != nil {
		return p, err
	}
	slices.SortFunc(p.services, func(a, b swarm.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(p.secrets, func(a, b swarm.Secret) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(p.configs, func(a, b swarm.Config) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	slices.SortFunc(p.networks, func(a, b network.Summary) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

func (s *session) stackRemove(ctx context.Context, in input) error {
	if _, err := s.api(); err != nil {
		return err
	}
	if err := validStacks(in.args); err != nil {
		return err
	}
	var failed []error
	for _, stack := range in.args {
		p, err := s.partsOf(ctx, stack)
		if err != nil {
			return err
		}
		if len(p.services)+len(p.secrets)+len(p.configs)+len(p.networks) == 0 {
			fmt.Fprintf(s.err, "Nothing found in stack: %s\n", stack)
			continue
		}
		if err := s.removeParts(ctx, p); err != nil {
			failed = append(failed, fmt.Errorf("failed to remove some resources from stack: %s", stack))
			continue
		}
		if in.Changed("detach") && !in.Bool("detach") {
			if err := s.waitForNoTasks(ctx, ofStack(stack)); err != nil {
				failed = append(failed, fmt.Errorf("failed to wait on tasks of stack: %s: %w", stack, err))
			}
		}
	}
	return errors.Join(failed...)
}

// removeParts removes what makes up a stack, users before what they use. What can not be removed is told and does not
// keep the rest.
func (s *session) removeParts(ctx context.Context, p parts) error {
	var failed error
	remove := func(kind, name, id string, remove func(ctx context.Context, id string) error) {
		fmt.Fprintf(s.out, "Removing %s %s\n", kind, name)
		if err := s.wrote(remove(ctx, id)); err != nil && !errdefs.IsNotFound(err) {
			fmt.Fprintf(s.err, "Failed to remove %s %s: %s\n", kind, name, s.explain(err))
			failed = err
		}
	}
	for _, o := range p.services {
		remove("service", o.Spec.Name, o.ID, s.conn.ServiceRemove)
	}
	for _, o := range p.secrets {
		remove("secret", o.Spec.Name, o.ID, s.conn.SecretRemove)
	}
	for _, o := range p.configs {
		remove("config", o.Spec.Name, o.ID, s.conn.ConfigRemove)
	}
	for _, o := range p.networks {
		remove("network", o.Name, o.ID, s.removeNetwork)
	}
	return failed
}

// networkPatience bounds the wait for tasks of removed services to leave their network.
const networkPatience = 30 * time.Second

// removeNetwork removes a network as soon as the tasks that are being stopped have left it.
func (s *session) removeNetwork(ctx context.Context, id string) error {
	giveUp := time.Now().Add(networkPatience)
	for {
		err := s.conn.NetworkRemove(ctx, id)
		if err == nil || !strings.Contains(err.Error(), "in use by task") || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// waitForNoTasks waits until all tasks have ended.
func (s *session) waitForNoTasks(ctx context.Context, which filters.Args) error {
	answered := time.Now()
	for {
		tasks, err := s.conn.TaskList(ctx, swarm.TaskListOptions{Filters: which})
		switch {
		case client.IsErrConnectionFailed(err) && time.Since(answered) < unreachableFor:
		case err != nil:
			return err
		default:
			answered = time.Now()
			if !slices.ContainsFunc(tasks, func(t swarm.Task) bool { return !terminal(t.Status.State) }) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

func terminal(state swarm.TaskState) bool {
	switch state {
	case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	}
	return false
}

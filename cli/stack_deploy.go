package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/flags"
	"shoal/internal/compose"
)

func stackDeployFlags() flags.Set {
	return stackFileFlags(
		flags.Bool("detach", "d", "Exit immediately instead of waiting for the stack services to converge"),
		flags.Uint("if-index", "Deploy only if the cluster is as \"stack plan\" saw it: the index it printed"),
		flags.Bool("prune", "", "Prune services that are no longer referenced"),
		flags.Bool("quiet", "q", "Suppress progress output"),
		flags.Var("resolve-image", "", "string", `Query the registry to resolve image digest and supported platforms ("always", "changed", "never")`, resolveMode).WithDefault(`"always"`),
		flags.Duration("timeout", "Stop waiting after this time, with exit code 4").WithDefault("none"),
		flags.Bool("with-registry-auth", "", "Send registry authentication details to Swarm agents"),
	)
}

func resolveMode(value string) (string, error) {
	switch value {
	case "always", "changed", "never":
		return value, nil
	}
	//lint:ignore ST1005 Docker's words
	return "", fmt.Errorf("Invalid option %s for flag --resolve-image", value)
}

// deployment is one run of stack deploy.
type deployment struct {
	*session
	stack   *compose.Stack
	resolve string
	auth    bool
	// conditional deployments overrule nobody: see onlyIf.
	conditional bool
	// had are the stack's services as they were, by name; network IDs are by name, too.
	had      map[string]swarm.Service
	networks map[string]string
}

func (s *session) stackDeploy(ctx context.Context, in input) error {
	name := in.args[0]
	if err := validStacks(in.args); err != nil {
		return err
	}
	stack, err := s.loadStack(ctx, in, name)
	if err != nil {
		return err
	}
	d := &deployment{
		session: s, stack: stack, auth: in.Bool("with-registry-auth"), conditional: in.Changed("if-index"),
		resolve: orDefault(in.Text("resolve-image"), "always"),
		had:     map[string]swarm.Service{}, networks: map[string]string{},
	}
	if err := d.manager(ctx); err != nil {
		return err
	}
	if d.conditional {
		if err := s.onlyIf(ctx, name, flags.Get[uint64](in.Set, "if-index")); err != nil {
			return err
		}
	}
	if err := d.prepare(ctx, in.Bool("prune")); err != nil {
		return err
	}
	d.passPorts()
	watch := stackWatch{
		deployment: d, quiet: in.Bool("quiet"), detach: in.Bool("detach"),
		timeout: flags.Get[time.Duration](in.Set, "timeout"),
	}
	return watch.run(ctx)
}

// loadStack reads the files of a command, and prints what is left out of them.
func (s *session) loadStack(ctx context.Context, in input, name string) (*compose.Stack, error) {
	project, err := s.readStack(ctx, in, name)
	if err != nil {
		return nil, err
	}
	stack, err := project.Stack(name)
	s.warn(project.Warnings)
	return stack, err
}

// manager refuses a node that could do nothing.
func (s *session) manager(ctx context.Context) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return err
	}
	if !info.Swarm.ControlAvailable {
		return errors.New(`this node is not a swarm manager. Use "shoal swarm init" or "shoal swarm join" to connect this node to swarm and try again`)
	}
	return nil
}

// prepare makes everything that the services need.
func (d *deployment) prepare(ctx context.Context, prune bool) error {
	services, err := d.conn.ServiceList(ctx, swarm.ServiceListOptions{Filters: ofStack(d.stack.Name)})
	if err != nil {
		return err
	}
	for _, service := range services {
		d.had[service.Spec.Name] = service
	}
	if prune {
		if err := d.prune(ctx); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{d.externalNetworks, d.createNetworks, d.createSecrets, d.createConfigs, d.referTo} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// passPorts has a service that gives up a port applied before the one that takes it.
func (d *deployment) passPorts() {
	published := func(ports []swarm.PortConfig) map[string]bool {
		keys := map[string]bool{}
		for _, p := range ports {
			if p.PublishedPort != 0 {
				keys[fmt.Sprint(p.PublishedPort, "/", cmp.Or(p.Protocol, swarm.PortConfigProtocolTCP))] = true
			}
		}
		return keys
	}
	wanted := map[string][]string{} // by port, the keys of services
	for _, s := range d.stack.Services {
		if e := s.Spec.EndpointSpec; e != nil {
			for port := range published(e.Ports) {
				wanted[port] = append(wanted[port], s.Key)
			}
		}
	}
	for _, s := range d.stack.Services {
		for port := range published(d.had[s.Spec.Name].Endpoint.Ports) {
			if slices.Contains(wanted[port], s.Key) {
				continue // it stays
			}
			for _, then := range wanted[port] {
				d.stack.Precede(s.Key, then)
			}
		}
	}
}

// prune removes services that the file no longer has.
func (d *deployment) prune(ctx context.Context) error {
	var gone parts
	for name, service := range d.had {
		if !d.stack.Has(name) {
			gone.services = append(gone.services, service)
		}
	}
	slices.SortFunc(gone.services, func(a, b swarm.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return d.removeParts(ctx, gone)
}

// externalNetworks checks that they are there. The engine's own are on every node.
func (d *deployment) externalNetworks(ctx context.Context) error {
	for _, name := range d.stack.External {
		if !container.NetworkMode(name).IsUserDefined() {
			continue
		}
		found, err := d.conn.NetworkInspect(ctx, name, network.InspectOptions{Scope: "swarm"})
		switch {
		case errdefs.IsNotFound(err):
			return fmt.Errorf("network %q is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed", name)
		case err != nil:
			return err
		case found.Scope != "swarm":
			return fmt.Errorf("network %q is declared as external, but it is not in the right scope: %q instead of \"swarm\"", name, found.Scope)
		}
		d.networks[name] = found.ID
	}
	return nil
}

func (d *deployment) createNetworks(ctx context.Context) error {
	existing, err := d.conn.NetworkList(ctx, network.ListOptions{Filters: ofStack(d.stack.Name)})
	if err != nil {
		return err
	}
	for _, n := range existing {
		d.networks[n.Name] = n.ID
	}
	for _, n := range d.stack.Networks {
		if i := slices.IndexFunc(existing, func(e network.Summary) bool { return e.Name == n.Name }); i >= 0 {
			d.warn(keptSettings(existing[i], n))
			continue
		}
		fmt.Fprintln(d.out, "Creating network", n.Name)
		made, err := d.conn.NetworkCreate(ctx, n.Name, n.Options)
		if d.wrote(err) != nil {
			return fmt.Errorf("failed to create network %s: %w", n.Name, err)
		}
		d.networks[n.Name] = made.ID
	}
	return nil
}

// createSecrets makes secrets, and gives those that are there what the file says. Whether that is new, and what it
// means for the services that use them, only the cluster can tell: it shows nobody what a secret holds.
func (d *deployment) createSecrets(ctx context.Context) error {
	for _, spec := range d.stack.Secrets {
		found, _, err := d.conn.SecretInspectWithRaw(ctx, spec.Name)
		switch {
		case err == nil:
			if err := d.newVersion(ctx, "secret", found.ID, asConfig(spec)); err != nil {
				return fmt.Errorf("failed to update secret %s: %w", spec.Name, err)
			}
		case errdefs.IsNotFound(err):
			fmt.Fprintln(d.out, "Creating secret", spec.Name)
			if _, err := d.conn.SecretCreate(ctx, spec); d.wrote(err) != nil {
				return fmt.Errorf("failed to create secret %s: %w", spec.Name, err)
			}
		default:
			return err
		}
	}
	return nil
}

func (d *deployment) createConfigs(ctx context.Context) error {
	for _, spec := range d.stack.Configs {
		found, _, err := d.conn.ConfigInspectWithRaw(ctx, spec.Name)
		switch {
		case err == nil:
			if err := d.newVersion(ctx, "config", found.ID, spec); err != nil {
				return fmt.Errorf("failed to update config %s: %w", spec.Name, err)
			}
		case errdefs.IsNotFound(err):
			fmt.Fprintln(d.out, "Creating config", spec.Name)
			if _, err := d.conn.ConfigCreate(ctx, spec); d.wrote(err) != nil {
				return fmt.Errorf("failed to create config %s: %w", spec.Name, err)
			}
		default:
			return err
		}
	}
	return nil
}

func sameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			return false
		}
	}
	return true
}

// newVersion gives a secret or config what the file says. Other data is a new version, which the services that use it
// are about to be updated to, and which is gone back from when one of them is rolled back.
func (d *deployment) newVersion(ctx context.Context, kind, id string, spec swarm.ConfigSpec) error {
	made, err := d.replaceFile(ctx, kind, id, "stay=1", spec)
	if d.wrote(err) != nil {
		return err
	}
	if made.ID != id {
		fmt.Fprintf(d.out, "Updating %s %s to version %d\n", kind, spec.Name, made.Version)
	}
	return nil
}

func asConfig(s swarm.SecretSpec) swarm.ConfigSpec {
	return swarm.ConfigSpec{Annotations: s.Annotations, Data: s.Data, Templating: s.Templating}
}

// replaced is what became of a secret or config, or would.
type replaced struct {
	ID       string
	Version  uint64
	Services []string
}

// replaceFile has a secret or config hold what a file says, and nothing that it does not.
func (s *session) replaceFile(ctx context.Context, kind, id, how string, spec swarm.ConfigSpec) (made replaced, err error) {
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	if spec.Templating == nil {
		spec.Templating = &swarm.Driver{} // none, and not the one there is
	}
	err = s.ask(ctx, http.MethodPost, "/shoal/"+kind+"s/"+id+"/replace?"+how, spec, &made)
	return made, err
}

// referTo puts the IDs of other objects in the place of their names.
func (d *deployment) referTo(ctx context.Context) error {
	secrets, configs, err := d.objectIDs(ctx)
	if err != nil {
		return err
	}
	return refer(d.stack, secrets, configs, d.networks)
}

// objectIDs are the IDs of all secrets and configs by their names.
func (s *session) objectIDs(ctx context.Context) (secrets, configs map[string]string, err error) {
	secrets, configs = map[string]string{}, map[string]string{}
	secretList, err := s.conn.SecretList(ctx, swarm.SecretListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for _, o := range secretList {
		secrets[o.Spec.Name] = o.ID
	}
	configList, err := s.conn.ConfigList(ctx, swarm.ConfigListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for _, o := range configList {
		configs[o.Spec.Name] = o.ID
	}
	return secrets, configs, nil
}

func refer(stack *compose.Stack, secrets, configs, networks map[string]string) error {
	for _, service := range stack.Services {
		task := &service.Spec.TaskTemplate
		for _, r := range task.ContainerSpec.Secrets {
			if r.SecretID = secrets[r.SecretName]; r.SecretID == "" {
				return fmt.Errorf("secret not found: %s", r.SecretName)
			}
		}
		for _, r := range task.ContainerSpec.Configs {
			if r.ConfigID = configs[r.ConfigName]; r.ConfigID == "" {
				return fmt.Errorf("config not found: %s", r.ConfigName)
			}
		}
		if spec := task.ContainerSpec.Privileges.CredentialSpec; spec != nil && spec.Config != "" {
			if spec.Config = configs[spec.Config]; spec.Config == "" {
				return errors.New("the config of a credential spec was not found")
			}
		}
		for i, n := range task.Networks {
			if id := networks[n.Target]; id != "" {
				task.Networks[i].Target = id
			}
		}
	}
	return nil
}

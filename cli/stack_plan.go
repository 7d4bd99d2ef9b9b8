package cli

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/api"
	"shoal/internal/compose"
)

func stackPlanFlags() flags.Set {
	return stackFileFlags(
		flags.Text("format", "", format.InspectUsage),
		flags.Bool("prune", "", "Plan to remove services that are no longer referenced"),
		flags.Var("resolve-image", "", "string", `Query the registry to resolve image digest and supported platforms ("always", "changed", "never")`, resolveMode).WithDefault(`"always"`),
	)
}

// What a deployment would do with one object.
const (
	doNothing = "unchanged"
	doCreate  = "create"
	doChange  = "change"  // tasks go on
	doReplace = "replace" // others take the place of tasks
	doRemove  = "remove"
)

// change is what would become of one object.
type change struct {
	Kind, Name, Action string
	Differences        []string     `json:",omitempty"`
	Notes              []string     `json:",omitempty"`
	Preview            *api.Preview `json:",omitempty"`
}

// plan is what deploying a stack would do. Index stands for the state of the cluster that it was made from.
type plan struct {
	Stack   string
	Index   uint64
	Changes []change
}

func (s *session) stackPlan(ctx context.Context, in input) error {
	name := in.args[0]
	if err := validStacks(in.args); err != nil {
		return err
	}
	stack, err := s.loadStack(ctx, in, name)
	if err != nil {
		return err
	}
	if err := s.manager(ctx); err != nil {
		return err
	}
	p, err := s.plan(ctx, stack, in)
	if err != nil {
		return err
	}
	if in.Changed("format") {
		if err := format.One(s.out, in.Text("format"), p); err != nil {
			return err
		}
	} else if err := p.page().flush(s.out); err != nil {
		return err
	}
	return p.verdict()
}

func (s *session) plan(ctx context.Context, stack *compose.Stack, in input) (plan, error) {
	p := plan{Stack: stack.Name}
	var err error
	if p.Index, err = s.stackIndex(ctx, stack.Name); err != nil {
		return p, err
	}
	has, err := s.partsOf(ctx, stack.Name)
	if err != nil {
		return p, err
	}
	d := &deployment{
		session: s, stack: stack, resolve: orDefault(in.Text("resolve-image"), "always"),
		had: map[string]swarm.Service{}, networks: map[string]string{},
	}
	for _, service := range has.services {
		d.had[service.Spec.Name] = service
	}
	if err := d.externalNetworks(ctx); err != nil {
		return p, err
	}
	p.networks(d, has)
	secrets, configs, err := s.objectIDs(ctx)
	if err != nil {
		return p, err
	}
	if err := s.planSecrets(ctx, &p, stack, secrets); err != nil {
		return p, err
	}
	p.configs(stack, has)
	return p, s.planServices(ctx, &p, d, has, secrets, configs, in.Bool("prune"))
}

func (p *plan) add(kind, name, action string, notes ...string) {
	p.Changes = append(p.Changes, change{Kind: kind, Name: name, Action: action, Notes: notes})
}

func (p *plan) networks(d *deployment, has parts) {
	for _, n := range d.stack.Networks {
		i := slices.IndexFunc(has.networks, func(e network.Summary) bool { return e.Name == n.Name })
		if i < 0 {
			p.add("network", n.Name, doCreate)
			continue
		}
		d.networks[n.Name] = has.networks[i].ID
		p.add("network", n.Name, doNothing, keptSettings(has.networks[i], n)...)
	}
}

// planSecrets asks the cluster whether what secrets hold is new, for that is shown to nobody.
func (s *session) planSecrets(ctx context.Context, p *plan, stack *compose.Stack, ids map[string]string) error {
	for _, o := range stack.Secrets {
		id := ids[o.Name]
		if id == "" {
			p.add("secret", o.Name, doCreate)
			continue
		}
		would, err := s.replaceFile(ctx, "secret", id, "dryRun=1", asConfig(o))
		switch {
		case err != nil:
			return fmt.Errorf("secret %s: %w", o.Name, err)
		case would.ID == "" && len(would.Services) > 0:
			p.add("secret", o.Name, doReplace, "what it holds is new, for "+strings.Join(would.Services, ", "))
		case would.ID == "":
			p.add("secret", o.Name, doChange, "what it holds is new, and no service uses it")
		default:
			p.add("secret", o.Name, doNothing)
		}
	}
	return nil
}

func (p *plan) configs(stack *compose.Stack, has parts) {
	for _, o := range stack.Configs {
		i := slices.IndexFunc(has.configs, func(e swarm.Config) bool { return e.Spec.Name == o.Name })
		switch {
		case i < 0:
			p.add("config", o.Name, doCreate)
		case !bytes.Equal(has.configs[i].Spec.Data, o.Data):
			p.add("config", o.Name, doReplace, "what it holds is new")
		case !sameLabels(has.configs[i].Spec.Labels, o.Labels):
			p.add("config", o.Name, doChange, "labels")
		default:
			p.add("config", o.Name, doNothing)
		}
	}
}

func (s *session) planServices(ctx context.Context, p *plan, d *deployment, has parts, secrets, configs map[string]string, prune bool) error {
	// In the order of a deployment: what one service gives up, another may take.
	d.passPorts()
	order, err := d.stack.Order()
	if err != nil {
		return err
	}
	pruned := func(name string) bool { return prune && !d.stack.Has(name) }
	var wishes []api.Wish
	for _, service := range has.services {
		if pruned(service.Spec.Name) {
			wishes = append(wishes, api.Wish{ID: service.ID, Remove: true})
		}
	}
	removed := len(wishes)
	var asked []int
	moving := map[int]swarm.ServiceSpec{} // what may not stay where it is
	for _, service := range order {
		spec := service.Spec
		had, exists := d.had[spec.Name]
		// What is not there yet has no ID; the preview looks at the rest.
		missing := point(&spec, secrets, configs, d.networks)
		c := change{Kind: "service", Name: spec.Name, Action: doCreate}
		switch {
		case exists:
			c.Notes = d.image(ctx, &spec, had.Spec, "")
			spec.TaskTemplate.ForceUpdate = had.Spec.TaskTemplate.ForceUpdate
			c.Action = doNothing
			for _, diff := range compose.Differences(had.Spec, spec) {
				switch {
				case diff.Replaces():
					c.Action = doReplace
				case c.Action == doNothing:
					c.Action = doChange
				}
				if diff.Moves() {
					moving[len(p.Changes)] = had.Spec
				}
				c.Differences = append(c.Differences, diff.String())
			}
			if c.Action == doChange && onMesh(had.Spec) != onMesh(spec) {
				c.Action = doReplace
			}
		case d.resolve != "never":
			c.Notes = d.pin(ctx, &spec.TaskTemplate, "")
		}
		if len(missing) > 0 {
			c.Notes = append(c.Notes, "with new: "+strings.Join(missing, ", "))
		}
		if c.Action != doNothing {
			asked = append(asked, len(p.Changes))
			wishes = append(wishes, api.Wish{ID: had.ID, Spec: spec})
		}
		p.Changes = append(p.Changes, c)
	}
	for _, service := range has.services {
		switch {
		case pruned(service.Spec.Name):
			p.add("service", service.Spec.Name, doRemove)
		case d.stack.Has(service.Spec.Name):
		default:
			p.add("service", service.Spec.Name, doNothing, "not in the file: --prune removes it")
		}
	}
	if len(asked) == 0 {
		return nil
	}
	var previews []api.Preview
	if err := s.ask(ctx, http.MethodPost, "/shoal/preview", wishes, &previews); err != nil {
		return err
	}
	if len(previews) != len(wishes) {
		return fmt.Errorf("asked about %d services, and was told of %d", len(wishes), len(previews))
	}
	for i, preview := range previews[removed:] {
		c := &p.Changes[asked[i]]
		c.Preview = &preview
		if had, ok := moving[asked[i]]; ok && c.Action == doChange && moves(had.Mode, wishes[removed+i].Spec.Mode, preview) {
			c.Action = doReplace
		}
	}
	return nil
}

// onMesh tells whether a service's tasks are on the ingress network: those that are not can not join it, nor leave it.
func onMesh(spec swarm.ServiceSpec) bool {
	return spec.EndpointSpec != nil && slices.ContainsFunc(spec.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode != swarm.PortConfigPublishModeHost
	})
}

// moves tells whether tasks are replaced that may not stay where they are. More replicas make new tasks as well.
func moves(had, want swarm.ServiceMode, p api.Preview) bool {
	if had.Replicated == nil || want.Replicated == nil {
		return len(p.Nodes) > 0
	}
	return p.Kept < min(api.Replicas(had), api.Replicas(want))
}

// point puts IDs in the place of names, and takes out what is not there yet, of which it gives the names.
func point(spec *swarm.ServiceSpec, secrets, configs, networks map[string]string) (missing []string) {
	task := &spec.TaskTemplate
	task.ContainerSpec.Secrets = slices.DeleteFunc(task.ContainerSpec.Secrets, func(r *swarm.SecretReference) bool {
		if r.SecretID = secrets[r.SecretName]; r.SecretID == "" {
			missing = append(missing, "secret "+r.SecretName)
		}
		return r.SecretID == ""
	})
	task.ContainerSpec.Configs = slices.DeleteFunc(task.ContainerSpec.Configs, func(r *swarm.ConfigReference) bool {
		if r.ConfigID = configs[r.ConfigName]; r.ConfigID == "" {
			missing = append(missing, "config "+r.ConfigName)
		}
		return r.ConfigID == ""
	})
	var attached []swarm.NetworkAttachmentConfig
	for _, n := range task.Networks {
		if id := networks[n.Target]; id != "" {
			n.Target = id
			attached = append(attached, n)
		} else {
			missing = append(missing, "network "+n.Target)
		}
	}
	task.Networks = attached
	return missing
}

// keptSettings says where a network that exists is not what the file says. A network never changes.
func keptSettings(has network.Summary, want compose.Network) (notes []string) {
	note := func(setting, is, says string) {
		if is != says {
			notes = append(notes, fmt.Sprintf("network %s exists and stays as it is: %s is %s, the file says %s; remove it, and deploy again", want.Name, setting, is, says))
		}
	}
	note("driver", has.Driver, want.Options.Driver)
	note("internal", fmt.Sprint(has.Internal), fmt.Sprint(want.Options.Internal))
	note("attachable", fmt.Sprint(has.Attachable), fmt.Sprint(want.Options.Attachable))
	if ipam := want.Options.IPAM; ipam != nil {
		for i, pool := range ipam.Config {
			if pool.Subnet != "" && i < len(has.IPAM.Config) {
				note("subnet", has.IPAM.Config[i].Subnet, pool.Subnet)
			}
		}
	}
	return notes
}

var marks = map[string]string{doNothing: "=", doCreate: "+", doChange: "~", doReplace: "!", doRemove: "-"}

func (p plan) page() *page {
	var out page
	count := map[string]int{}
	for _, c := range p.Changes {
		count[c.Action]++
		text := fmt.Sprintf("%s %s %s", marks[c.Action], c.Kind, c.Name)
		switch c.Action {
		case doReplace:
			text += ": tasks are replaced"
		case doChange:
			text += ": changes in place"
		case doRemove:
			text += ": is removed"
		}
		out.line("%s", text)
		for _, diff := range c.Differences {
			out.line("    %s", diff)
		}
		for _, note := range c.Notes {
			out.line("    %s", strings.TrimRight(strings.ReplaceAll(note, "\n", " "), " "))
		}
		if c.Preview != nil {
			out.preview(*c.Preview)
		}
	}
	out.line("")
	out.line("Create %d, change in place %d, replace %d, remove %d; %d unchanged.",
		count[doCreate], count[doChange], count[doReplace], count[doRemove], count[doNothing])
	out.line("To deploy only while this is so: shoal stack deploy --if-index %d ... %s", p.Index, p.Stack)
	return &out
}

func (p *page) preview(v api.Preview) {
	if v.Refused != "" {
		p.line("    refused: %s", v.Refused)
		return
	}
	if len(v.Nodes) > 0 {
		var list []string
		for _, node := range slices.Sorted(maps.Keys(v.Nodes)) {
			list = append(list, fmt.Sprintf("%d on %s", v.Nodes[node], node))
		}
		p.line("    new tasks: %s", strings.Join(list, ", "))
	}
	if v.Waiting > 0 {
		p.line("    %d %s would have no node: %s", v.Waiting, plural(v.Waiting, "task"), v.Why)
	}
}

// verdict is the exit code: that of the deployment, as far as it can be told.
func (p plan) verdict() error {
	code := 0
	for _, c := range p.Changes {
		switch {
		case c.Preview == nil:
		case c.Preview.Refused != "":
			code = exitFailed
		case c.Preview.Waiting > 0 && code == 0:
			code = exitUnplaceable
		}
	}
	if code == 0 {
		return nil
	}
	return exitError{code, ""}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/cli/spec"
)

func (s *session) nodeCommands() []leaf {
	update := flags.Set{
		flags.Text("availability", "", `Availability of the node ("active", "pause", "drain")`),
		flags.Many("label-add", "", "list", `Add or update a node label ("key=value")`, spec.ParseLabel),
		flags.List("label-rm", "", "Remove a node label if exists"),
		flags.Text("role", "", `Role of the node ("worker", "manager")`),
		flags.Bool("wait", "", "With --availability drain, wait until no task is left on the node"),
	}
	return []leaf{
		{name: "demote", args: "NODE [NODE...]", usage: "Demote one or more nodes from manager in the swarm", arity: atLeastOne, run: s.setRole(swarm.NodeRoleWorker)},
		{name: "inspect", args: "self|NODE [NODE...]", usage: "Display detailed information on one or more nodes", flags: inspectFlags(), arity: atLeastOne, run: s.nodeInspect},
		{name: "ls", aliases: []string{"list"}, usage: "List nodes in the swarm", flags: listFlags(), arity: none, run: s.nodeList},
		{name: "promote", args: "NODE [NODE...]", usage: "Promote one or more nodes to manager in the swarm", arity: atLeastOne, run: s.setRole(swarm.NodeRoleManager)},
		{name: "ps", args: "[NODE...]", usage: "List tasks running on one or more nodes, defaults to current node", flags: taskFlags(), arity: anyNumber, run: s.nodeTasks},
		{
			name: "rm", aliases: []string{"remove"}, args: "NODE [NODE...]", usage: "Remove one or more nodes from the swarm",
			flags: flags.Set{flags.Bool("force", "f", "Force remove a node from the swarm")}, arity: atLeastOne, run: s.nodeRemove,
		},
		{name: "update", args: "NODE", usage: "Update a node", flags: update, arity: one, run: s.nodeUpdate},
	}
}

// nodeReference makes out "self".
func (s *session) nodeReference(ctx context.Context, name string) (string, error) {
	if name != "self" {
		return name, nil
	}
	api, err := s.api()
	if err != nil {
		return "", err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return "", err
	}
	if info.Swarm.NodeID == "" {
		// A node that is in no swarm has no ID: the server says so better when asked for any node.
		if _, err := api.NodeList(ctx, swarm.NodeListOptions{}); err != nil {
			return "", err
		}
		return "", errors.New("node ID not found in /info")
	}
	return info.Swarm.NodeID, nil
}

func (s *session) nodeList(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	nodes, err := api.NodeList(ctx, swarm.NodeListOptions{Filters: in.Filters()})
	if err != nil {
		return err
	}
	var info system.Info
	if len(nodes) > 0 && !in.Bool("quiet") {
		if info, err = api.Info(ctx); err != nil {
			return err
		}
	}
	slices.SortStableFunc(nodes, func(a, b swarm.Node) int { return naturally(a.Description.Hostname, b.Description.Hostname) })
	table := nodeTable(nodes, info)
	if in.Bool("quiet") && !in.Changed("format") {
		return table.Write(s.out, "{{.ID}}")
	}
	return table.Write(s.out, in.Text("format"))
}

func nodeTable(nodes []swarm.Node, info system.Info) format.Table {
	t := format.Table{
		Headers: map[string]string{
			"ID": "ID", "Hostname": "HOSTNAME", "Status": "STATUS", "Availability": "AVAILABILITY",
			"ManagerStatus": "MANAGER STATUS", "TLSStatus": "TLS STATUS", "EngineVersion": "ENGINE VERSION", "Self": "",
		},
		Default: "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
	}
	for _, n := range nodes {
		manager := ""
		if m := n.ManagerStatus; m != nil {
			manager = format.Title(string(m.Reachability))
			if m.Leader {
				manager = "Leader"
			}
		}
		t.Rows = append(t.Rows, format.Row{
			"ID": n.ID, "Hostname": n.Description.Hostname, "Status": format.Title(string(n.Status.State)),
			"Availability": format.Title(string(n.Spec.Availability)), "ManagerStatus": manager,
			"TLSStatus": tlsStatus(n, info), "EngineVersion": n.Description.Engine.EngineVersion, "Self": n.ID == info.Swarm.NodeID && n.ID != "",
		})
	}
	return t
}

// tlsStatus tells which nodes still have to change over while the root CA is replaced.
func tlsStatus(n swarm.Node, info system.Info) string {
	cluster := info.Swarm.Cluster
	switch have := n.Description.TLSInfo; {
	case cluster == nil || cluster.TLSInfo.TrustRoot == "" || have.TrustRoot == "":
		return "Unknown"
	case have.TrustRoot == cluster.TLSInfo.TrustRoot &&
		string(have.CertIssuerPublicKey) == string(cluster.TLSInfo.CertIssuerPublicKey) &&
		string(have.CertIssuerSubject) == string(cluster.TLSInfo.CertIssuerSubject):
		return "Ready"
	}
	return "Needs Rotation"
}

func (s *session) nodeInspect(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if in.Bool("pretty") && in.Changed("format") {
		return errors.New("--format is incompatible with human friendly format")
	}
	lookup := func(name string) (format.Object, error) {
		id, err := s.nodeReference(ctx, name)
		if err != nil {
			return format.Object{}, err
		}
		node, raw, err := api.NodeInspectWithRaw(ctx, id)
		return format.Object{Value: node, Raw: raw}, err
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
		if err := printNode(s.out, object.Value.(swarm.Node)); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func (s *session) nodeTasks(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	names := in.args
	if len(names) == 0 {
		names = []string{"self"}
	}
	which := in.Filters()
	var failed []error
	found := false
	for _, name := range names {
		id, err := s.nodeReference(ctx, name)
		if err == nil {
			var node swarm.Node
			if node, _, err = api.NodeInspectWithRaw(ctx, id); err == nil {
				which.Add("node", node.ID)
				found = true
			}
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if found {
		tasks, err := api.TaskList(ctx, swarm.TaskListOptions{Filters: which})
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		if err := s.printTasks(ctx, in, tasks, true); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func (s *session) nodeRemove(ctx context.Context, in input) error {
	return s.eachNode(in.args, func(name string) error {
		if err := s.conn.NodeRemove(ctx, name, swarm.NodeRemoveOptions{Force: in.Bool("force")}); err != nil {
			return err
		}
		fmt.Fprintln(s.out, name)
		return nil
	})
}

func (s *session) eachNode(names []string, do func(name string) error) error {
	if _, err := s.api(); err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		if err := do(name); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (s *session) setRole(role swarm.NodeRole) func(context.Context, input) error {
	return func(ctx context.Context, in input) error {
		if _, err := s.api(); err != nil {
			return err
		}
		for _, name := range in.args {
			already := false
			node, err := s.changeNode(ctx, name, func(n *swarm.NodeSpec) (bool, error) {
				already = n.Role == role
				n.Role = role
				return !already, nil
			})
			if err != nil {
				return err
			}
			if already {
				fmt.Fprintf(s.out, "Node %s is already a %s.\n", node.ID, role)
				continue
			}
			if role == swarm.NodeRoleManager {
				fmt.Fprintf(s.out, "Node %s promoted to a manager in the swarm.\n", name)
			} else {
				fmt.Fprintf(s.out, "Manager %s demoted in the swarm.\n", name)
			}
		}
		return nil
	}
}

func (s *session) nodeUpdate(ctx context.Context, in input) error {
	if _, err := s.api(); err != nil {
		return err
	}
	node, err := s.changeNode(ctx, in.args[0], func(n *swarm.NodeSpec) (bool, error) {
		if err := updateNode(in.Set, n); err != nil {
			return false, err
		}
		if in.Bool("wait") && n.Availability != swarm.NodeAvailabilityDrain {
			return false, errors.New("--wait is for a node that is drained: add --availability drain")
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, in.args[0])
	if in.Bool("wait") {
		return s.awaitDrain(ctx, node)
	}
	return nil
}

// changeNode updates a node from what it is at this moment, if change says so:
// the managers themselves may be changing it, as they do while it changes its role.
func (s *session) changeNode(ctx context.Context, name string, change func(*swarm.NodeSpec) (do bool, err error)) (node swarm.Node, err error) {
	err = retried(func() error {
		if node, _, err = s.conn.NodeInspectWithRaw(ctx, name); err != nil {
			return err
		}
		do, err := change(&node.Spec)
		if err != nil || !do {
			return err
		}
		return s.conn.NodeUpdate(ctx, node.ID, node.Version, node.Spec)
	})
	return node, err
}

// updateNode applies the flags of node update to a node's spec.
func updateNode(f flags.Set, n *swarm.NodeSpec) error {
	if f.Changed("role") {
		n.Role = swarm.NodeRole(f.Text("role"))
	}
	if f.Changed("availability") {
		n.Availability = swarm.NodeAvailability(f.Text("availability"))
	}
	if !f.AnyChanged("label-add", "label-rm") {
		return nil
	}
	labels := map[string]string{}
	for key, value := range n.Labels {
		labels[key] = value
	}
	for _, label := range f.List("label-add") {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	for _, key := range f.List("label-rm") {
		if _, ok := labels[key]; !ok {
			return fmt.Errorf("key %s doesn't exist in node's labels", key)
		}
		delete(labels, key)
	}
	n.Labels = labels
	return nil
}

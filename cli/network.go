package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/pkg/stringid"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/cli/spec"
)

func (s *session) networkCommands() []leaf {
	inspect := flags.Set{
		flags.Text("format", "f", format.InspectUsage),
		flags.Bool("verbose", "v", "Verbose output for diagnostics"),
	}
	list := append(listFlags(), flags.Bool("no-trunc", "", "Do not truncate the output"))
	list.Lookup("filter").Usage = `Provide filter values (e.g. "driver=bridge")`
	list.Lookup("quiet").Usage = "Only display network IDs"
	connect := flags.Set{
		flags.List("alias", "", "Add network-scoped alias for the container"),
		flags.List("driver-opt", "", "driver options for the network"),
		flags.Int("gw-priority", "Highest gw-priority provides the default gateway. Accepts positive and negative values"),
		flags.Text("ip", "", `IPv4 address (e.g., "172.30.100.104")`),
		flags.Text("ip6", "", `IPv6 address (e.g., "2001:db8::33")`),
		flags.List("link", "", "Add link to another container"),
		flags.List("link-local-ip", "", "Add a link-local address for the container"),
	}
	prune := flags.Set{
		flags.Filters(`Provide filter values (e.g. "until=<timestamp>")`),
		flags.Bool("force", "f", "Do not prompt for confirmation"),
	}
	prune.Lookup("filter").Short = ""
	return []leaf{
		{name: "connect", args: "NETWORK CONTAINER", usage: "Connect a container to a network", flags: connect, arity: two, run: s.networkConnect},
		{name: "create", args: "NETWORK", usage: "Create a network", flags: spec.NetworkFlags(), arity: one, run: s.networkCreate},
		{
			name: "disconnect", args: "NETWORK CONTAINER", usage: "Disconnect a container from a network",
			flags: flags.Set{flags.Bool("force", "f", "Force the container to disconnect from a network")}, arity: two, run: s.networkDisconnect,
		},
		{
			name: "inspect", args: "NETWORK [NETWORK...]", usage: "Display detailed information on one or more networks",
			flags: inspect, arity: atLeastOne, run: s.networkInspect,
		},
		{name: "ls", aliases: []string{"list"}, usage: "List networks", flags: list, arity: none, run: s.networkList},
		{name: "prune", usage: "Remove all unused networks", flags: prune, arity: none, run: s.networkPrune},
		{
			name: "rm", aliases: []string{"remove"}, args: "NETWORK [NETWORK...]", usage: "Remove one or more networks",
			flags: flags.Set{flags.Bool("force", "f", "Do not error if the network does not exist")}, arity: atLeastOne, run: s.networkRemove,
		},
		{
			name: "rotate-keys", usage: "Have every node change its key for encrypted networks, one after the other", flags: flags.Set{}, arity: none,
			run: func(ctx context.Context, _ input) error {
				return s.ask(ctx, http.MethodPost, "/shoal/networks/rotate-keys", nil, nil)
			},
		},
	}
}

func (s *session) networkCreate(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	options, err := spec.Network(in.Set)
	if err != nil {
		return err
	}
	made, err := api.NetworkCreate(ctx, in.args[0], options)
	if err != nil {
		return err
	}
	if made.Warning != "" {
		fmt.Fprintln(s.err, "WARNING: "+made.Warning)
	}
	fmt.Fprintln(s.out, made.ID)
	return nil
}

func (s *session) networkList(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	networks, err := api.NetworkList(ctx, network.ListOptions{Filters: in.Filters()})
	if err != nil {
		return err
	}
	slices.SortStableFunc(networks, func(a, b network.Summary) int { return naturally(a.Name, b.Name) })
	return networkTable(networks, in.Bool("no-trunc")).Write(s.out, listFormat(in, "{{.ID}}"))
}

func networkTable(networks []network.Summary, whole bool) format.Table {
	t := format.Table{
		Headers: map[string]string{
			"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE",
			"IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
		},
		Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
	}
	for _, n := range networks {
		id := n.ID
		if !whole {
			id = stringid.TruncateID(id)
		}
		var labels []string
		for key, value := range n.Labels {
			labels = append(labels, key+"="+value)
		}
		slices.Sort(labels)
		t.Rows = append(t.Rows, format.Row{
			"ID": id, "Name": n.Name, "Driver": n.Driver, "Scope": n.Scope,
			"IPv4": strconv.FormatBool(n.EnableIPv4), "IPv6": strconv.FormatBool(n.EnableIPv6), "Internal": strconv.FormatBool(n.Internal),
			"Labels": strings.Join(labels, ","), "CreatedAt": n.Created.String(),
		})
	}
	return t
}

func (s *session) networkInspect(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	return format.Inspect(s.out, in.args, in.Text("format"), func(name string) (format.Object, error) {
		n, raw, err := api.NetworkInspectWithRaw(ctx, name, network.InspectOptions{Verbose: in.Bool("verbose")})
		return format.Object{Value: n, Raw: raw}, err
	})
}

// ingressWarning is Docker's, for our nodes.
const ingressWarning = `WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same version of shoal. Otherwise, removal may not be effective and functionality of newly created ingress networks will be impaired.
Are you sure you want to continue?`

func (s *session) networkRemove(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range in.args {
		if n, err := api.NetworkInspect(ctx, name, network.InspectOptions{}); err == nil && n.Ingress {
			if yes, err := s.confirm(ingressWarning); err != nil || !yes {
				failed = append(failed, err)
				continue
			}
		}
		switch err := api.NetworkRemove(ctx, name); {
		case err == nil:
			fmt.Fprintln(s.out, name)
		case in.Bool("force") && errdefs.IsNotFound(err):
		default:
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (s *session) networkPrune(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if !in.Bool("force") {
		if yes, err := s.confirm("WARNING! This will remove all custom networks not used by at least one container or service.\nAre you sure you want to continue?"); err != nil || !yes {
			return err
		}
	}
	report, err := api.NetworksPrune(ctx, in.Filters())
	if err != nil {
		return err
	}
	if len(report.NetworksDeleted) > 0 {
		fmt.Fprintf(s.out, "Deleted Networks:\n%s\n\n", strings.Join(report.NetworksDeleted, "\n"))
	}
	return nil
}

func (s *session) networkConnect(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	settings, err := spec.Endpoint(in.Set)
	if err != nil {
		return err
	}
	return api.NetworkConnect(ctx, in.args[0], in.args[1], settings)
}

func (s *session) networkDisconnect(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	return api.NetworkDisconnect(ctx, in.args[0], in.args[1], in.Bool("force"))
}

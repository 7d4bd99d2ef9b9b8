package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/flags"
)

// defaultListenAddr is where managers listen for each other and for workers.
const defaultListenAddr = "0.0.0.0:2377"

func (s *session) swarmCommands() []leaf {
	return append([]leaf{
		{name: "ca", usage: "Display and rotate the root CA", flags: caFlags(), arity: none, run: s.swarmCA},
		{name: "init", usage: "Initialize a swarm", flags: initFlags(), arity: none, run: s.swarmInit},
		{name: "join", args: "HOST:PORT", usage: "Join a swarm as a node and/or manager", flags: joinFlags(), arity: one, run: s.swarmJoin},
		{
			name: "join-token", args: "(worker|manager)", usage: "Manage join tokens", arity: one, run: s.swarmJoinToken,
			flags: flags.Set{
				flags.Bool("quiet", "q", "Only display token"),
				flags.Bool("rotate", "", "Rotate join token"),
			},
		},
		{
			name: "leave", usage: "Leave the swarm", arity: none, run: s.swarmLeave,
			flags: flags.Set{flags.Bool("force", "f", "Force this node to leave the swarm, ignoring warnings")},
		},
		{name: "update", usage: "Update the swarm", flags: updateFlags(), arity: none, flagged: true, run: s.swarmUpdate},
	}, s.lockCommands()...)
}

func memberFlags() flags.Set {
	return flags.Set{
		flags.Text("advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`),
		flags.Var("availability", "", "string", `Availability of the node ("active", "pause", "drain")`, availability).WithDefault(`"active"`),
		flags.Text("data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`),
		flags.Var("listen-addr", "", "node-addr", `Listen address (format: "<ip|interface>[:port]")`, nodeAddress).WithDefault(defaultListenAddr),
	}
}

func joinFlags() flags.Set {
	return append(memberFlags(), flags.Text("token", "", "Token for entry into the swarm"))
}

func initFlags() flags.Set {
	return append(memberFlags(),
		flags.Bool("autolock", "", "Enable manager autolocking (requiring an unlock key to start a stopped manager)"),
		flags.Duration("cert-expiry", "Validity period for node certificates (ns|us|ms|s|m|h)").WithDefault("2160h0m0s"),
		flags.Var("data-path-port", "", "uint32", "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.", port),
		flags.Many("default-addr-pool", "", "ipNetSlice", "default address pool in CIDR format", subnet),
		flags.Uint("default-addr-pool-mask-length", "default address pool subnet mask length").WithDefault("24"),
		flags.Duration("dispatcher-heartbeat", "Dispatcher heartbeat period (ns|us|ms|s|m|h)").WithDefault("5s"),
		flags.Many("external-ca", "", "external-ca", "Specifications of one or more certificate signing endpoints", externalCA),
		flags.Bool("force-new-cluster", "", "Force create a new cluster from current state"),
		flags.Uint("max-snapshots", "Number of additional Raft snapshots to retain"),
		flags.Uint("snapshot-interval", "Number of log entries between Raft snapshots").WithDefault("10000"),
		flags.Int("task-history-limit", "Task history retention limit").WithDefault("5"),
	)
}

// initRequest carries every flag of swarm init; what was not given is left to the server.
func initRequest(f flags.Set) (swarm.InitRequest, error) {
	r := swarm.InitRequest{
		ListenAddr:       orDefault(f.Text("listen-addr"), defaultListenAddr),
		AdvertiseAddr:    f.Text("advertise-addr"),
		DataPathAddr:     f.Text("data-path-addr"),
		DataPathPort:     flags.Get[uint32](f, "data-path-port"),
		ForceNewCluster:  f.Bool("force-new-cluster"),
		AutoLockManagers: f.Bool("autolock"),
		Availability:     swarm.NodeAvailability(f.Text("availability")),
		DefaultAddrPool:  []string{},
		SubnetSize:       24,
	}
	for _, pool := range flags.Get[[][]string](f, "default-addr-pool") {
		r.DefaultAddrPool = append(r.DefaultAddrPool, pool...)
	}
	if f.Changed("default-addr-pool-mask-length") {
		length := flags.Get[uint64](f, "default-addr-pool-mask-length")
		if length > 32 {
			return r, fmt.Errorf("invalid default-addr-pool-mask-length %d: must be at most 32", length)
		}
		r.SubnetSize = uint32(length)
	}
	swarmSpec(f, &r.Spec)
	r.Spec.EncryptionConfig.AutoLockManagers = r.AutoLockManagers
	return r, nil
}

// swarmSpec applies the flags that set the cluster's own spec.
func swarmSpec(f flags.Set, s *swarm.Spec) {
	if f.Changed("task-history-limit") {
		limit := flags.Get[int64](f, "task-history-limit")
		s.Orchestration.TaskHistoryRetentionLimit = &limit
	}
	if f.Changed("dispatcher-heartbeat") {
		s.Dispatcher.HeartbeatPeriod = flags.Get[time.Duration](f, "dispatcher-heartbeat")
	}
	if f.Changed("cert-expiry") {
		s.CAConfig.NodeCertExpiry = flags.Get[time.Duration](f, "cert-expiry")
	}
	if f.Changed("external-ca") {
		s.CAConfig.ExternalCAs = flags.Get[[]*swarm.ExternalCA](f, "external-ca")
	}
	if f.Changed("max-snapshots") {
		keep := flags.Get[uint64](f, "max-snapshots")
		s.Raft.KeepOldSnapshots = &keep
	}
	if f.Changed("snapshot-interval") {
		s.Raft.SnapshotInterval = flags.Get[uint64](f, "snapshot-interval")
	}
}

func (s *session) swarmInit(ctx context.Context, in input) error {
	request, err := initRequest(in.Set)
	if err != nil {
		return err
	}
	if err := s.ensureDaemon(ctx); err != nil {
		return err
	}
	api, err := s.api()
	if err != nil {
		return err
	}
	id, err := api.SwarmInit(ctx, request)
	if err != nil {
		return suggestAddress(err)
	}
	fmt.Fprintf(s.out, "Swarm initialized: current node (%s) is now a manager.\n\n", id)
	if err := s.printJoinCommand(ctx, id, true, false); err != nil {
		return err
	}
	fmt.Fprint(s.out, "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n")
	if !request.AutoLockManagers {
		return nil
	}
	return s.showUnlockKey(ctx)
}

func (s *session) swarmJoin(ctx context.Context, in input) error {
	if err := s.ensureDaemon(ctx); err != nil {
		return err
	}
	api, err := s.api()
	if err != nil {
		return err
	}
	err = api.SwarmJoin(ctx, swarm.JoinRequest{
		ListenAddr:    orDefault(in.Text("listen-addr"), defaultListenAddr),
		AdvertiseAddr: in.Text("advertise-addr"),
		DataPathAddr:  in.Text("data-path-addr"),
		RemoteAddrs:   []string{in.args[0]},
		JoinToken:     in.Text("token"),
		Availability:  swarm.NodeAvailability(in.Text("availability")),
	})
	if err != nil {
		return err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return err
	}
	role := "worker"
	if info.Swarm.ControlAvailable {
		role = "manager"
	}
	fmt.Fprintf(s.out, "This node joined a swarm as a %s.\n", role)
	return nil
}

func (s *session) swarmLeave(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	if in.Bool("force") {
		s.warnOfQuorum(ctx, api)
	}
	if err := api.SwarmLeave(ctx, in.Bool("force")); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "Node left the swarm.")
	return nil
}

// warnOfQuorum tells those who force a manager to leave when the others can not
// go on without it. Where nobody can say, there is none to lose.
func (s *session) warnOfQuorum(ctx context.Context, api *client.Client) {
	info, err := api.Info(ctx)
	if err != nil || !info.Swarm.ControlAvailable {
		return
	}
	nodes, err := api.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		return
	}
	others, reachable := 0, 0
	for _, n := range nodes {
		if n.ID == info.Swarm.NodeID || n.ManagerStatus == nil {
			continue
		}
		others++
		if n.ManagerStatus.Reachability == swarm.ReachabilityReachable {
			reachable++
		}
	}
	if needed := others/2 + 1; others > 0 && reachable < needed {
		fmt.Fprintf(s.err, "Warning: the swarm has no quorum without this manager: of the %d others %d can be reached and %d are needed. Its only way back is \"shoal swarm init --force-new-cluster\" on one of them.\n", others, reachable, needed)
	}
}

func (s *session) swarmJoinToken(ctx context.Context, in input) error {
	role := in.args[0]
	if role != "worker" && role != "manager" {
		return fmt.Errorf("unknown role %s", role)
	}
	api, err := s.api()
	if err != nil {
		return err
	}
	if in.Bool("rotate") {
		cluster, err := api.SwarmInspect(ctx)
		if err != nil {
			return err
		}
		rotate := swarm.UpdateFlags{RotateWorkerToken: role == "worker", RotateManagerToken: role == "manager"}
		if err := api.SwarmUpdate(ctx, cluster.Version, cluster.Spec, rotate); err != nil {
			return err
		}
		if !in.Bool("quiet") {
			fmt.Fprintf(s.out, "Successfully rotated %s join token.\n\n", role)
		}
	}
	if in.Bool("quiet") {
		cluster, err := api.SwarmInspect(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(s.out, token(cluster, role))
		return nil
	}
	if _, err := api.SwarmInspect(ctx); err != nil {
		// Asked first because a node that is no manager is told so here, and by /info only indirectly.
		return err
	}
	info, err := api.Info(ctx)
	if err != nil {
		return err
	}
	return s.printJoinCommand(ctx, info.Swarm.NodeID, role == "worker", role == "manager")
}

func token(cluster swarm.Swarm, role string) string {
	if role == "manager" {
		return cluster.JoinTokens.Manager
	}
	return cluster.JoinTokens.Worker
}

// printJoinCommand prints what to type on another host to add it.
func (s *session) printJoinCommand(ctx context.Context, nodeID string, worker, manager bool) error {
	node, _, err := s.conn.NodeInspectWithRaw(ctx, nodeID)
	if err != nil {
		return err
	}
	if node.ManagerStatus == nil {
		return nil
	}
	cluster, err := s.conn.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	if worker {
		fmt.Fprintf(s.out, "To add a worker to this swarm, run the following command:\n\n    shoal swarm join --token %s %s\n\n", cluster.JoinTokens.Worker, node.ManagerStatus.Addr)
	}
	if manager {
		fmt.Fprintf(s.out, "To add a manager to this swarm, run the following command:\n\n    shoal swarm join --token %s %s\n\n", cluster.JoinTokens.Manager, node.ManagerStatus.Addr)
	}
	return nil
}

func availability(s string) (string, error) {
	switch s {
	case "active", "pause", "drain":
		return s, nil
	}
	return "", errors.New("invalid availability, only active, pause and drain are supported")
}

// nodeAddress completes an address with what was left out of it.
func nodeAddress(s string) (string, error) {
	defaultHost, defaultPort, _ := net.SplitHostPort(defaultListenAddr)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
		if ip := net.ParseIP(s); ip == nil && len(s) > 0 && s[0] == '[' {
			host = s[1 : len(s)-1]
		}
	}
	host, port = orDefault(host, defaultHost), orDefault(port, defaultPort)
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("invalid port %q: must be a number up to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

func port(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, errors.New("must be a port from 1024 to 49151, or 0 for the default")
	}
	return uint32(n), nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

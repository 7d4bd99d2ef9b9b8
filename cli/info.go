package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/go-units"

	"shoal/cli/flags"
	"shoal/cli/format"
)

// nodeInfo is the answer to GET /info: the engine's, with the swarm's part, and what only a shoal daemon tells.
type nodeInfo struct {
	system.Info
	// Shoal has facts such as which data plane carries published ports.
	Shoal map[string]any `json:",omitempty"`
}

func (s *session) infoCommand() leaf {
	return leaf{
		name: "info", usage: "Display information on this node, its swarm and its engine", arity: none, run: s.info,
		flags: flags.Set{flags.Text("format", "f", format.InspectUsage)},
	}
}

func (s *session) info(ctx context.Context, in input) error {
	info, err := s.nodeInfo(ctx)
	if err != nil {
		return err
	}
	if in.Changed("format") {
		return format.One(s.out, in.Text("format"), info)
	}
	for _, warning := range append(slices.Clone(info.Warnings), info.Swarm.Warnings...) {
		fmt.Fprintln(s.err, warning)
	}
	return printInfo(s.out, s.app.Build.Version, s.host(), info)
}

// nodeInfo asks for /info by itself, because the Docker client drops the fields that it does not know.
func (s *session) nodeInfo(ctx context.Context) (nodeInfo, error) {
	var info nodeInfo
	api, err := s.api()
	if err != nil {
		return info, err
	}
	if info.Info, err = api.Info(ctx); err != nil {
		return info, err
	}
	var more struct{ Shoal map[string]any }
	if err := s.ask(ctx, http.MethodGet, "/v"+api.ClientVersion()+"/info", nil, &more); err != nil {
		return info, err
	}
	info.Shoal = more.Shoal
	return info, nil
}

func printInfo(w io.Writer, version, host string, info nodeInfo) error {
	var p page
	p.line("Client:")
	p.line(" Version:    %s", version)
	p.line(" Host:       %s", host)
	p.line("\nServer:")
	p.line(" Containers: %d", info.Containers)
	p.line("  Running: %d", info.ContainersRunning)
	p.line("  Paused: %d", info.ContainersPaused)
	p.line("  Stopped: %d", info.ContainersStopped)
	p.line(" Images: %d", info.Images)
	p.line(" Server Version: %s", info.ServerVersion)
	p.line(" Storage Driver: %s", info.Driver)
	p.line(" Logging Driver: %s", info.LoggingDriver)
	p.line(" Cgroup Driver: %s", info.CgroupDriver)
	if info.CgroupVersion != "" {
		p.line(" Cgroup Version: %s", info.CgroupVersion)
	}
	if len(info.Shoal) > 0 {
		p.line(" Shoal:")
		for _, key := range slices.Sorted(maps.Keys(info.Shoal)) {
			p.line("  %s: %v", words(key), info.Shoal[key])
		}
	}
	p.swarm(info.Swarm)
	p.line(" Kernel Version: %s", info.KernelVersion)
	p.line(" Operating System: %s", info.OperatingSystem)
	p.line(" OSType: %s", info.OSType)
	p.line(" Architecture: %s", info.Architecture)
	p.line(" CPUs: %d", info.NCPU)
	p.line(" Total Memory: %s", units.BytesSize(float64(info.MemTotal)))
	p.line(" Name: %s", info.Name)
	p.line(" ID: %s", info.ID)
	p.line(" Docker Root Dir: %s", info.DockerRootDir)
	if len(info.Labels) > 0 {
		p.line(" Labels:")
		for _, label := range info.Labels {
			p.line("  %s", label)
		}
	}
	p.line("")
	return p.flush(w)
}

// swarm has the lines that Docker's users read and grep for.
func (p *page) swarm(s swarm.Info) {
	p.line(" Swarm: %s", s.LocalNodeState)
	if s.LocalNodeState == swarm.LocalNodeStateInactive || s.LocalNodeState == swarm.LocalNodeStateLocked || s.LocalNodeState == "" {
		return
	}
	p.line("  NodeID: %s", s.NodeID)
	if s.Error != "" {
		p.line("  Error: %s", s.Error)
	}
	p.line("  Is Manager: %t", s.ControlAvailable)
	if c := s.Cluster; c != nil && s.ControlAvailable && s.Error == "" && s.LocalNodeState != swarm.LocalNodeStateError {
		p.cluster(s, c)
	}
	p.line("  Node Address: %s", s.NodeAddr)
	if len(s.RemoteManagers) > 0 {
		var addrs []string
		for _, m := range s.RemoteManagers {
			addrs = append(addrs, m.Addr)
		}
		slices.Sort(addrs)
		p.line("  Manager Addresses:")
		for _, addr := range addrs {
			p.line("   %s", addr)
		}
	}
}

func (p *page) cluster(s swarm.Info, c *swarm.ClusterInfo) {
	p.line("  ClusterID: %s", c.ID)
	p.line("  Managers: %d", s.Managers)
	p.line("  Nodes: %d", s.Nodes)
	if len(c.DefaultAddrPool) > 0 {
		p.line("  Default Address Pool: %s", strings.Join(c.DefaultAddrPool, "  "))
		p.line("  SubnetSize: %d", c.SubnetSize)
	}
	if c.DataPathPort > 0 {
		p.line("  Data Path Port: %d", c.DataPathPort)
	}
	p.line("  Orchestration:")
	limit := int64(0)
	if l := c.Spec.Orchestration.TaskHistoryRetentionLimit; l != nil {
		limit = *l
	}
	p.line("   Task History Retention Limit: %d", limit)
	p.line("  Raft:")
	p.line("   Snapshot Interval: %d", c.Spec.Raft.SnapshotInterval)
	if keep := c.Spec.Raft.KeepOldSnapshots; keep != nil {
		p.line("   Number of Old Snapshots to Retain: %d", *keep)
	}
	p.line("   Heartbeat Tick: %d", c.Spec.Raft.HeartbeatTick)
	p.line("   Election Tick: %d", c.Spec.Raft.ElectionTick)
	p.line("  Dispatcher:")
	p.line("   Heartbeat Period: %s", units.HumanDuration(c.Spec.Dispatcher.HeartbeatPeriod))
	p.line("  CA Configuration:")
	p.line("   Expiry Duration: %s", units.HumanDuration(c.Spec.CAConfig.NodeCertExpiry))
	p.line("   Force Rotate: %d", c.Spec.CAConfig.ForceRotate)
	if len(c.Spec.CAConfig.ExternalCAs) > 0 {
		p.line("   External CAs:")
		for _, ca := range c.Spec.CAConfig.ExternalCAs {
			p.line("     %s: %s", ca.Protocol, ca.URL)
		}
	}
	p.line("  Autolock Managers: %t", c.Spec.EncryptionConfig.AutoLockManagers)
	p.line("  Root Rotation In Progress: %t", c.RootRotationInProgress)
}

// words turns a JSON key into words: DataPlane is "Data Plane".
func words(key string) string {
	var out strings.Builder
	for i, r := range key {
		if i > 0 && r >= 'A' && r <= 'Z' && key[i-1] >= 'a' && key[i-1] <= 'z' {
			out.WriteByte(' ')
		}
		out.WriteRune(r)
	}
	return out.String()
}

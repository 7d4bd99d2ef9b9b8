package control

import (
	"net"
	"net/netip"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cluster/ca"
	"shoal/internal/api"
)

// Defaults of a new cluster: Swarm's.
const (
	defaultPool         = "10.0.0.0/8"
	defaultSubnetSize   = 24
	defaultDataPathPort = 4789
	// defaultSnapshotInterval is how many entries raft takes between snapshots.
	defaultSnapshotInterval = 10000
	minDataPathPort         = 1024
	maxDataPathPort         = 49151
	// maxSubnetSize leaves a network a gateway, a VIP and room for a few tasks.
	maxSubnetSize = 29
	// ingressVNI is the first of the tunnels' numbers that Swarm gives out;
	// smaller ones are left to the administrator.
	ingressVNI = 4096
)

// Founding is what a new cluster is made from: the request of its first node,
// and what that node knows of itself.
type Founding struct {
	Request     swarm.InitRequest
	ClusterID   string
	NodeID      string
	IngressID   string // of the ingress network
	RootCA      api.RootCA
	Key         string // names the key of the first node's certificate
	JoinTokens  swarm.JoinTokens
	UnlockKey   string // in case that the managers are to be locked
	Description swarm.NodeDescription
	Addr        string // host:port of the node's TLS port
	DataPath    string // where tunnels to it end
}

// First holds the first objects of a new cluster.
type First struct {
	Cluster *api.Cluster
	Ingress *api.Network
	Node    *api.Node
}

// Objects lists what goes into the store, in one transaction.
func (f *First) Objects() []api.Object { return []api.Object{f.Cluster, f.Ingress, f.Node} }

// Bootstrap makes the first objects of a new cluster, or says what is wrong with
// the request.
func Bootstrap(f Founding) (*First, error) {
	req := f.Request
	spec, err := foundingSpec(req)
	if err != nil {
		return nil, err
	}
	pools, size, err := addressPools(req.DefaultAddrPool, req.SubnetSize)
	if err != nil {
		return nil, err
	}
	port := req.DataPathPort
	if port == 0 {
		port = defaultDataPathPort
	}
	if port < minDataPathPort || port > maxDataPathPort {
		return nil, invalid("data path port %d is not in the valid range (%d-%d)", port, minDataPathPort, maxDataPathPort)
	}
	availability := req.Availability
	if err := normalizeAvailability(&availability); err != nil {
		return nil, err
	}
	return &First{
		Cluster: &api.Cluster{
			Meta:            api.Meta{ID: f.ClusterID},
			Spec:            spec,
			RootCA:          f.RootCA,
			JoinTokens:      f.JoinTokens,
			DefaultAddrPool: poolNames(pools),
			SubnetSize:      size,
			DataPathPort:    port,
			Lock:            foundingLock(spec.EncryptionConfig.AutoLockManagers, f.UnlockKey),
		},
		Ingress: ingressNetwork(f.IngressID, netip.PrefixFrom(pools[0].Addr(), int(size))),
		Node: &api.Node{
			Meta: api.Meta{ID: f.NodeID},
			Spec: swarm.NodeSpec{
				Annotations:  swarm.Annotations{Labels: map[string]string{}},
				Role:         swarm.NodeRoleManager,
				Availability: availability,
			},
			Role:        swarm.NodeRoleManager,
			Description: f.Description,
			Status:      swarm.NodeStatus{State: swarm.NodeStateUnknown, Addr: hostOf(f.Addr)},
			Addr:        f.Addr,
			DataPath:    f.DataPath,
			Keys:        []string{f.Key},
		},
	}, nil
}

// foundingSpec takes from the request what it says, and the rest from Swarm's
// defaults.
func foundingSpec(req swarm.InitRequest) (swarm.Spec, error) {
	in := req.Spec
	s := swarm.Spec{
		Annotations:   swarm.Annotations{Name: clusterName, Labels: map[string]string{}},
		Orchestration: swarm.OrchestrationConfig{TaskHistoryRetentionLimit: new(int64(5))},
		Raft: swarm.RaftConfig{
			SnapshotInterval:           defaultSnapshotInterval,
			KeepOldSnapshots:           new(uint64(0)),
			LogEntriesForSlowFollowers: 500,
			ElectionTick:               electionTick,
			HeartbeatTick:              heartbeatTick,
		},
		Dispatcher: swarm.DispatcherConfig{HeartbeatPeriod: defaultHeartbeat},
		CAConfig:   swarm.CAConfig{NodeCertExpiry: ca.DefaultNodeValidity},
	}
	merge(&s.Name, in.Name)
	if in.Labels != nil {
		s.Labels = in.Labels
	}
	if in.Orchestration.TaskHistoryRetentionLimit != nil {
		s.Orchestration = in.Orchestration
	}
	merge(&s.Raft.SnapshotInterval, in.Raft.SnapshotInterval)
	if in.Raft.KeepOldSnapshots != nil {
		s.Raft.KeepOldSnapshots = in.Raft.KeepOldSnapshots
	}
	merge(&s.Raft.LogEntriesForSlowFollowers, in.Raft.LogEntriesForSlowFollowers)
	merge(&s.Raft.ElectionTick, in.Raft.ElectionTick)
	merge(&s.Raft.HeartbeatTick, in.Raft.HeartbeatTick)
	merge(&s.Dispatcher.HeartbeatPeriod, in.Dispatcher.HeartbeatPeriod)
	expiry := s.CAConfig.NodeCertExpiry
	s.CAConfig = in.CAConfig
	s.CAConfig.SigningCACert, s.CAConfig.SigningCAKey = "", "" // it is in Founding.RootCA
	if s.CAConfig.NodeCertExpiry == 0 {
		s.CAConfig.NodeCertExpiry = expiry
	}
	s.TaskDefaults = in.TaskDefaults
	s.EncryptionConfig.AutoLockManagers = in.EncryptionConfig.AutoLockManagers || req.AutoLockManagers
	return s, validateCluster(&s)
}

func merge[T comparable](into *T, value T) {
	var zero T
	if value != zero {
		*into = value
	}
}

// addressPools checks where subnets of networks are cut from.
func addressPools(cidrs []string, size uint32) ([]netip.Prefix, uint32, error) {
	if len(cidrs) == 0 {
		cidrs = []string{defaultPool}
	}
	if size == 0 {
		size = defaultSubnetSize
	}
	if size > maxSubnetSize {
		return nil, 0, invalid("invalid subnet size %d: must be at most %d", size, maxSubnetSize)
	}
	var pools []netip.Prefix
	for _, cidr := range cidrs {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, 0, invalid("invalid CIDR address: %s", cidr)
		}
		p = p.Masked()
		switch {
		case !p.Addr().Is4():
			return nil, 0, invalid("address pool %s: only IPv4 pools can be used", cidr)
		case special(p) != "":
			return nil, 0, invalid("address pool %s: %s", cidr, special(p))
		case p.Bits() > int(size):
			return nil, 0, invalid("address pool %s is smaller than a subnet of size %d", cidr, size)
		}
		for _, o := range pools {
			if o.Overlaps(p) {
				return nil, 0, invalid("address pools %s and %s overlap", o, p)
			}
		}
		pools = append(pools, p)
	}
	return pools, size, nil
}

func poolNames(pools []netip.Prefix) []string {
	var names []string
	for _, p := range pools {
		names = append(names, p.String())
	}
	return names
}

// ingressNetwork is the network that published ports are reached through.
func ingressNetwork(id string, subnet netip.Prefix) *api.Network {
	return &api.Network{
		Meta: api.Meta{ID: id},
		Spec: swarm.NetworkSpec{
			Annotations:         swarm.Annotations{Name: "ingress", Labels: map[string]string{}},
			DriverConfiguration: &swarm.Driver{Name: "overlay"},
			Ingress:             true,
			IPAMOptions:         &swarm.IPAMOptions{Driver: swarm.Driver{Name: "default"}},
			Scope:               "swarm",
		},
		Subnets: []api.Subnet{{Prefix: subnet, Gateway: subnet.Addr().Next()}},
		VNI:     ingressVNI,
	}
}

// hostOf is the address without the port.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

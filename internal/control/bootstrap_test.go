package control

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
)

func TestBootstrapDefaults(t *testing.T) {
	f, err := Bootstrap(Founding{ClusterID: "c", NodeID: "n", IngressID: "i", Addr: "10.1.1.1"})
	if err != nil {
		t.Fatal(err)
	}
	s := f.Cluster.Spec
	if s.Name != "default" || *s.Orchestration.TaskHistoryRetentionLimit != 5 || s.Raft.SnapshotInterval != 10000 ||
		s.Raft.LogEntriesForSlowFollowers != 500 || s.Raft.ElectionTick != 10 || s.Raft.HeartbeatTick != 1 ||
		s.Dispatcher.HeartbeatPeriod != 5*time.Second || s.CAConfig.NodeCertExpiry != 90*24*time.Hour {
		t.Errorf("spec: %+v", s)
	}
	if c := f.Cluster; c.SubnetSize != 24 || len(c.DefaultAddrPool) != 1 || c.DefaultAddrPool[0] != "10.0.0.0/8" || c.DataPathPort != 4789 {
		t.Errorf("cluster: %+v", c)
	}
	n := f.Ingress
	if n.Spec.Name != "ingress" || !n.Spec.Ingress || n.Spec.Attachable || n.VNI != 4096 || len(n.Subnets) != 1 ||
		n.Subnets[0].Prefix.String() != "10.0.0.0/24" || n.Subnets[0].Gateway.String() != "10.0.0.1" {
		t.Errorf("ingress: %+v", n)
	}
	if f.Node.Spec.Availability != swarm.NodeAvailabilityActive || f.Node.Role != swarm.NodeRoleManager || f.Node.Status.Addr != "10.1.1.1" {
		t.Errorf("node: %+v", f.Node)
	}
}

func TestBootstrapRequest(t *testing.T) {
	var merged swarm.InitRequest
	merged.Spec.Dispatcher.HeartbeatPeriod = time.Second
	merged.Availability = swarm.NodeAvailabilityDrain
	merged.DefaultAddrPool, merged.SubnetSize = []string{"172.20.5.0/16", "172.30.0.0/16"}, 26
	f, err := Bootstrap(Founding{Request: merged})
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Cluster.Spec; s.Dispatcher.HeartbeatPeriod != time.Second || s.Raft.ElectionTick != 10 {
		t.Errorf("not merged: %+v", s)
	}
	if f.Ingress.Subnets[0].Prefix.String() != "172.20.0.0/26" || f.Cluster.DefaultAddrPool[0] != "172.20.0.0/16" {
		t.Errorf("pools: %v %v", f.Ingress.Subnets, f.Cluster.DefaultAddrPool)
	}
	if f.Node.Spec.Availability != swarm.NodeAvailabilityDrain {
		t.Errorf("availability: %s", f.Node.Spec.Availability)
	}

	for _, c := range []struct {
		name   string
		change func(*swarm.InitRequest)
		kind   func(error) bool
		want   string
	}{
		{"name", func(r *swarm.InitRequest) { r.Spec.Name = "other" }, errdefs.IsInvalidArgument, `swarm spec must be named "default"`},
		{"pool", func(r *swarm.InitRequest) { r.DefaultAddrPool = []string{"10.0.0.0"} }, errdefs.IsInvalidArgument, "invalid CIDR address: 10.0.0.0"},
		{"IPv6 pool", func(r *swarm.InitRequest) { r.DefaultAddrPool = []string{"fd00::/8"} }, errdefs.IsInvalidArgument, "only IPv4"},
		{"overlapping pools", func(r *swarm.InitRequest) { r.DefaultAddrPool = []string{"10.0.0.0/8", "10.1.0.0/16"} }, errdefs.IsInvalidArgument, "overlap"},
		{"small pool", func(r *swarm.InitRequest) { r.DefaultAddrPool = []string{"10.0.0.0/25"} }, errdefs.IsInvalidArgument, "smaller than a subnet"},
		{"subnet size", func(r *swarm.InitRequest) { r.SubnetSize = 31 }, errdefs.IsInvalidArgument, "invalid subnet size 31"},
		{"data path port", func(r *swarm.InitRequest) { r.DataPathPort = 80 }, errdefs.IsInvalidArgument, "data path port 80"},
		{"availability", func(r *swarm.InitRequest) { r.Availability = "off" }, errdefs.IsInvalidArgument, `invalid Availability: "off"`},
		{"certificates", func(r *swarm.InitRequest) { r.Spec.CAConfig.NodeCertExpiry = time.Minute }, errdefs.IsInvalidArgument, "minimum certificate expiry time is: 1h0m0s: --cert-expiry 1m0s is shorter"},
		{"external CA", func(r *swarm.InitRequest) { r.Spec.CAConfig.ExternalCAs = []*swarm.ExternalCA{nil} }, errdefs.IsNotImplemented, "external certificate authorities"},
		{"log driver", func(r *swarm.InitRequest) { r.Spec.TaskDefaults.LogDriver = &swarm.Driver{} }, errdefs.IsNotImplemented, "default log driver"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var req swarm.InitRequest
			c.change(&req)
			_, err := Bootstrap(Founding{Request: req})
			wantError(t, err, c.kind, c.want)
		})
	}
}

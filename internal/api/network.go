package api

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Subnet is one address range of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Range   netip.Prefix `json:",omitzero"` // part that addresses are taken from; zero for all of Prefix
	Gateway netip.Addr   // reserved for tools that expect one; traffic uses the link-local gateway
	// Aux are addresses that the user keeps for something else, by name.
	Aux map[string]netip.Addr `json:",omitempty"`
}

// Attachment is a task's place on one network.
type Attachment struct {
	NetworkID string
	Addr      netip.Prefix // address with the subnet's length, e.g. 10.0.0.7/24
	Aliases   []string     `json:",omitempty"`
}

// Endpoint tells a node how a service is reached: everything that the routing
// mesh, VIPs and names need. Only tasks that may take new connections are
// backends: RUNNING, and wanted so.
type Endpoint struct {
	ServiceID   string
	ServiceName string
	VIPs        []VIP
	Ports       []Port // ingress ports alone; host ports are the task's own
	// ProxyProtocol says that the service's tasks are told of their TCP clients by
	// PROXY protocol v2; see Settings.
	ProxyProtocol bool `json:",omitempty"`
	// Names is where and how the service is called, whether or not it has tasks.
	Names    []ServiceNames `json:",omitempty"`
	Backends []Backend      // in the order of their tasks' IDs
}

// ServiceNames are what a service is called on one network, besides its name.
type ServiceNames struct {
	NetworkID string
	Aliases   []string `json:",omitempty"`
}

// Serves tells whether a task is behind an endpoint. Backends are in the order of
// their tasks.
func (e *Endpoint) Serves(taskID string) bool {
	if e == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(e.Backends, taskID, func(b Backend, id string) int { return strings.Compare(b.TaskID, id) })
	return ok
}

// VIP is a service's virtual address on one network.
type VIP struct {
	NetworkID string
	Addr      netip.Addr
}

// Port is one published port.
type Port struct {
	Protocol  string // tcp, udp or sctp
	Target    uint16 // port inside the container
	Published uint16 // port of every node, or of one
}

// Backend is a task that serves an Endpoint.
type Backend struct {
	TaskID   string
	NodeID   string
	Slot     int
	Networks []Attachment
	// Hosts are what its container is called besides the task's name: its
	// hostname, and the short form of its ID.
	Hosts []string `json:",omitempty"`
	// Ports are those that it has on its node alone, as that reported them.
	Ports []Port `json:",omitempty"`
}

// Peer is another node as this one needs to know it.
type Peer struct {
	NodeID   string
	Hostname string
	Addr     string     // host:port of its one TLS port
	Manager  bool       // it may lead
	DataPath netip.Addr // where its tunnel ends
	// WireGuard is its end of encrypted networks.
	WireGuard WireGuard `json:",omitzero"`
	Down      bool      `json:",omitempty"` // the managers hold it for DOWN
	// Networkless is set where it has none of the cluster's networks.
	Networkless bool `json:",omitempty"`
}

// WireGuard is what others have to know of a node to exchange what only the two
// can read. The private halves never leave the node.
type WireGuard struct {
	// Key is the public key that the node uses, as WireGuard's tools print it; ""
	// if it has none.
	Key string `json:",omitempty"`
	// Next is the one that it will use, while others get to know it, and Last the
	// one that it used until lately.
	Next string `json:",omitempty"`
	Last string `json:",omitempty"`
	// Error says why the node can not encrypt now.
	Error string `json:",omitempty"`
}

// Works tells whether the node can exchange anything on encrypted networks.
func (w WireGuard) Works() bool { return w.Key != "" && w.Error == "" }

// WhyNot says why it can not.
func (w WireGuard) WhyNot() string {
	if w.Error != "" {
		return w.Error
	}
	return "its daemon is of a version before encrypted networks, or has not come up yet"
}

// SetWireGuard notes a node's keys, and since when it uses the first of them.
func (n *Node) SetWireGuard(w WireGuard, now time.Time) {
	switch {
	case w.Key == "":
		n.WireGuardSince = time.Time{}
	case w.Key != n.WireGuard.Key:
		n.WireGuardSince = now.UTC()
	}
	n.WireGuard = w
}

// Remote is a task on another node, for the routes to it. It is there for as
// long as the task may send or receive: also while it only finishes what it has
// begun, and is no backend any more. Guests are among them under their own IDs,
// also those of the node itself: it has to know which it holds.
type Remote struct {
	TaskID   string
	NodeID   string
	Networks []Attachment
	Names    []string `json:",omitempty"` // a guest's; a task's are with its service
}

// PortOwner says who on a node already holds a port.
type PortOwner struct {
	Protocol string
	Port     uint16
	Owner    string // such as "nginx (pid 123)" or "container db"; "" when it can not be known
}

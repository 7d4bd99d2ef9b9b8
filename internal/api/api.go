// Package api holds the nouns of shoal: the objects that managers replicate,
// and what a node is told of them. They wrap Docker's own swarm types, which
// are kept verbatim so that nothing is lost on the way to a Docker client.
//
// Stored objects are immutable and shared between readers. To change one,
// Clone it (a shallow copy) and replace, never modify in place, what hangs
// below it: slices, maps and pointers are shared with the original.
package api

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// Kind names a table of the store.
type Kind string

// The kinds of objects that managers replicate.
const (
	KindCluster  Kind = "cluster"
	KindNode     Kind = "node"
	KindService  Kind = "service"
	KindRevision Kind = "revision"
	KindTask     Kind = "task"
	KindNetwork  Kind = "network"
	KindGuest    Kind = "guest"
	KindSecret   Kind = "secret"
	KindConfig   Kind = "config"
	KindPiece    Kind = "piece"
	KindRegistry Kind = "registry"
)

// Meta is what every stored object carries. The store sets all of it but ID.
type Meta struct {
	ID string
	// Version is the raft index of the last change: the optimistic lock that
	// API clients see as Version.Index.
	Version   uint64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Head gives access to the embedded Meta through the Object interface.
func (m *Meta) Head() *Meta { return m }

// Docker gives the meta data the way Docker's types carry it.
func (m *Meta) Docker() swarm.Meta {
	return swarm.Meta{Version: swarm.Version{Index: m.Version}, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt}
}

// Object is anything the store replicates.
type Object interface {
	Kind() Kind
	Head() *Meta
}

// Cluster is the one object that describes the whole cluster. Its ID is the
// cluster ID.
type Cluster struct {
	Meta
	Spec            swarm.Spec
	RootCA          RootCA
	JoinTokens      swarm.JoinTokens
	DefaultAddrPool []string // CIDRs; subnets of new networks are cut from them
	SubnetSize      uint32   // prefix length of such a subnet
	// LastSubnet is the one that was cut last: the next search begins behind it,
	// so that the subnet of a removed network rests.
	LastSubnet   netip.Prefix `json:",omitzero"`
	DataPathPort uint32       // UDP port of the tunnels between nodes
	// GossipKeys seal what nodes say of each other's liveness. The first seals,
	// all open: a new one is known everywhere before it is used.
	GossipKeys      [][]byte
	GossipKeysSince time.Time // when they last changed
	GossipStep      uint64    // how often they have changed
	// WireGuardFrom has nodes that use a key from before make a new one.
	WireGuardFrom time.Time `json:",omitzero"`
	Lock          Lock      // of the managers' disks
	// Since is the version by which users last changed the cluster, if the
	// managers have changed it for their own ends since; 0 if they have not. An
	// update that is made from any version in between misses nothing.
	Since uint64 `json:",omitempty"`
}

// Pools are the prefixes that subnets of new networks are cut from.
func (c *Cluster) Pools() (pools []netip.Prefix) {
	for _, cidr := range c.DefaultAddrPool {
		if p, err := netip.ParsePrefix(cidr); err == nil { // it was checked when it was set
			pools = append(pools, p)
		}
	}
	return pools
}

// Tended is a copy for a change that the managers make for their own ends. It
// does not put the updates that users are making meanwhile out of sequence.
func (c *Cluster) Tended() *Cluster {
	n := Clone(c)
	if n.Since == 0 {
		n.Since = n.Version
	}
	return n
}

// Lock says with what managers seal their data keys at rest.
type Lock struct {
	Epoch uint64 // counts the changes
	Key   string // the unlock key; "" while managers are not locked
	// Pending is the next unlock key. It comes into force when somebody has
	// read it: a disk under a key that nobody knows could not be opened again.
	Pending string `json:",omitempty"`
	// Previous are unlock keys that the disk of some manager may still be under,
	// newest first.
	Previous []string `json:",omitempty"`
}

// RootCA is the cluster's own certificate authority, PEM encoded.
type RootCA struct {
	Cert []byte
	Key  []byte
	// Epoch counts the roots that came before this one.
	Epoch uint64 `json:",omitempty"`
	// Rotation is under way if it is not nil.
	Rotation *RootRotation `json:",omitempty"`
}

// RootRotation is the way to another root. It is part of the state, so that
// another leader goes on where the last one was.
type RootRotation struct {
	Cert        []byte // of the root to be
	Key         []byte
	CrossSigned []byte // the same key and name, vouched for by the current root
	Stage       RotationStage
}

// RotationStage is how far a rotation is.
type RotationStage string

// The stages of a rotation. It ends when every node has a certificate of the
// new root: that root is then the only one.
const (
	// RotationTrust: nodes learn to trust both roots; the old one signs.
	RotationTrust RotationStage = "trust"
	// RotationIssue: every node trusts both, and the new one signs.
	RotationIssue RotationStage = "issue"
)

// Trust is what a node has to know to keep its certificate good.
type Trust struct {
	Roots    []byte        // PEM: whom to trust, the current root first
	Issuer   []byte        // PEM: the root that signs now
	Validity time.Duration // how long a certificate of a node lives
}

// Trust tells what nodes should trust now.
func (c *Cluster) Trust() *Trust {
	t := &Trust{Roots: c.RootCA.Cert, Issuer: c.RootCA.Cert, Validity: c.Spec.CAConfig.NodeCertExpiry}
	if r := c.RootCA.Rotation; r != nil {
		t.Roots = slices.Concat(c.RootCA.Cert, r.Cert)
		if r.Stage == RotationIssue {
			t.Issuer = r.Cert
		}
	}
	return t
}

// Node is a member of the cluster, manager or worker.
type Node struct {
	Meta
	Spec        swarm.NodeSpec // Role and Availability as wanted by the user
	Role        swarm.NodeRole // role that its certificate gives it now
	Description swarm.NodeDescription
	Status      swarm.NodeStatus // changed by SetStatus alone
	DownSince   time.Time        `json:",omitzero"` // zero while it is not DOWN
	// NoEngine is set while its engine does not answer, which Status.Message is about
	// then: it keeps its tasks, and is given no others.
	NoEngine bool   `json:",omitempty"`
	Addr     string // host:port of its one TLS port
	DataPath string // address that tunnels to it end at
	// Networkless says why its tasks can be on no network of the cluster; "" if
	// they can.
	Networkless string `json:",omitempty"`
	// WireGuard is its end of encrypted networks, and WireGuardSince is when it
	// took the key that it uses.
	WireGuard      WireGuard `json:",omitzero"`
	WireGuardSince time.Time `json:",omitzero"`
	// Keys names the public keys that this node may renew an expired
	// certificate with: the one it last proved to have, and the one that was
	// last certified, whose certificate may have been lost on the way.
	Keys []string `json:",omitempty"`
}

// SetStatus notes how a node is, and since when it is DOWN. How its engine is only
// the node itself can say, and does so again.
func (n *Node) SetStatus(s swarm.NodeStatus, now time.Time) {
	n.NoEngine = false
	switch {
	case s.State != swarm.NodeStateDown:
		n.DownSince = time.Time{}
	case n.Status.State != swarm.NodeStateDown:
		n.DownSince = now.UTC()
	}
	n.Status = s
}

// StackLabel names the stack that an object is part of. Docker's client puts it on.
const StackLabel = "com.docker.stack.namespace"

// Service is what the user asked for, and what was allocated for it.
type Service struct {
	Meta
	Spec     swarm.ServiceSpec
	Previous *swarm.ServiceSpec // for rollback; nil before the first update
	// Revision is the one that tasks should have. It changes only with what a
	// running task can not follow in place: scaling leaves it alone.
	Revision         string
	PreviousRevision string
	Endpoint         swarm.Endpoint // ports and VIPs, with nothing left to choose
	UpdateStatus     *swarm.UpdateStatus
	JobStatus        *swarm.JobStatus
	RegistryAuth     string // X-Registry-Auth as the client sent it; "" for none
}

// Revision is a service's spec at one point in its life. It is immutable and
// stored once; tasks only point to it, which keeps a task record small.
type Revision struct {
	Meta
	ServiceID string
	Number    uint64 // counts from 1 within the service
	Spec      swarm.ServiceSpec
	// From is the number of the revision that was changed, and Changes says in
	// what. It is written down, as that revision may not be kept.
	From    uint64   `json:",omitempty"`
	Changes []string `json:",omitempty"`
	// Like is the ID of the first of the revisions that are alike, which may not be
	// kept; "" if that is this one.
	Like string `json:",omitempty"`
}

// Alike tells whether two revisions of a service differ in nothing but where
// their tasks are placed.
func (r *Revision) Alike(o *Revision) bool { return r.First() == o.First() }

// First is the ID of the first of the revisions that are alike.
func (r *Revision) First() string { return cmp.Or(r.Like, r.ID) }

// Task is one attempt at one slot of a service. It never goes backwards, never
// changes node and never restarts: a replacement is a new task in the slot.
type Task struct {
	Meta
	ServiceID string
	Revision  string
	// Slot counts from 1, in a job from 0. It is 0 where tasks are tied to nodes
	// instead: Home is that node then, and "" otherwise.
	Slot         int
	Home         string `json:",omitempty"`
	NodeID       string // "" until scheduled
	DesiredState swarm.TaskState
	Status       swarm.TaskStatus
	// Unhealthy is set on a running task that its node is about to stop. The
	// status has no place for that: its Err is for people alone.
	Unhealthy bool `json:",omitempty"`
	Networks  []Attachment
	// Generic is what the task got of its node's generic resources.
	Generic []swarm.GenericResource `json:",omitempty"`
	// NotBefore holds a replacement back (desired state READY) until its
	// back-off has passed.
	NotBefore time.Time
	// Attempts counts the attempts at this slot that ended in a row before this
	// one without a stable run: what a limit of restarts is about. Failures
	// counts those since the last that completed; it drives the back-off.
	Attempts, Failures int
	// Leave is set on a task that is to move: it runs until its successor does.
	Leave bool `json:",omitempty"`
	// StartBy is when the task has to be running if its service sets a time for
	// that; zero if it does not, or the task was not told to run yet.
	StartBy time.Time `json:",omitzero"`
	// Iteration is the run of a job that the task belongs to; nil if its service
	// is no job. A task of a job is there to complete: clients see "complete" as
	// its desired state where it is RUNNING here.
	Iteration *uint64 `json:",omitempty"`
}

// Network is an overlay network of the cluster.
type Network struct {
	Meta
	Spec    swarm.NetworkSpec
	Subnets []Subnet
	VNI     uint32
}

// Grounds gives the parts of the cluster's pools that the subnets of a network lie
// in, those that it is yet to get included; none if its user chose them, for then
// it gets no others. Those of an encrypted network are near each other: what its
// nodes keep from leaving in the clear, for it may be a subnet that they have not
// heard of, is not to be half of a company's addresses.
func (n *Network) Grounds(pools []netip.Prefix) []netip.Prefix {
	if n.Chosen() || len(n.Subnets) == 0 {
		return nil
	}
	if !n.Encrypted() {
		return pools
	}
	first := n.Subnets[0].Prefix
	for _, p := range pools {
		if p.Contains(first.Addr()) {
			return []netip.Prefix{netip.PrefixFrom(first.Addr(), max(p.Bits(), first.Bits()-nearby)).Masked()}
		}
	}
	return nil
}

// nearby says how many subnets an encrypted network has at most: 256.
const nearby = 8

// Chosen tells whether the user said which subnets a network has.
func (n *Network) Chosen() bool {
	return n.Spec.IPAMOptions != nil && slices.ContainsFunc(n.Spec.IPAMOptions.Configs, func(c swarm.IPAMConfig) bool { return c.Subnet != "" })
}

// OptionEncrypted is the driver option, in its spec, that asks for a network
// whose traffic between nodes nobody can read.
const OptionEncrypted = "encrypted"

// Encrypted tells whether the user wants that. The option alone says yes.
func (n *Network) Encrypted() bool {
	if n.Spec.DriverConfiguration == nil {
		return false
	}
	value, given := n.Spec.DriverConfiguration.Options[OptionEncrypted]
	on, err := strconv.ParseBool(value)
	return given && (on || err != nil)
}

// Guest is the place on an attachable network of a container that is no task.
// Its node asks for it when the container is connected, and gives it back.
type Guest struct {
	Meta
	NodeID    string
	NetworkID string
	Wanted    netip.Addr   `json:",omitzero"`  // the address that its user asked for
	Addr      netip.Prefix `json:",omitzero"`  // zero until it is given
	Err       string       `json:",omitempty"` // why there is none to be had
	// Names are what its container goes by on the network, its own name first.
	Names []string `json:",omitempty"`
}

// Kind implements Object.
func (*Guest) Kind() Kind { return KindGuest }

// Kind implements Object.
func (*Cluster) Kind() Kind { return KindCluster }

// Kind implements Object.
func (*Node) Kind() Kind { return KindNode }

// Kind implements Object.
func (*Service) Kind() Kind { return KindService }

// Kind implements Object.
func (*Revision) Kind() Kind { return KindRevision }

// Kind implements Object.
func (*Task) Kind() Kind { return KindTask }

// Kind implements Object.
func (*Network) Kind() Kind { return KindNetwork }

// Clone returns a shallow copy of an object, to be changed and put back.
func Clone[T any](o *T) *T {
	c := *o
	return &c
}

package doctor

import "time"

// Facts are what was seen of a node, by itself and by its peers.
type Facts struct {
	Now    time.Time
	Name   string // of this host
	Engine Engine
	Kernel Kernel
	Disk   Disk

	State  State
	Since  time.Time // when the node began to be one, or did again
	NodeID string
	Member *Member // nil unless State is Active
}

// State is how this node stands to a cluster.
type State string

const (
	Apart   State = "apart"   // in none
	Pending State = "pending" // in one that has not told it anything yet
	Locked  State = "locked"
	Active  State = "active"
)

// Engine is what the local Docker engine says of itself.
type Engine struct {
	Error         string // it does not answer: the rest is empty
	Version       string
	Swarm         string // its own swarm mode
	Driver        string
	CgroupDriver  string
	CgroupVersion string
	Warnings      []string
}

// Kernel is what this host's kernel lets us do.
type Kernel struct {
	Release      string
	NetAdmin     bool
	NetRaw       bool
	Missing      map[string]string // feature: why it can not be used
	Forwarding   bool
	Conntrack    int // connections in its table
	ConntrackMax int
	BridgeNF     bool // br_netfilter shows bridged packets to the firewall
}

// Disk is where the data directory lies.
type Disk struct {
	Dir         string
	Error       string
	Free, Total uint64 // bytes
	FilesFree   uint64
	FilesTotal  uint64        // 0 where the file system does not count them
	Sync        time.Duration // one small write, made durable
}

// Member is what a node in a cluster knows besides.
type Member struct {
	Certificate Certificate
	Peers       []Peer
	Raft        *Raft       // nil on a worker
	Nodes       []Node      // all of the cluster; none on a worker
	Session     bool        // the leader has a session with this node
	Encryption  *Encryption // nil while this node has no encrypted network
	Drift       Drift
	Ports       []HeldPort
}

// Certificate is this node's.
type Certificate struct {
	From, To   time.Time
	Renew      time.Time // when it is due
	RootsUntil time.Time // when the first root that it rests on ends
}

// Peer is another node, and the ways to and from it.
type Peer struct {
	ID       string
	Hostname string
	Addr     string // host:port
	DataPath string // host:port
	WirePort uint16 // of WireGuard; 0 where it is not tried
	Manager  bool
	Gossip   string // what gossip makes of it: alive, daemon down, gone, or unknown

	There Way // from here to there
	Back  Way // from there to here

	// Skew is how far its clock is ahead of ours, give or take Within; Within is
	// zero if it did not say.
	Skew, Within time.Duration

	Leader  string // who leads according to it; managers alone
	Applied uint64 // how far it has applied raft's log
	Session bool   // it leads, and has a session with this node
}

// Name calls a peer by its hostname, as people do.
func (p Peer) Name() string {
	if p.Hostname != "" {
		return p.Hostname
	}
	return p.ID
}

// Way is one direction between two nodes.
type Way struct {
	TCP Probe // the port between nodes
	UDP Probe // gossip, the same number
	Tun Probe // the tunnel's port
	// Wire is WireGuard's, where this node has encrypted networks.
	Wire Probe
}

// Probe is what came of trying one port.
type Probe struct {
	Tried bool
	Error string // empty: it came through
}

// Raft is this manager's part in agreement.
type Raft struct {
	State   string
	Leader  string
	Applied uint64
	Last    uint64
	Voters  int
}

// Node is a node as the managers know it.
type Node struct {
	Name      string
	Manager   bool
	Ready     bool
	Down      bool
	DownSince time.Time // zero: that was not noted
	Left      bool      // by its own will
	NoEngine  bool      // its engine does not answer
	Message   string    // why it is Down, or has no engine
	Closed    string    // "drained" or "paused"; "" if it takes tasks
	HoldsUp   []string  // services whose tasks wait, and that it would take were it not closed
	Staying   int       // tasks that still run there though it is drained
}

// Encryption is how this node's part in encrypted networks is.
type Encryption struct {
	Error    string    // why it has none; the rest is empty
	KeySince time.Time // zero: the managers do not know its key yet
	Others   []Encrypted
}

// Encrypted is another node, as WireGuard knows it.
type Encrypted struct {
	Name   string
	NoKey  string    // why it has none; "" if it has
	Last   time.Time // when the two last agreed on a key of their own; zero: never
	Unsaid bool      // something was sent, and never answered
}

// Drift is how this node differs from what the managers want of it.
type Drift struct {
	Known      bool // the managers have said what they want
	Network    []string
	Mesh       []string
	Missing    []string // tasks that should have a container and have none
	Superseded []string // containers that run for no task of this node
	Error      string   // the engine could not be asked for containers
}

// HeldPort is a published port that something else on this host has.
type HeldPort struct {
	Port  string // 8080/tcp
	Owner string
}

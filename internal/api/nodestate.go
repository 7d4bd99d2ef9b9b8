package api

import (
	"cmp"
	"net/netip"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// NodeState is everything the managers want of one node, complete as of Index.
// It is immutable: whoever receives one compares it with what is there and
// changes the difference.
type NodeState struct {
	Index     uint64 // raft index that this state reflects
	ClusterID string
	// DataPathPort is the UDP port of the tunnels between nodes. It never
	// changes in the life of a cluster.
	DataPathPort uint32
	AddrPools    []netip.Prefix // what subnets of networks are cut from; they never change either

	Node       *Node
	Tasks      map[string]*Assignment // by task ID
	Networks   map[string]*Network    // by network ID: those that Tasks use, and the ingress network
	Endpoints  map[string]*Endpoint   // by service ID
	GossipKeys [][]byte               // the first seals, all open
	Remotes    map[string]*Remote     // by task ID: tasks elsewhere on the networks of Networks
	Peers      map[string]Peer        // by node ID, without the node itself
	Files      map[string]*File       // by file ID: the secrets and configs of Tasks; never to be written to disk
	Pieces     map[string]*Piece      // by piece ID: their data
	Trust      *Trust                 // nil: nothing is known of it yet

	WireGuardFrom time.Time // a key for encrypted networks from before is to be replaced
}

// Assignment is one task as the node that runs it sees it.
type Assignment struct {
	Task         *Task
	Revision     *Revision
	RegistryAuth string `json:",omitempty"` // that came with the service
	ClusterAuth  string `json:",omitempty"` // of the cluster for the image's registry
	// Draining says that the task is to stop, and that other nodes may still give
	// it new connections: its stop signal waits until that is over.
	Draining bool `json:",omitempty"`
}

// TaskReport is what a node observed of one of its tasks.
type TaskReport struct {
	TaskID    string
	Status    swarm.TaskStatus
	Unhealthy bool `json:",omitempty"` // see Task
}

// LogOptions select what of a task's output is wanted.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool
	Details        bool
	Since, Until   string // as the engine takes them: Unix time, RFC 3339 or a duration
	Tail           string // "all" or a number
}

// SlotName is a task's name without its ID: web.1, or web.<node id> where tasks
// are tied to nodes. Docker calls the first slot of a job so, too.
func SlotName(serviceName string, t *Task) string {
	if t.Slot == 0 {
		return serviceName + "." + cmp.Or(t.NodeID, t.Home)
	}
	return serviceName + "." + strconv.Itoa(t.Slot)
}

// TaskName is the name of a task, and of its container: web.1.<task id>.
func TaskName(serviceName string, t *Task) string {
	return SlotName(serviceName, t) + "." + t.ID
}

// Terminal tells whether a task in this state will never run again.
func Terminal(s swarm.TaskState) bool {
	switch s {
	case swarm.TaskStateComplete, swarm.TaskStateShutdown, swarm.TaskStateFailed,
		swarm.TaskStateRejected, swarm.TaskStateRemove, swarm.TaskStateOrphaned:
		return true
	}
	return false
}

// order is the life of a task; a later state never gives way to an earlier one.
var order = map[swarm.TaskState]int{
	swarm.TaskStateNew: 0, swarm.TaskStateAllocated: 1, swarm.TaskStatePending: 2,
	swarm.TaskStateAssigned: 3, swarm.TaskStateAccepted: 4, swarm.TaskStatePreparing: 5,
	swarm.TaskStateReady: 6, swarm.TaskStateStarting: 7, swarm.TaskStateRunning: 8,
	swarm.TaskStateComplete: 9, swarm.TaskStateShutdown: 10, swarm.TaskStateFailed: 11,
	swarm.TaskStateRejected: 12, swarm.TaskStateRemove: 13, swarm.TaskStateOrphaned: 14,
}

// Before tells whether state a comes before state b in the life of a task.
func Before(a, b swarm.TaskState) bool { return order[a] < order[b] }

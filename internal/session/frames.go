// Package session is the stream between a node and the leader, both ends of
// it. The node dials; the leader streams the node's complete wanted state and
// then what changes of it, and the node streams back what it observes.
//
// On the wire it is one HTTP/2 request with JSON frames, one to a line, in
// both directions. A frame carries one object at most, so its size has a bound
// that no size of the cluster can reach; lists are streamed.
package session

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// maxFrame bounds a frame, in bytes. The largest object there can be is one
// raft entry (512 KiB); the rest is room for the frame around it.
const maxFrame = 1 << 20

// Paths of the two requests a node makes.
const (
	PathSession = "/shoal/session"
	PathCall    = "/shoal/session/call/" // followed by the ID of the call
)

// LeaderHeader is how a manager that does not lead names the one that does:
// its node ID, a space, and its host:port.
const LeaderHeader = "Shoal-Leader"

// down is a frame from the leader. One field is set.
type down struct {
	Welcome      *welcome      `json:",omitempty"`
	Heartbeat    time.Duration `json:",omitempty"` // the period changed
	Beat         bool          `json:",omitempty"`
	Node         *api.Node     `json:",omitempty"`
	Trust        *api.Trust    `json:",omitempty"`
	Revision     *api.Revision `json:",omitempty"`
	RevisionGone string        `json:",omitempty"`
	Task         *task         `json:",omitempty"`
	TaskGone     string        `json:",omitempty"`
	Network      *api.Network  `json:",omitempty"`
	NetworkGone  string        `json:",omitempty"`
	Endpoint     *api.Endpoint `json:",omitempty"` // without its backends
	EndpointGone string        `json:",omitempty"`
	Backend      *backend      `json:",omitempty"`
	BackendGone  *backendKey   `json:",omitempty"`
	Remote       *api.Remote   `json:",omitempty"`
	RemoteGone   string        `json:",omitempty"`
	GossipKeys   [][]byte      `json:",omitempty"`
	WireGuard    time.Time     `json:",omitzero"` // keys from before are to be replaced
	Peer         *api.Peer     `json:",omitempty"`
	PeerGone     string        `json:",omitempty"`
	File         *api.File     `json:",omitempty"`
	FileGone     string        `json:",omitempty"`
	Piece        *api.Piece    `json:",omitempty"`
	PieceGone    string        `json:",omitempty"`
	Commit       *commit       `json:",omitempty"`
	Call         *call         `json:",omitempty"`
}

// welcome opens the leader's side: what follows is a complete state.
type welcome struct {
	ClusterID    string
	DataPathPort uint32
	AddrPools    []netip.Prefix
	Heartbeat    time.Duration
}

// task is an assignment whose revision travels on its own, once for all tasks.
type task struct {
	Task         *api.Task
	RegistryAuth string `json:",omitempty"`
	ClusterAuth  string `json:",omitempty"`
	Draining     bool   `json:",omitempty"`
}

type backend struct {
	ServiceID string
	Backend   api.Backend
}

type backendKey struct{ ServiceID, TaskID string }

// commit ends a batch of frames: the state is complete as of Index. Number counts
// the commits of a session, from 1; the node names it when it has done its part.
type commit struct {
	Index  uint64
	Number uint64
}

// call asks the node to run a method and to send the output in a request to
// PathCall + ID.
type call struct {
	ID     string
	Method string
	Args   json.RawMessage
}

// up is a frame from the node. One field is set.
type up struct {
	Hello  *Hello          `json:",omitempty"`
	Beat   bool            `json:",omitempty"`
	Period time.Duration   `json:",omitempty"` // the heartbeat period that it keeps from now on
	Report *api.TaskReport `json:",omitempty"`
	// Applied is the number of a commit: this node gives new connections to
	// nobody that the state up to there does not list.
	Applied uint64 `json:",omitempty"`
}

// Hello is what a node says of itself, first and whenever it changes.
type Hello struct {
	Description swarm.NodeDescription
	Addr        string // host:port of its TLS port, as others reach it
	DataPath    string // address that tunnels to it end at
	// Networkless says why tasks on this node can be on no network; "" if they can.
	Networkless string `json:",omitempty"`
	WireGuard   api.WireGuard
	// EngineError says why the node can not run tasks; "" if it can.
	EngineError string `json:",omitempty"`
	// EngineSilent says why it is to be given no more of them for the moment; ""
	// if it may be.
	EngineSilent string `json:",omitempty"`
}

// frameReader reads frames of bounded size.
type frameReader struct{ s *bufio.Scanner }

func newFrameReader(r io.Reader) *frameReader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4<<10), maxFrame)
	return &frameReader{s}
}

// next reads one frame into v, or returns io.EOF.
func (f *frameReader) next(v any) error {
	if !f.s.Scan() {
		if err := f.s.Err(); err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		return io.EOF
	}
	if err := json.Unmarshal(f.s.Bytes(), v); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

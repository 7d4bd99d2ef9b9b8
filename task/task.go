// Package task runs on every node: it makes the containers of one engine what
// the managers want of this node, one task at a time, and reports what it saw.
//
// A task never goes backwards and never restarts. What to do next is decided by
// next, a pure function; the Worker only carries it out.
package task

import (
	"context"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Executor drives one engine. Its methods may be called concurrently, but never
// twice at once for the same task.
//
// An error of kind errdefs.ErrUnavailable says that the engine could not be
// asked, which tells nothing about the task; errdefs.ErrNotFound says that
// there is no such container. Any other error is about the task, in one line
// that a user can read.
type Executor interface {
	// Watch connects to the engine, calls up once nothing that happens from
	// then on is missed, and hint whenever something may have happened to a
	// task's container. It returns when the connection is lost. A hint carries
	// no facts: Inspect does.
	Watch(ctx context.Context, up func(), hint func(taskID string)) error

	// List gives every container that carries the cluster's label. Only the
	// fields that Container marks as listed are filled.
	List(ctx context.Context, clusterID string) ([]Container, error)

	// Inspect gives everything about one container.
	Inspect(ctx context.Context, containerID string) (*Container, error)

	// Pull sees to it that the task's image is there, by whatever means.
	Pull(ctx context.Context, a *api.Assignment) error

	// Create makes the task's container and attaches it to its networks. It is
	// safe to repeat, and then finishes what an earlier call left half done.
	Create(ctx context.Context, s *api.NodeState, a *api.Assignment) (containerID string, err error)

	// Start starts a container that was created.
	Start(ctx context.Context, containerID string) error

	// Stop sends the container its stop signal, waits for its grace period and
	// kills it. Both were fixed when it was created, so that a container whose
	// task nobody remembers still ends as its owner wished.
	Stop(ctx context.Context, containerID string) error

	// Remove removes a container and its anonymous volumes.
	Remove(ctx context.Context, containerID string) error

	// SyncNetworks removes the cluster's networks that are not in the state, and
	// makes the attachable ones that are: containers that are no tasks need them.
	// Those that a container still uses stay, and inUse says so. It is safe to
	// repeat. The state is asked for once nothing else makes networks: by an older
	// one, a network that a task was just given would go.
	SyncNetworks(ctx context.Context, state func() *api.NodeState) (inUse bool, err error)
}

// Phase is where a container is in its life.
type Phase string

// The phases of a container. A paused container counts as running: its task is
// neither finished nor failed.
const (
	Created Phase = "created"
	Running Phase = "running"
	Exited  Phase = "exited"
)

// Health is what a container's health check says of it.
type Health string

// The verdicts of a health check. A container without one has NoHealth.
const (
	NoHealth  Health = ""
	Starting  Health = "starting"
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
)

// Container is what the engine says of a task's container.
type Container struct {
	ID     string // listed
	TaskID string // listed
	Phase  Phase  // listed
	Health Health // listed

	PID       int
	ExitCode  int
	OOMKilled bool
	Signalled bool // it was sent a signal to end by
	// Error is why the engine could not start it, in one line.
	Error string
	// Complaint is the last that a failing health check printed, in one line.
	Complaint  string
	FinishedAt time.Time
	// Ports are those published on the host for this container alone.
	Ports []swarm.PortConfig
}

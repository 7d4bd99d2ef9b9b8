// Package control holds the verbs of the cluster's API: each method checks what
// it is asked for, fills in defaults and makes one update of the store. What
// then has to happen is decided elsewhere, by whoever watches the store.
package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

// PortChecker asks the nodes which ports something outside the cluster holds.
type PortChecker interface {
	// InUse names the owners of those of the ports that are taken. Ports of the
	// routing mesh and of the cluster's own tasks do not count as taken. It asks
	// all nodes at once and returns what it learned when ctx ends.
	InUse(ctx context.Context, ports []api.Port) ([]NodePortOwner, error)
}

// NodePortOwner is a port that is taken on a node.
type NodePortOwner struct {
	Node string // hostname
	api.PortOwner
}

// Members knows how the managers are doing: facts of raft, not of the store.
type Members interface {
	// Leader is the node ID of the leader, "" if there is none.
	Leader() string
	// Reachable tells whether a manager was heard of lately.
	Reachable(nodeID string) bool
	// Applied is how much of the managers' log is in the store.
	Applied() uint64
}

// Config is what Control works with.
type Config struct {
	Store   *store.Store
	Ports   PortChecker // nil: nobody to ask
	Members Members     // nil: nothing is known of managers
	Log     *zap.Logger
}

// Control carries out what API clients ask for. Its methods are safe for
// concurrent use.
type Control struct {
	store   *store.Store
	ports   PortChecker
	members Members
	log     *zap.Logger
	now     func() time.Time

	// references is held by whoever removes secrets and configs, and shared by
	// those who come to refer to them. A transaction that only refers to an object
	// does not move its version, so that the store alone would not notice.
	references sync.RWMutex
	// writes is shared by all transactions but those with a condition; see transact.
	writes sync.RWMutex
}

// New returns a Control on a store.
func New(c Config) *Control {
	return &Control{store: c.Store, ports: c.Ports, members: c.Members, log: c.Log.Named("control"), now: time.Now}
}

// View is the state that reads are answered from.
func (c *Control) View() *store.View { return c.store.View() }

// Watch tells of changes to objects of these kinds; see store.Feed.
func (c *Control) Watch(kinds ...api.Kind) *store.Feed { return c.store.Watch(kinds...) }

// ErrOutOfSequence answers an update that was made from an older version of the
// object. Clients look for its words, and for status 500, to read and try again.
var ErrOutOfSequence = errdefs.ErrUnknown.WithMessage("rpc error: code = Unknown desc = update out of sequence")

// uniqueRetries bounds how often a transaction runs again because another one
// took its name or port first. Each time means that somebody else got through.
const uniqueRetries = 50

// update is one transaction. If another one takes a unique key between this one
// and its commit, fn runs again and sees it: it chooses another port, or says in
// its own words what is in the way.
func (c *Control) update(ctx context.Context, fn func(tx *store.Tx) error) error {
	var err error
	for range uniqueRetries {
		var refused error
		err = c.transact(ctx, func(tx *store.Tx) error {
			refused = fn(tx)
			return refused
		})
		if refused != nil || !errors.Is(err, errdefs.ErrAlreadyExists) {
			break
		}
	}
	return err
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf(format, args...) + " not supported by this version of shoal")
}

func notFound(kind api.Kind, ref string) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("%s %s not found", kind, ref))
}

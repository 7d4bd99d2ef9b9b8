// Package cluster is what makes one of many: raft among the managers, the one
// TLS port between all nodes, and, in package ca, who they are to each other.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"go.uber.org/zap"

	"shoal/cluster/ca"
	"shoal/cluster/seal"
)

// TLSDir and RaftDir are the parts of a data directory that are the cluster's.
func TLSDir(dataDir string) string  { return filepath.Join(dataDir, "tls") }
func RaftDir(dataDir string) string { return filepath.Join(dataDir, "raft") }

// KeyFile is where a manager's data key lies: see package seal.
func KeyFile(dataDir string) string { return filepath.Join(RaftDir(dataDir), "key") }

// NodeConfig says which node to be.
type NodeConfig struct {
	DataDir     string
	Credentials *ca.Credentials // ca.Load(TLSDir(DataDir), Key)
	Key         *seal.Key       // of the raft log; needed by managers alone
	ListenAddr  string          // DefaultListenAddr if empty
	Start       Start
	Machine     StateMachine // needed by managers alone
	Resolve     Resolver     // where other managers listen; nil while there are none
	Admit       Admit
	Logger      *zap.Logger

	SnapshotEntries uint64 // see RaftConfig
}

// Node is a member of the cluster: its port, and raft if it is a manager. The
// data directory must be locked (LockDir) by whoever runs it.
type Node struct {
	Port *Port
	Raft *Raft // nil on a worker
}

// NewNode only wires.
func NewNode(cfg NodeConfig) *Node {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	log := cfg.Logger.Named("cluster")
	n := &Node{Port: NewPort(PortConfig{
		Addr: cfg.ListenAddr, Credentials: cfg.Credentials, Admit: cfg.Admit, Logger: log,
	})}
	id := cfg.Credentials.Identity()
	if id.Role != ca.RoleManager {
		return n
	}
	resolve := cfg.Resolve
	if resolve == nil {
		resolve = func(nodeID string) (string, error) {
			return "", fmt.Errorf("no address is known for node %s", nodeID)
		}
	}
	n.Raft = NewRaft(RaftConfig{
		Dir:             RaftDir(cfg.DataDir),
		Key:             cfg.Key,
		Start:           cfg.Start,
		Machine:         cfg.Machine,
		Transport:       n.Port.RaftTransport(resolve),
		Logger:          log,
		SnapshotEntries: cfg.SnapshotEntries,
	})
	return n
}

// Run is the node's life. It ends when ctx does, without an error, or when a
// part of it fails, with that.
func (n *Node) Run(ctx context.Context) error {
	// Raft goes before the port does: it may want to hand leadership over.
	portCtx, stopPort := context.WithCancel(context.WithoutCancel(ctx))
	raftCtx, stopRaft := context.WithCancel(ctx)
	defer stopRaft()
	portDone := make(chan error, 1)
	go func() {
		err := n.Port.Run(portCtx)
		stopRaft() // without the port there is no taking part
		portDone <- err
	}()

	// The port is bound first: an address that is taken is the ordinary
	// mistake, and must not leave a new cluster behind on disk.
	var err error
	select {
	case <-n.Port.Ready():
		if n.Raft != nil {
			err = n.Raft.Run(raftCtx)
		} else {
			<-raftCtx.Done()
		}
	case <-raftCtx.Done():
	}
	stopPort()
	return errors.Join(err, <-portDone)
}

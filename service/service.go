// Package service turns services into tasks: it creates, places, restarts,
// updates and removes them. It runs on the leader alone.
//
// All thinking is in plan, a pure function of one service and its tasks; the
// loop round it learns of changes from the store's feed, plans what is dirty,
// finds addresses and nodes, and commits. What it keeps in memory is rebuilt
// from the store when leadership begins.
package service

import (
	"context"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Config is what an Orchestrator needs.
type Config struct {
	Store *store.Store
	Log   *zap.Logger
}

// Orchestrator makes the tasks follow the services.
type Orchestrator struct {
	store *store.Store
	log   *zap.Logger
}

// New returns an Orchestrator; Run does the work.
func New(c Config) *Orchestrator {
	return &Orchestrator{store: c.Store, log: c.Log.Named("service")}
}

// retryDelay is how long a failed commit rests. The store was not able to write
// at all, so that an earlier attempt would only add to the load.
const retryDelay = time.Second

// Run works until ctx ends, which is when this manager stops being the leader.
// It may be called again later. A cluster that is as it should be stays
// untouched, however often leadership changes.
func (o *Orchestrator) Run(ctx context.Context) error {
	feed := o.store.Watch(api.KindCluster, api.KindNode, api.KindService, api.KindTask, api.KindNetwork, api.KindGuest)
	defer feed.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()

	t := newTerm(o.store, o.log)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-feed.Ready():
		case <-timer.C:
		}
		dirty, all := feed.Take()
		view := o.store.View()
		if all {
			t.rebuild(view)
		} else {
			t.absorb(view, dirty)
		}
		t.round(ctx, view, time.Now())
		timer.Stop()
		if at, ok := t.wakes.first(); ok {
			timer.Reset(time.Until(at))
		}
	}
}

package daemon

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// farewellTime bounds how long a leader that stops tries to hand over.
	farewellTime = 2 * time.Second
	// lastAnswers is for requests that were under way when it had: they end as
	// soon as raft has refused or committed what they ask for.
	lastAnswers = 200 * time.Millisecond
)

// outlast gives a context that ends after ctx, once a manager that led has
// handed over: until then it answers, so that a planned stop costs no client of
// another manager its request. release waits for that to be over.
func (m *manager) outlast(ctx context.Context) (longer context.Context, release func()) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		m.farewell(longer)
		end()
	})
	return longer, func() {
		end()
		if !stop() {
			<-said
		}
	}
}

// farewell hands leadership to another manager, if there is one.
func (m *manager) farewell(ctx context.Context) {
	if !m.leading.Load() || m.others() == 0 {
		return
	}
	within, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	if err := m.cluster.Raft.TransferLeadership(within, ""); err != nil {
		m.log.Info("could not hand over before stopping; the others elect", zap.Error(err))
		return
	}
	select {
	case <-time.After(lastAnswers):
	case <-ctx.Done():
	}
}

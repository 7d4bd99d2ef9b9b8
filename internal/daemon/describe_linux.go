package daemon

import (
	"context"
	"time"

	"go.uber.org/zap"

	"shoal/internal/session"
)

const (
	// lookEvery is how often the engine is asked whether it is there.
	lookEvery = 3 * time.Second
	// describeEvery is how often it is asked what it is: labels and plugins
	// change rarely, and an engine runs commands to answer.
	describeEvery = 30 * time.Second
	// enginePatience is how long an engine may be away before the node says
	// that it can not run tasks. A restart of a busy engine takes seconds.
	enginePatience = 10 * time.Second
)

// describe tells the managers what this node is, until ctx ends.
func (m *member) describe(ctx context.Context) error {
	h := session.Hello{Addr: m.id.AdvertiseAddr, DataPath: m.id.DataPathAddr}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var gone time.Time      // since when the engine does not answer; zero while it does
	var described time.Time // when it last said what it is
	for {
		now := time.Now()
		d := h.Description
		var err error
		ask, cancel := context.WithTimeout(ctx, enginePatience)
		if gone.IsZero() && now.Sub(described) < describeEvery {
			err = m.engine.Ping(ask)
		} else if d, err = m.engine.Describe(ask); err == nil {
			described = now
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if h.EngineError != "" {
				m.log.Info("the engine answers again")
			}
			h.Description, h.EngineError, gone = d, "", time.Time{}
		case gone.IsZero():
			gone = now // what was known of the engine stays until it is back, or given up
			m.log.Warn("the engine does not answer", zap.Error(err))
		case now.Sub(gone) >= enginePatience && h.EngineError == "":
			h.EngineError = "Docker engine: " + err.Error()
		}
		h.Description.TLSInfo, h.WireGuard = m.keeper.info(), m.cipher.public()
		m.client.Hello(h) // is sent if it is news
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-m.keeper.changed:
		case <-m.cipher.changed:
		}
	}
}

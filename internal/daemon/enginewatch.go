package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/internal/session"
)

const (
	// lookEvery is how often an engine is asked whether it is there, and awayEvery
	// while it is not: it is given tasks again as soon as it is back.
	lookEvery = time.Second
	awayEvery = 200 * time.Millisecond
	// describeEvery is how often it is asked what it is: labels and plugins
	// change rarely, and an engine runs commands to answer.
	describeEvery = 30 * time.Second
	// pingTime and describeTime are how long such questions may take. One that is
	// not answered in time is asked again.
	pingTime     = 5 * time.Second
	describeTime = 10 * time.Second
)

// askable is what is asked of an engine here.
type askable interface {
	Ping(ctx context.Context) error
	Describe(ctx context.Context) (swarm.NodeDescription, error)
}

// engineWord is what is known of an engine.
type engineWord struct {
	state       engineState
	why         string                 // of silent and gone
	description *swarm.NodeDescription // what it said last; nil if it never did
}

// say puts it into what a node says of itself. What was known of an engine stays
// until it says something else.
func (w engineWord) say(h *session.Hello) {
	h.EngineSilent, h.EngineError = "", ""
	switch w.state {
	case engineSilent:
		h.EngineSilent = w.why
	case engineGone:
		h.EngineError = w.why
	}
	if w.description != nil {
		h.Description = *w.description
	}
}

// engineAnswer is how a question ended.
type engineAnswer struct {
	description *swarm.NodeDescription // nil of a ping
	err         error
}

// watchEngine asks an engine how and what it is, and tells what came of it, until
// ctx ends. How long an engine takes over an answer holds up no judgement of it.
func watchEngine(ctx context.Context, e askable, log *zap.Logger, tell func(engineWord)) {
	var asks sync.WaitGroup
	defer asks.Wait()
	answers := make(chan engineAnswer)
	ask := func(patience time.Duration, question func(context.Context) engineAnswer) {
		asks.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			select {
			case answers <- question(bounded):
			case <-ctx.Done():
			}
		})
	}
	ping := func(ctx context.Context) engineAnswer { return engineAnswer{err: e.Ping(ctx)} }
	describe := func(ctx context.Context) engineAnswer {
		d, err := e.Describe(ctx)
		return engineAnswer{&d, err}
	}
	var (
		life       engineLife
		word       engineWord
		described  time.Time // when it last said what it is; zero: it may be another by now
		describing bool
	)
	look, turn := time.NewTimer(0), time.NewTimer(0)
	defer look.Stop()
	defer turn.Stop()
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case <-turn.C:
			now = time.Now()
		case <-look.C:
			now = time.Now()
			life.asked(now)
			ask(pingTime, ping)
		case a := <-answers:
			now = time.Now()
			describing = describing && a.description == nil
			switch {
			case a.err != nil:
				life.fails(now, a.err)
				described = time.Time{}
			case a.description != nil:
				life.answers(now)
				word.description, described = a.description, now
			case !described.IsZero():
				life.answers(now)
			}
			if a.description != nil {
				break
			}
			if a.err == nil && !describing && now.Sub(described) >= describeEvery {
				describing = true
				ask(describeTime, describe)
			}
			look.Reset(lookEvery)
			if !life.owes.IsZero() {
				look.Reset(awayEvery)
			}
		}
		turn.Stop()
		if next := life.judge(now); !next.IsZero() {
			turn.Reset(time.Until(next))
		}
		if life.state == engineUnknown {
			continue
		}
		if life.state != word.state {
			logEngine(log, &life)
		}
		word.state, word.why = life.state, life.why
		tell(word)
	}
}

func logEngine(log *zap.Logger, l *engineLife) {
	if l.state == engineAnswers {
		log.Info("the engine answers")
	} else {
		log.Warn("this node's engine can not be given tasks", zap.String("reason", l.why))
	}
}

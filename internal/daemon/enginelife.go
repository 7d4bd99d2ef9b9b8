package daemon

import (
	"cmp"
	"fmt"
	"time"
)

const (
	// quietAfter is how long an engine may owe an answer before the node says that
	// it is to be given no tasks: they would wait for it. To be wrong costs little.
	quietAfter = 1500 * time.Millisecond
	// goneAfter is how long until the node says that it can not run tasks at all,
	// and those that it has are replaced: as long as Swarm waits for a heartbeat. A
	// restart of a busy engine takes seconds.
	goneAfter = 15 * time.Second
	// steadyAfter is how long an engine has to answer for its outages to be past.
	steadyAfter = 30 * time.Second
	// holdMin and holdMax bound how long one that comes and goes has to answer
	// before it is given tasks again, from its second outage on. Each change is an
	// entry in the managers' log, and tasks on it would not last.
	holdMin = 2 * time.Second
	holdMax = 16 * time.Second
)

// engineState is what the managers are told of an engine.
type engineState int

const (
	engineUnknown engineState = iota // not asked yet, or just now for the first time
	engineAnswers
	engineSilent // it is to be given no tasks
	engineGone   // its tasks are to be replaced
)

// engineLife judges an engine by when it was asked and when it answered.
type engineLife struct {
	state engineState
	why   string // of silent and gone

	owes    time.Time // since when it owes an answer; zero while it owes none
	err     string    // what came instead of the last one; "" for nothing
	back    time.Time // since when it has answered
	outages int       // in a row, without a steady time between
}

func (l *engineLife) asked(now time.Time) {
	if l.owes.IsZero() {
		l.owes = now
	}
}

func (l *engineLife) answers(now time.Time) {
	l.owes, l.err = time.Time{}, ""
	if l.back.IsZero() {
		l.back = now
	}
}

func (l *engineLife) fails(now time.Time, err error) {
	l.asked(now)
	l.err, l.back = err.Error(), time.Time{}
}

// judge brings the state up to date, and says when it changes if nothing is heard
// until then; zero: it does not.
func (l *engineLife) judge(now time.Time) (next time.Time) {
	quiet := l.owes.Add(quietAfter)
	if l.state == engineUnknown && l.err != "" {
		quiet = l.owes // nothing speaks for it
	}
	switch {
	case l.owes.IsZero():
		return l.answering(now)
	case now.Before(quiet):
		return quiet
	case !now.Before(l.owes.Add(goneAfter)):
		if l.state != engineGone {
			l.state, l.why = engineGone, "Docker engine: "+cmp.Or(l.err, "no answer")
		}
		return time.Time{}
	}
	l.back = time.Time{}
	if l.state == engineUnknown || l.state == engineAnswers {
		l.silent()
	}
	return l.owes.Add(goneAfter)
}

// answering is judge of an engine that owes nothing.
func (l *engineLife) answering(now time.Time) (next time.Time) {
	steady := l.back.Add(steadyAfter)
	switch {
	case l.back.IsZero(): // it was not asked yet
	case l.state == engineUnknown:
		l.state = engineAnswers
	case l.state == engineAnswers && !now.Before(steady):
		l.outages = 0
	case l.state == engineAnswers:
	case now.Before(l.back.Add(l.hold())):
		if l.state == engineGone { // what it runs may stay
			l.state, l.why = engineSilent, l.unsteady()
		}
		return l.back.Add(l.hold())
	default:
		l.state, l.why = engineAnswers, ""
	}
	return time.Time{}
}

// silent begins an outage. What it says holds until the engine is believed again,
// so that coming and going meanwhile is no news.
func (l *engineLife) silent() {
	if l.state == engineAnswers {
		l.outages++
	}
	l.state = engineSilent
	l.why = "Docker engine does not answer"
	if l.err != "" {
		l.why += ": " + l.err
	}
	if l.hold() > 0 { // nobody is told of a dead engine that it comes and goes
		l.why += fmt.Sprintf("; not for the first time lately: it is given tasks once it has answered for %s", l.hold())
	}
}

// unsteady is said of an engine that was gone and answers.
func (l *engineLife) unsteady() string {
	return fmt.Sprintf("Docker engine answers again; it comes and goes, and is given tasks once it has answered for %s", l.hold())
}

// hold is how long it has to answer before it is believed.
func (l *engineLife) hold() time.Duration {
	if l.outages < 2 {
		return 0
	}
	return min(holdMin<<min(l.outages-2, 8), holdMax)
}

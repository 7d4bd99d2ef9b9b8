package task

// stopsPerStart is how many containers may be stopping for each that may be
// starting. A stop mostly waits out a grace period, so that few at a time would
// make a node slow to drain, and all at once would flood the engine.
const stopsPerStart = 8

// pullsAtOnce is how many images are pulled at once, the engine's own default
// for the layers of one.
const pullsAtOnce = 3

// inspectsAtOnce keeps a resync of many containers from swamping the engine.
const inspectsAtOnce = 4

// lane bounds how many actions of some kinds are under way at once.
type lane struct {
	free   int
	queues []queue // the earlier ones go first
}

// queue holds, oldest first, the tasks that wait to do one kind of action.
type queue struct {
	do      action
	waiting []*entry
}

func newLane(size int, does ...action) *lane {
	l := &lane{free: size}
	for _, do := range does {
		l.queues = append(l.queues, queue{do: do})
	}
	return l
}

// lanes gives each action its lane. Starting goes before making, so that the
// first of many tasks serves while the last are being made.
func lanes(starts int) map[action]*lane {
	all := []*lane{
		newLane(pullsAtOnce, pull),
		newLane(starts, start, create),
		newLane(starts*stopsPerStart, stop),
		newLane(starts, remove),
		newLane(inspectsAtOnce, inspect),
	}
	byAction := map[action]*lane{}
	for _, l := range all {
		for _, q := range l.queues {
			byAction[q.do] = l
		}
	}
	return byAction
}

// wait queues an entry for an action, unless it waits for it already.
func (l *lane) wait(e *entry, do action) {
	if e.queued == do {
		return
	}
	e.queued = do
	for i := range l.queues {
		if l.queues[i].do == do {
			l.queues[i].waiting = append(l.queues[i].waiting, e)
		}
	}
}

// pop gives the next entry in turn; nil when the lane is full or nobody waits.
func (l *lane) pop() *entry {
	if l.free == 0 {
		return nil
	}
	for i := range l.queues {
		q := &l.queues[i]
		for len(q.waiting) > 0 {
			e := q.waiting[0]
			q.waiting[0] = nil
			q.waiting = q.waiting[1:]
			if e.queued == q.do { // else it has changed its mind meanwhile
				e.queued = nothing
				return e
			}
		}
	}
	return nil
}

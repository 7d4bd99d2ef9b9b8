package task

import "time"

// shutdownSlack is how long before this node loses an engine's connection its
// containers may end because the engine is being stopped. An engine hangs up
// first and stops its containers then; the news of the one may come late.
const shutdownSlack = time.Second

// outage is when the engine was last away, as far as this run has seen.
type outage struct {
	from, to time.Time // to is zero until it is back
}

// began notes that the engine hung up.
func (o *outage) began(now time.Time) { o.from, o.to = now, time.Time{} }

// ended notes that the engine is back.
func (o *outage) ended(now time.Time) { o.to = now }

// covers tells whether a container that ended then was stopped together with its
// engine. It was told to stop and did; that it may have done so with exit code 0
// does not mean that its work was done.
func (o *outage) covers(end time.Time) bool {
	return !o.from.IsZero() && end.After(o.from.Add(-shutdownSlack)) && (o.to.IsZero() || end.Before(o.to))
}

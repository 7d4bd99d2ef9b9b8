// Package wake tells somebody that there is something to do.
package wake

// Bell rings until it is heard, once however often it was rung meanwhile. Who
// hears it has to look at everything.
type Bell chan struct{}

// NewBell makes one that does not ring.
func NewBell() Bell { return make(Bell, 1) }

// Ring never waits.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default: // it rings already
	}
}

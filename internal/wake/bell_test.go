package wake

import "testing"

func TestBell(t *testing.T) {
	b := NewBell()
	heard := func() bool {
		select {
		case <-b:
			return true
		default:
			return false
		}
	}
	if heard() {
		t.Error("a new bell rings")
	}
	for range 3 {
		b.Ring()
	}
	if !heard() || heard() {
		t.Error("a bell that was rung three times is not heard once")
	}
	b.Ring()
	if !heard() {
		t.Error("it does not ring again")
	}
}

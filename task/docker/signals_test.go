package docker

import "testing"

func TestSignals(t *testing.T) {
	s := newSignals()
	s.note("reloaded", "1")
	s.note("stopped", "15")
	s.note("killed", "9")
	s.note("gone", "15")
	s.forget("gone")
	for id, want := range map[string]bool{"reloaded": false, "stopped": true, "killed": true, "gone": false, "unheard of": false} {
		if got := s.to(id); got != want {
			t.Errorf("%s: %v", id, got)
		}
	}
}

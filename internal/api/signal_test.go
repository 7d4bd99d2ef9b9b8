package api

import "testing"

func TestKnownSignal(t *testing.T) {
	for s, want := range map[string]bool{
		"SIGTERM": true, "term": true, "sigusr1": true, "15": true, "64": true, "SIGRTMIN+3": true, "RTMAX-14": true, "SIGRTMIN": true,
		"": false, "SIGFOO": false, "0": false, "65": false, "-9": false, "SIG": false, "SIGRTMIN+16": false, "SIGRTMIN+": false, "RTMAX-0": false, "SIGSIGTERM": false, "1.5": false,
	} {
		if got := KnownSignal(s); got != want {
			t.Errorf("KnownSignal(%q) is %v", s, got)
		}
	}
}

func TestEither(t *testing.T) {
	for want, words := range map[string][]string{"": nil, "a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := Either(words...); got != want {
			t.Errorf("Either(%q) is %q", words, got)
		}
	}
}

package daemon

import "testing"

func TestWithPort(t *testing.T) {
	for given, want := range map[string]string{
		"192.0.2.1":         "192.0.2.1:2377",
		"192.0.2.1:7000":    "192.0.2.1:7000",
		"manager":           "manager:2377",
		"manager:7000":      "manager:7000",
		"2001:db8::1":       "[2001:db8::1]:2377",
		"[2001:db8::1]":     "[2001:db8::1]:2377",
		"[2001:db8::1]:700": "[2001:db8::1]:700",
	} {
		if got := withPort(given); got != want {
			t.Errorf("%s is %s, want %s", given, got, want)
		}
	}
}

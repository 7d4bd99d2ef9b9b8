package nearest

import "testing"

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"service", "servcie", 2}, {"nod", "node", 1}, {"ls", "rm", 2}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%s to %s is %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestWord(t *testing.T) {
	words := []string{"create", "inspect", "ls", "privileged", "update"}
	for _, test := range []struct{ word, want string }{
		{"craete", "create"},
		{"ls", "ls"},
		{"priv", "privileged"},
		{"updaet", "update"},
		{"remove", ""},
	} {
		if got := Word(test.word, words); got != test.want {
			t.Errorf("%s: %q, want %q", test.word, got, test.want)
		}
	}
}

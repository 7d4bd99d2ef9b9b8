package sim

import (
	"testing"
	"time"
)

// TestCheck gives the checker histories that are right and wrong.
func TestCheck(t *testing.T) {
	create := func(v string) Call { return Call{Kind: Create, Name: "a", Value: v} }
	get := Call{Kind: Get, Name: "a"}
	read := func(v string, version uint64) Answer { return Answer{Outcome: Done, Value: v, Version: version} }
	ok := Answer{Outcome: Done}
	type turn struct {
		call   Call
		answer Answer
	}
	for name, c := range map[string]struct {
		turns []turn
		right bool
	}{
		"write, read":                {[]turn{{create("x"), ok}, {get, read("x", 1)}}, true},
		"a lost write":               {[]turn{{create("x"), ok}, {get, Answer{Outcome: Missing}}}, false},
		"a stale read":               {[]turn{{create("x"), ok}, {Call{Kind: Update, Name: "a", Value: "y", Was: "x", Seen: 1}, ok}, {get, read("x", 1)}}, false},
		"a stale version":            {[]turn{{create("x"), ok}, {get, read("x", 5)}, {get, read("x", 4)}}, false},
		"unknown, and done":          {[]turn{{create("x"), Answer{}}, {get, read("x", 1)}}, true},
		"unknown, and not":           {[]turn{{create("x"), Answer{}}, {get, Answer{Outcome: Missing}}}, true},
		"unknown, and later":         {[]turn{{create("x"), Answer{}}, {get, Answer{Outcome: Missing}}, {get, read("x", 1)}}, true},
		"unknown, there and gone":    {[]turn{{create("x"), Answer{}}, {get, read("x", 1)}, {get, Answer{Outcome: Missing}}}, false},
		"two updates of one version": {[]turn{{create("x"), ok}, {Call{Kind: Update, Name: "a", Value: "y", Was: "x", Seen: 1}, ok}, {Call{Kind: Update, Name: "a", Value: "z", Was: "x", Seen: 1}, ok}}, false},
		"created twice":              {[]turn{{create("x"), ok}, {create("y"), ok}}, false},
		"exists, but does not":       {[]turn{{create("x"), Answer{Outcome: Exists}}}, false},
		"deleted, and read":          {[]turn{{create("x"), ok}, {Call{Kind: Delete, Name: "a"}, ok}, {get, read("x", 2)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHistory()
			for _, turn := range c.turns {
				h.Begin(1, "n1", turn.call)(turn.answer)
			}
			broken, err := h.Check(time.Minute)
			if err != nil || (broken == "") != c.right {
				t.Errorf("judged %q, %v", broken, err)
			}
		})
	}
}

package sim

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what a client asks for.
type Kind string

const (
	Get    Kind = "get"
	Create Kind = "create"
	Update Kind = "update" // of what was read before, at that version
	Delete Kind = "delete"

	theEnd Kind = "end" // of a history: what comes after it did not happen
)

// Call is what a client asks of one object.
type Call struct {
	Kind  Kind
	Name  string
	Value string // to write; no value is written twice
	Was   string // Update: the value that was read
	Seen  uint64 // Update: the version that was read
}

// Outcome is what the client was told.
type Outcome int

const (
	Unknown  Outcome = iota // nothing certain: it may take effect, now, later or never
	Done                    // it took effect
	Missing                 // there is no such object
	Exists                  // there is one already
	Conflict                // it was changed since it was read: nothing took effect
	Refused                 // nothing took effect, and nothing is said of the object
)

func (o Outcome) String() string {
	return [...]string{"unknown", "done", "missing", "exists", "conflict", "refused"}[o]
}

// Answer is what a client was told, with what it read.
type Answer struct {
	Outcome Outcome
	Value   string
	Version uint64
}

// History is what happened, seen by clients. Its clock counts calls and returns,
// so that what came first is exact whatever the time.
type History struct {
	mu    sync.Mutex
	begin time.Time
	clock int64
	ops   []*op
}

type op struct {
	client       int
	via          string
	call         Call
	answer       Answer
	begin, end   int64
	began, ended time.Duration
}

// NewHistory begins one.
func NewHistory() *History { return &History{begin: time.Now()} }

// Begin notes a call; what it returns notes the answers, of which a list has
// one for each name.
func (h *History) Begin(client int, via string, calls ...Call) (end func(answers ...Answer)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	var begun []*op
	for _, c := range calls {
		o := &op{client: client, via: via, call: c, begin: h.clock, end: math.MaxInt64, began: time.Since(h.begin)}
		begun = append(begun, o)
		h.ops = append(h.ops, o)
	}
	return func(answers ...Answer) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.clock++
		for i, a := range answers {
			o := begun[i]
			o.answer, o.ended = a, time.Since(h.begin)
			if a.Outcome != Unknown {
				o.end = h.clock
			}
		}
	}
}

// Count counts operations by outcome.
func (h *History) Count() map[Outcome]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[Outcome]int{}
	for _, o := range h.ops {
		n[o.answer.Outcome]++
	}
	return n
}

// Check tells which object's history no order of its operations explains, ""
// if all is well. A search that takes too long is an error.
func (h *History) Check(limit time.Duration) (broken string, err error) {
	for _, name := range h.names() {
		var ops []porcupine.Operation
		for _, o := range h.of(name) {
			if o.answer.Outcome == Unknown && o.call.Kind == Get || o.answer.Outcome == Refused {
				continue // says nothing
			}
			ops = append(ops, porcupine.Operation{ClientId: o.client, Input: o.call, Output: o.answer, Call: o.begin, Return: o.end})
		}
		// Behind all that was answered comes the end, and behind the end all
		// that never took effect. Without it each of those could stand anywhere,
		// and the search would try.
		ops = append(ops, porcupine.Operation{Input: Call{Kind: theEnd}, Output: Answer{Outcome: Done}, Call: math.MaxInt64 - 1, Return: math.MaxInt64})
		switch porcupine.CheckOperationsTimeout(model, ops, limit) {
		case porcupine.Illegal:
			return name, nil
		case porcupine.Unknown:
			return name, fmt.Errorf("%d operations on %s could not be judged in %s", len(ops), name, limit)
		}
	}
	return "", nil
}

func (h *History) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, o := range h.ops {
		if !slices.Contains(names, o.call.Name) {
			names = append(names, o.call.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (h *History) of(name string) []*op {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []*op
	for _, o := range h.ops {
		if o.call.Name == name {
			ops = append(ops, o)
		}
	}
	slices.SortStableFunc(ops, func(a, b *op) int { return cmp.Compare(a.begin, b.begin) })
	return ops
}

// Dump writes the history of one object, for people.
func (h *History) Dump(w io.Writer, name string) {
	for _, o := range h.of(name) {
		end := "      -"
		if o.ended > 0 {
			end = fmt.Sprintf("%7.3f", o.ended.Seconds())
		}
		var what strings.Builder
		fmt.Fprintf(&what, "%s %s", o.call.Kind, o.call.Value)
		if o.call.Kind == Update {
			fmt.Fprintf(&what, " for %s@%d", o.call.Was, o.call.Seen)
		}
		fmt.Fprintf(&what, ": %s", o.answer.Outcome)
		if o.answer.Value != "" {
			fmt.Fprintf(&what, " %s@%d", o.answer.Value, o.answer.Version)
		}
		fmt.Fprintf(w, "%7.3f %s  client %d via %s: %s\n", o.began.Seconds(), end, o.client, o.via, what.String())
	}
}

// state is one object as the model sees it.
type state struct {
	value string // "" while there is no such object
	// version is what the object has at least: what a client read in it, or
	// one more than what was replaced. The cluster itself may write as well, and
	// leave the value alone.
	version uint64
	over    bool // theEnd has come
}

// model is an object that can be made, read, replaced if it is still what was
// read, and removed.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, input, output any) (bool, any) {
		return step(s.(state), input.(Call), output.(Answer))
	},
}

func step(s state, c Call, a Answer) (bool, state) {
	exists := s.value != ""
	switch a.Outcome {
	case Missing:
		return !exists, s
	case Exists, Conflict:
		return exists, s
	}
	switch {
	case s.over:
		return a.Outcome == Unknown, s
	case c.Kind == theEnd:
		return true, state{over: true}
	case c.Kind == Get:
		return exists && s.value == a.Value && a.Version >= s.version, state{value: s.value, version: a.Version}
	case c.Kind == Create:
		return !exists, state{value: c.Value, version: s.version + 1}
	case c.Kind == Update:
		return s.value == c.Was && s.version <= c.Seen, state{value: c.Value, version: c.Seen + 1}
	default: // Delete
		return exists, state{version: s.version + 1}
	}
}

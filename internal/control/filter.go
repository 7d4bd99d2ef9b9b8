package control

import (
	"slices"
	"strings"

	"github.com/docker/docker/api/types/filters"

	"shoal/internal/api"
)

// accept refuses filters that a list does not know.
func accept(f filters.Args, known ...string) error {
	ok := make(map[string]bool, len(known))
	for _, k := range known {
		ok[k] = true
	}
	for _, k := range f.Keys() {
		if !ok[k] {
			shown := slices.DeleteFunc(slices.Sorted(slices.Values(known)), func(k string) bool { return strings.HasPrefix(k, "_") }) // those are between programs
			return invalid("invalid filter '%s': it can be %s", k, api.Either(shown...))
		}
	}
	return nil
}

// anyOf tells whether one of a filter's values fits; no value at all fits
// everything.
func anyOf(f filters.Args, key string, fits func(value string) bool) bool {
	values := f.Get(key)
	if len(values) == 0 {
		return true
	}
	for _, v := range values {
		if fits(v) {
			return true
		}
	}
	return false
}

// prefix tells whether s begins with one of a filter's values, as Swarm matches
// names and IDs.
func prefix(f filters.Args, key, s string) bool {
	return anyOf(f, key, func(v string) bool { return strings.HasPrefix(s, v) })
}

// labelled tells whether labels hold all of a filter's values, each "key" or
// "key=value".
func labelled(f filters.Args, key string, labels map[string]string) bool {
	for _, want := range f.Get(key) {
		name, value, valued := strings.Cut(want, "=")
		got, ok := labels[name]
		if !ok || valued && got != value {
			return false
		}
	}
	return true
}

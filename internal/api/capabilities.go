package api

import (
	"slices"
	"strings"
)

// Capabilities resolves what to add and drop: names in full (net_admin is
// CAP_NET_ADMIN), each once, in order. What is both added and dropped is added, and
// ALL swallows the rest of its list.
func Capabilities(add, drop []string) (adds, drops []string) {
	adds, drops = inFull(add), inFull(drop)
	if slices.Contains(drops, "ALL") {
		drops = []string{"ALL"}
	}
	if slices.Contains(adds, "ALL") {
		return []string{"ALL"}, drops
	}
	drops = slices.DeleteFunc(drops, func(name string) bool { return slices.Contains(adds, name) })
	return adds, drops
}

func inFull(list []string) []string {
	var out []string
	for _, name := range list {
		if name = Capability(name); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Capability is the full name of a Linux capability. ALL and RESET stay.
func Capability(name string) string {
	name = strings.ToUpper(strings.TrimSpace(name))
	if name == "" || name == "ALL" || name == "RESET" || strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

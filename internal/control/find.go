package control

import (
	"iter"

	"shoal/internal/api"
	"shoal/internal/store"
)

// find looks an object up as Docker does: by its whole ID, then by its exact
// name, then by the beginning of its ID if only one object has that.
func find[T api.Object](t *store.Table[T], kind api.Kind, ref string, named iter.Seq[T]) (T, error) {
	var none T
	if ref == "" {
		return none, notFound(kind, ref)
	}
	if o, ok := t.Get(ref); ok {
		return o, nil
	}
	for _, candidates := range []iter.Seq[T]{named, t.Prefix(ref)} {
		found, count := none, 0
		for o := range candidates {
			found = o
			count++
		}
		switch {
		case count == 1:
			return found, nil
		case count > 1:
			return none, invalid("%s %s is ambiguous (%d matches found)", kind, ref, count)
		}
	}
	return none, notFound(kind, ref)
}

func findNode(v *store.View, ref string) (*api.Node, error) {
	return find(v.Nodes, api.KindNode, ref, v.Nodes.By(store.ByName, ref))
}

func findService(v *store.View, ref string) (*api.Service, error) {
	return find(v.Services, api.KindService, ref, v.Services.By(store.ByName, ref))
}

func findNetwork(v *store.View, ref string) (*api.Network, error) {
	return find(v.Networks, api.KindNetwork, ref, v.Networks.By(store.ByName, ref))
}

// findTask knows tasks by the name of their container, too: web.1.<task id>.
func findTask(v *store.View, ref string) (*api.Task, error) {
	return find(v.Tasks, api.KindTask, ref, func(yield func(*api.Task) bool) {
		id := ref[lastDot(ref)+1:]
		if t, ok := v.Tasks.Get(id); ok && taskName(v, t) == ref {
			yield(t)
		}
	})
}

func lastDot(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return i
		}
	}
	return -1
}

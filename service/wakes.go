package service

import (
	"container/heap"
	"time"
)

// wakes remembers when which service wants to be planned again. Setting a time
// replaces the one before; outdated entries of the heap are skipped.
type wakes struct {
	at   map[string]time.Time
	heap wakeHeap
}

type wake struct {
	at time.Time
	id string
}

func (w *wakes) set(id string, at time.Time) {
	if at.IsZero() {
		delete(w.at, id)
		return
	}
	if w.at == nil {
		w.at = map[string]time.Time{}
	}
	if w.at[id].Equal(at) {
		return
	}
	w.at[id] = at
	heap.Push(&w.heap, wake{at, id})
}

// first gives the earliest time set.
func (w *wakes) first() (time.Time, bool) {
	for len(w.heap) > 0 {
		if top := w.heap[0]; w.at[top.id].Equal(top.at) {
			return top.at, true
		}
		heap.Pop(&w.heap)
	}
	return time.Time{}, false
}

// due removes and returns the services whose time has come.
func (w *wakes) due(now time.Time) (ids []string) {
	for at, ok := w.first(); ok && !at.After(now); at, ok = w.first() {
		id := w.heap[0].id
		delete(w.at, id)
		ids = append(ids, id)
	}
	return ids
}

type wakeHeap []wake

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h wakeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *wakeHeap) Push(x any)        { *h = append(*h, x.(wake)) }

func (h *wakeHeap) Pop() any {
	last := len(*h) - 1
	top := (*h)[last]
	*h = (*h)[:last]
	return top
}

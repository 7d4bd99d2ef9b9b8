package fake

import (
	"slices"
	"strings"

	"shoal/task"
)

// What a test does to an engine, and asks of it. Tasks are named by ID.

// Add puts a container there, as an earlier daemon would have left it.
func (e *Engine) Add(clusterID, taskID string, p task.Phase) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add(clusterID, taskID, p)
}

// Exit ends a task's container with an exit code.
func (e *Engine) Exit(taskID string, code int) {
	e.alter(taskID, func(c *container) { c.end(code) })
}

// OOM ends a task's container as the kernel does when memory runs out.
func (e *Engine) OOM(taskID string) {
	e.alter(taskID, func(c *container) { c.end(137); c.OOMKilled = true })
}

// SetHealth sets what the health check of a task's container says.
func (e *Engine) SetHealth(taskID string, h task.Health) {
	e.alter(taskID, func(c *container) { c.Health = h })
}

// Delete removes a task's container behind everyone's back.
func (e *Engine) Delete(taskID string) {
	e.alter(taskID, func(c *container) { delete(e.containers, c.ID) })
}

func (e *Engine) alter(taskID string, f func(*container)) {
	if c := e.Container(taskID); c != nil {
		_ = e.change(c.ID, f) // gone meanwhile is as good
	}
}

// Away makes the engine unreachable, until Back.
func (e *Engine) Away() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away = true
	for _, w := range e.watchers {
		close(w.cut)
	}
	clear(e.watchers)
}

// Back makes the engine reachable again.
func (e *Engine) Back() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away = false
}

// Mute has the engine lose its events.
func (e *Engine) Mute(mute bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mute = mute
}

// Container gives a task's container; nil when it has none.
func (e *Engine) Container(taskID string) *task.Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.TaskID == taskID {
			seen := c.Container
			return &seen
		}
	}
	return nil
}

// Networks gives the IDs of the networks there are.
func (e *Engine) Networks() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id := range e.networks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Occupy has something that is no task's be on a network, which is made, or leave
// it.
func (e *Engine) Occupy(network string, yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.networks[network], e.occupied[network] = true, yes
}

// Calls gives the calls so far of one method, as "Method task".
func (e *Engine) Calls(op string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var calls []string
	for _, c := range e.calls {
		if name, _, _ := strings.Cut(c, " "); name == op {
			calls = append(calls, c)
		}
	}
	return calls
}

// Most gives how many calls of a method were under way at once at most.
func (e *Engine) Most(op string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most[op]
}

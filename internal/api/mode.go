package api

import "github.com/docker/docker/api/types/swarm"

// Global tells whether a mode ties each task to a node of its own.
func Global(m swarm.ServiceMode) bool { return m.Global != nil || m.GlobalJob != nil }

// Job tells whether tasks of a mode are there to complete.
func Job(m swarm.ServiceMode) bool { return m.ReplicatedJob != nil || m.GlobalJob != nil }

// MaxTasks bounds how many tasks one service may have, and so what a plan has to
// hold in memory. A whole cluster is made for about as many.
const MaxTasks = 1_000_000

// MaxHistory bounds how many tasks are kept in a slot, ended ones included.
const MaxHistory = 1000

// Replicas is how many slots a replicated service has.
func Replicas(m swarm.ServiceMode) int {
	if r := m.Replicated; r != nil && r.Replicas != nil {
		return int(min(*r.Replicas, MaxTasks))
	}
	return 1
}

// JobSize is how many tasks of a replicated job have to complete, and how many
// may run at once.
func JobSize(m swarm.ServiceMode) (total, concurrent uint64) {
	total, concurrent = 1, 1
	j := m.ReplicatedJob
	if j == nil {
		return total, concurrent
	}
	if j.MaxConcurrent != nil {
		concurrent = min(*j.MaxConcurrent, MaxTasks)
	}
	if j.TotalCompletions != nil {
		total = min(*j.TotalCompletions, MaxTasks)
	}
	return total, concurrent
}

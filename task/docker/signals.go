package docker

import (
	"slices"
	"sync"
)

// signals remembers to which containers a signal was sent that ends most
// programs. An engine that is being stopped sends them to all of its containers
// while it still answers, and an exit code of 0 that follows is obedience.
type signals struct {
	mu   sync.Mutex
	sent map[string]bool // by container
}

func newSignals() *signals { return &signals{sent: map[string]bool{}} }

// harmless are those that programs are sent for other reasons than to end them:
// SIGHUP, SIGUSR1 and SIGUSR2. An engine tells the number.
var harmless = []string{"1", "10", "12"}

func (s *signals) note(containerID, signal string) {
	if slices.Contains(harmless, signal) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[containerID] = true
}

func (s *signals) to(containerID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[containerID]
}

// forget drops a container that is gone, or that was started again.
func (s *signals) forget(containerID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sent, containerID)
}

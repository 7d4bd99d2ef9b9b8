package api

import "time"

// RevisionSummary is one revision of a service as people see it.
type RevisionSummary struct {
	Number  uint64
	Name    string `json:",omitempty"` // see Settings.RevisionName
	Current bool   // what tasks should have
	// From is the number of the revision that was changed; 0 for the first.
	From      uint64
	Changes   []string // what was changed, one thing each
	Image     string
	Tasks     int // that run it now
	CreatedAt time.Time
}

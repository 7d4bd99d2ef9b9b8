package api

// Explanation says why a service, or a task, is as it is.
type Explanation struct {
	Name    string   // of the service
	Notes   []string // about the service as a whole
	Running int      // of its tasks
	// Outdated are those of them that are not of the service's revision.
	Outdated int `json:",omitempty"`
	// Tasks are those that are wanted and do not run, or the one that was asked
	// for.
	Tasks []TaskReason `json:",omitempty"`
	// Nodes says of each whether it would take one more task.
	Nodes []NodeVerdict `json:",omitempty"`
}

// TaskReason is the state of one task, with the text that lists of tasks show.
type TaskReason struct {
	ID, Name, State, Why string
	Node                 string `json:",omitempty"` // hostname
}

// NodeVerdict is what one node says to one more task.
type NodeVerdict struct {
	ID, Hostname string
	Why          string // "" if it would take it
	Tasks        int    // of the service on it
}

package api

// Rebalance is what was, or would be, moved.
type Rebalance struct {
	Moves []Move
	Notes []string `json:",omitempty"` // what stays, and why
}

// Move is one task on its way to another node. The node is where it would be
// placed now; the choice is made when it goes.
type Move struct {
	Task, Name, From string
	To               string `json:",omitempty"`
}

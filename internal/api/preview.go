package api

import "github.com/docker/docker/api/types/swarm"

// Wish is a service as it is to be. ID is empty for one that is to be made.
type Wish struct {
	ID   string `json:",omitempty"`
	Spec swarm.ServiceSpec
	// Remove is set on one that is to go: wishes after it have its ports and its room.
	Remove bool `json:",omitempty"`
}

// Preview is what would become of a wish if it were granted now.
type Preview struct {
	// Refused says why it would not be.
	Refused string `json:",omitempty"`
	// Nodes counts the tasks that would be new, by the name of the node they would go to.
	Nodes map[string]int `json:",omitempty"`
	// Kept counts the tasks that go on.
	Kept int `json:",omitempty"`
	// Waiting tasks would have no node, and Why says why.
	Waiting int    `json:",omitempty"`
	Why     string `json:",omitempty"`
}

// Package daemon puts the parts together: it is the one place that knows them
// all. daemon_linux.go runs the program, node_linux.go is the life of a node
// between swarm init and swarm leave, and member_linux.go is what runs while it
// is in a cluster: the whole of it wired on one page.
package daemon

import "shoal/internal/build"

// Config is what the command line says, which knows the defaults: nothing in it
// is empty but what is said to be. Everything else comes with swarm init and swarm join.
type Config struct {
	DataDir    string
	Socket     string
	DockerHost string
	APIAddr    string     // host:port to serve the API on over the network; may be empty
	DataPlane  string     // auto, nft or proxy
	LogLevel   string     // debug, info, warn or error
	Build      build.Info // what GET /version says
}

// Package dns answers the names of the cluster to the containers of a node, and
// passes on what it does not know to the host's own name servers.
package dns

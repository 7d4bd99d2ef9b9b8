// Package overlay makes the host a router for the containers on the cluster's
// networks: who may talk to whom, who may go outside, and under whose name.
package overlay

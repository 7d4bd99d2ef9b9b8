// Package wireguard carries what nodes exchange on encrypted networks: one
// WireGuard device per node, with a peer for each key of each other node. It is
// the kernel's device where the kernel has one, and otherwise a tun device that
// a process of this same program serves. The process outlives the daemon that
// started it, as a kernel's device would.
//
// An address inside belongs to a key, not to a node: see Address.
package wireguard

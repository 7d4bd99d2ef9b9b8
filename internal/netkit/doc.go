// Package netkit holds what the network and the routing mesh share: how our
// interfaces are named, the gateway that containers use, and the few kernel
// chores (nftables tables that converge, netlink dumps that retry, sysctls)
// that are easy to get subtly wrong. It knows nothing of services.
package netkit

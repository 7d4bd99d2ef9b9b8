// Package plugin is Docker's remote network driver and IPAM driver "shoal":
// through it every Docker engine attaches containers to the cluster's
// networks, with the addresses that the managers chose.
package plugin

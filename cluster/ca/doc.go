// Package ca is the cluster's own certificate authority: the root that signs
// node certificates, the identity a certificate carries, the join tokens that
// pin the root, and the files they live in.
//
// A node certificate says who a node is (CN, the node ID), what it may do (OU,
// its role) and where it belongs (O, the cluster ID). Addresses are not in it:
// a node that moves keeps its certificate.
package ca

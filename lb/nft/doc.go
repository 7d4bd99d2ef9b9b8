// Package nft serves an lb.Table from the kernel: one nftables table that
// rewrites the destination of a connection's first packet and leaves the rest
// to connection tracking.
package nft

package netkit

import (
	"fmt"
	"net"
	"strings"
)

// Remains names the interfaces of the cluster's networks that the host has. To
// look takes no capability, while rules and routes, which go with them, can not
// even be seen without.
func Remains() (names []string, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Name, IfacePrefix) || strings.HasPrefix(i.Name, Tunnel) || i.Name == WireGuard {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

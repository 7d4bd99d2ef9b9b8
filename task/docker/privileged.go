package docker

import (
	"github.com/docker/docker/api/types/container"

	"shoal/internal/api"
)

// privileges gives a container what its service's settings ask for beyond what a
// spec can say. Whether that is allowed was decided when they were admitted.
func privileges(h *container.HostConfig, s api.Settings) {
	h.Privileged = s.Privileged
	for _, d := range s.Devices {
		h.Devices = append(h.Devices, container.DeviceMapping{
			PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions,
		})
	}
	if s.GPUs != 0 {
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Count: s.GPUs, Capabilities: [][]string{{"gpu"}}})
	}
}

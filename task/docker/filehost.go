package docker

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// fileHost is what an engine makes of files that its host gives to containers.
type fileHost struct {
	// uid and gid are who root of a container is on the host.
	uid, gid int
	remapped bool // by the engine's userns-remap
	selinux  bool // what has no label of the container's can not be read there
}

// mapped is how many users and groups of a container exist on a host that maps
// them: what useradd gives the engine's user in /etc/subuid.
const mapped = 65536

// fileHostOf reads it off what the engine says of itself.
func fileHostOf(info *system.Info) (h fileHost, err error) {
	options, err := system.DecodeSecurityOptions(info.SecurityOptions)
	if err != nil {
		return h, fmt.Errorf("the engine's security options: %w", err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(options, func(o system.SecurityOpt) bool { return o.Name == name })
	}
	h.selinux = has("selinux")
	if h.remapped = has("userns"); !h.remapped {
		return h, nil
	}
	// Such an engine has a directory for each mapping, named after its root.
	root := filepath.Base(info.DockerRootDir)
	if _, err := fmt.Sscanf(root, "%d.%d", &h.uid, &h.gid); err != nil {
		return h, refuse("secrets and configs: the engine uses userns-remap, but its directory %s does not tell with which users", info.DockerRootDir)
	}
	return h, nil
}

// own gives the files the owners that they have on the host.
func (h fileHost) own(files []file) error {
	if !h.remapped {
		return nil
	}
	for i := range files {
		f := &files[i]
		if f.uid >= mapped || f.gid >= mapped {
			return refuse("file %s: its owner %d:%d does not exist in containers of this engine, which uses userns-remap", f.target, f.uid, f.gid)
		}
		f.uid, f.gid = f.uid+h.uid, f.gid+h.gid
	}
	return nil
}

// labelFiles gives a container's files its own SELinux label, which the engine
// chooses when it makes the container. One that is not confined has none.
func (e *Executor) labelFiles(ctx context.Context, c *client.Client, id, taskID string) error {
	in, err := c.ContainerInspect(ctx, id)
	if err != nil {
		return say(err)
	}
	if in.MountLabel == "" {
		return nil
	}
	return e.files.label(taskID, in.MountLabel)
}

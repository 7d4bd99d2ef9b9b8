package compose

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-units"
)

// mounts are the volumes of a service, and then its tmpfs.
func (c converter) mounts(path string, s types.ServiceConfig) ([]mount.Mount, error) {
	var list []mount.Mount
	var wrong []error
	taken := map[string]bool{}
	add := func(m mount.Mount, where string) error {
		if taken[m.Target] {
			return c.checker.errorAt(where, "there is another mount at %s", m.Target)
		}
		taken[m.Target] = true
		list = append(list, m)
		return nil
	}
	for i, v := range s.Volumes {
		where := fmt.Sprintf("%s.volumes[%d]", path, i)
		m, err := c.mount(where, v)
		if err == nil {
			err = add(m, where)
		}
		wrong = append(wrong, err)
	}
	for i, line := range s.Tmpfs {
		where := fmt.Sprintf("%s.tmpfs[%d]", path, i)
		m, err := tmpfs(line)
		if err != nil {
			wrong = append(wrong, c.checker.errorAt(where, "%v", err))
			continue
		}
		wrong = append(wrong, add(m, where))
	}
	return list, errors.Join(wrong...)
}

func (c converter) mount(where string, v types.ServiceVolumeConfig) (mount.Mount, error) {
	m := mount.Mount{
		Type: mount.Type(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly,
		Consistency: mount.Consistency(v.Consistency),
	}
	if m.Type == "" {
		m.Type = mount.TypeVolume
	}
	for _, options := range []struct {
		of    mount.Type
		given bool
	}{{mount.TypeBind, v.Bind != nil}, {mount.TypeVolume, v.Volume != nil}, {mount.TypeTmpfs, v.Tmpfs != nil}} {
		if options.given && options.of != m.Type {
			return m, c.checker.errorAt(where, "%s options are incompatible with type %s", options.of, m.Type)
		}
	}
	switch m.Type {
	case mount.TypeVolume:
		return c.volume(where, v, m)
	case mount.TypeBind:
		if v.Source == "" {
			return m, c.checker.errorAt(where, "invalid bind source, source cannot be empty")
		}
		return c.bind(where, v, m)
	case mount.TypeTmpfs:
		if v.Source != "" {
			return m, c.checker.errorAt(where, "invalid tmpfs source, source must be empty")
		}
		if v.Tmpfs != nil {
			m.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: int64(v.Tmpfs.Size), Mode: os.FileMode(v.Tmpfs.Mode)}
		}
		return m, nil
	}
	return m, c.checker.errorAt(where, "volumes of type %s are not supported", m.Type)
}

// volume mounts a volume that the file describes, or one without a name.
func (c converter) volume(where string, v types.ServiceVolumeConfig, m mount.Mount) (mount.Mount, error) {
	if v.Source == "" {
		return m, nil
	}
	config, ok := c.model.Volumes[v.Source]
	if !ok {
		return m, c.checker.errorAt(where, "undefined volume %q", v.Source)
	}
	m.VolumeOptions = &mount.VolumeOptions{}
	if v.Volume != nil {
		m.VolumeOptions.NoCopy, m.VolumeOptions.Subpath = v.Volume.NoCopy, v.Volume.Subpath
	}
	switch {
	case config.Name != "":
		m.Source = config.Name
	case !bool(config.External):
		m.Source = scope(c.stack, v.Source)
	}
	if config.External {
		return m, nil
	}
	labels := maps.Clone(map[string]string(config.Labels))
	if v.Volume != nil && len(v.Volume.Labels) > 0 {
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, v.Volume.Labels)
	}
	m.VolumeOptions.Labels = labelled(c.stack, labels)
	if config.Driver != "" || config.DriverOpts != nil {
		m.VolumeOptions.DriverConfig = &mount.Driver{Name: config.Driver, Options: config.DriverOpts}
	}
	return m, nil
}

func (c converter) bind(where string, v types.ServiceVolumeConfig, m mount.Mount) (mount.Mount, error) {
	if v.Bind == nil {
		return m, nil
	}
	options := mount.BindOptions{Propagation: mount.Propagation(v.Bind.Propagation)}
	switch v.Bind.Recursive {
	case "", "enabled":
	case "disabled":
		options.NonRecursive = true
	case "writable":
		options.ReadOnlyNonRecursive = true
	case "readonly":
		options.ReadOnlyForceRecursive = true
	default:
		return m, c.checker.errorAt(where, "unknown value %q of recursive", v.Bind.Recursive)
	}
	if options != (mount.BindOptions{}) {
		m.BindOptions = &options
	}
	if _, told := c.checker.places[where+".bind.selinux"]; v.Bind.SELinux != "" && !told {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s: %s is ignored: label the directory on the nodes", c.checker.at(where), where, v.Bind.SELinux))
	}
	return m, nil
}

// tmpfs reads an entry of tmpfs: a path, and options as those of mount(8).
func tmpfs(line string) (mount.Mount, error) {
	target, options, _ := strings.Cut(line, ":")
	m := mount.Mount{Type: mount.TypeTmpfs, Target: target}
	if options == "" {
		return m, nil
	}
	m.TmpfsOptions = &mount.TmpfsOptions{}
	for _, option := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "size":
			m.TmpfsOptions.SizeBytes, err = units.RAMInBytes(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 32)
			m.TmpfsOptions.Mode = os.FileMode(mode)
		case "ro":
			m.ReadOnly = true
		case "rw", "":
		default:
			return m, fmt.Errorf("the option %q is not supported: there are size, mode, ro and rw", option)
		}
		if err != nil {
			return m, fmt.Errorf("%s: %w", option, err)
		}
	}
	return m, nil
}

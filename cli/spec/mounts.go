package spec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-units"
)

// ParseMount reads --mount: type=volume,source=data,target=/data,readonly.
func ParseMount(value string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	parts, err := fields(value)
	if err != nil {
		return m, err
	}
	var bindRecursive string
	for _, field := range parts {
		key, val, given := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if !given {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
				val = "true"
			default:
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
		}
		if err := setMountField(&m, &bindRecursive, key, val); err != nil {
			return m, err
		}
	}
	if err := applyRecursive(&m, bindRecursive); err != nil {
		return m, err
	}
	return m, checkMount(m)
}

func setMountField(m *mount.Mount, bindRecursive *string, key, val string) error {
	boolean := func(into *bool) error {
		b, err := strconv.ParseBool(val)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s (true or false is expected)", key, val)
		}
		*into = b
		return nil
	}
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(val))
	case "source", "src":
		m.Source = val
		if val == "." || strings.HasPrefix(val, "./") || val == ".." || strings.HasPrefix(val, "../") {
			if abs, err := filepath.Abs(val); err == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = val
	case "readonly", "ro":
		return boolean(&m.ReadOnly)
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
	case "bind-propagation":
		bind(m).Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-nonrecursive":
		return boolean(&bind(m).NonRecursive)
	case "bind-recursive":
		*bindRecursive = val
		bind(m)
	case "bind-create-src":
		return boolean(&bind(m).CreateMountpoint)
	case "volume-subpath":
		volume(m).Subpath = val
	case "volume-nocopy":
		return boolean(&volume(m).NoCopy)
	case "volume-label":
		setPair(&volume(m).Labels, val)
	case "volume-driver":
		volumeDriver(m).Name = val
	case "volume-opt":
		setPair(&volumeDriver(m).Options, val)
	case "image-subpath":
		if m.ImageOptions == nil {
			m.ImageOptions = &mount.ImageOptions{}
		}
		m.ImageOptions.Subpath = val
	case "tmpfs-size":
		size, err := units.RAMInBytes(val)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s (a size is expected, such as 64m)", key, val)
		}
		tmpfs(m).SizeBytes = size
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s (an octal number is expected, such as 1777)", key, val)
		}
		tmpfs(m).Mode = os.FileMode(mode)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", key, key+"="+val)
	}
	return nil
}

func applyRecursive(m *mount.Mount, how string) error {
	switch how {
	case "", "enabled":
	case "disabled":
		bind(m).NonRecursive = true
	case "writable":
		bind(m).ReadOnlyNonRecursive = true
	case "readonly":
		bind(m).ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf("invalid value for bind-recursive: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", how)
	}
	if o := m.BindOptions; o != nil && !m.ReadOnly {
		if o.ReadOnlyNonRecursive {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if o.ReadOnlyForceRecursive {
			return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
		}
	}
	if o := m.BindOptions; o != nil && o.ReadOnlyForceRecursive && o.Propagation != mount.PropagationRPrivate {
		return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}

func checkMount(m mount.Mount) error {
	switch {
	case m.Type == "":
		return errors.New("type is required")
	case m.Target == "":
		return errors.New("target is required")
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	case m.ImageOptions != nil && m.Type != mount.TypeImage:
		return fmt.Errorf("cannot mix 'image-*' options with mount type '%s'", m.Type)
	}
	return nil
}

func bind(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volume(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{}} // as Docker's own, which always sends it
	}
	return m.VolumeOptions
}

func volumeDriver(m *mount.Mount) *mount.Driver {
	return volume(m).DriverConfig
}

func tmpfs(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

func setPair(into *map[string]string, pair string) {
	if *into == nil {
		*into = map[string]string{}
	}
	key, val, _ := strings.Cut(pair, "=")
	(*into)[key] = val
}

package spec

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// File is a secret or config by name, and the file it becomes in the container.
type File struct {
	Source, Target, UID, GID string
	Mode                     os.FileMode
}

// ParseFile reads --secret and --config: a name, or source=,target=,uid=,gid=,mode=.
func ParseFile(value string) (File, error) {
	f := File{UID: "0", GID: "0", Mode: 0o444}
	parts, err := fields(value)
	if err != nil {
		return f, err
	}
	if len(parts) == 1 && !strings.Contains(parts[0], "=") {
		f.Source, f.Target = parts[0], parts[0]
		return f, nil
	}
	for _, field := range parts {
		key, val, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return f, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch strings.ToLower(key) {
		case "source", "src":
			f.Source = val
		case "target":
			f.Target = val
		case "uid":
			f.UID = val
		case "gid":
			f.GID = val
		case "mode":
			mode, err := strconv.ParseUint(val, 0, 32)
			if err != nil {
				return f, fmt.Errorf("invalid mode specified: %q is not an octal number such as 0440", val)
			}
			f.Mode = os.FileMode(mode)
		default:
			return f, fmt.Errorf("invalid field in file request: %s: it is source, target, uid, gid or mode", key)
		}
	}
	if f.Source == "" {
		return f, errors.New("source is required")
	}
	if f.Target == "" {
		f.Target = f.Source
	}
	return f, nil
}

// ParseNetwork reads --network: a name, or name=,alias=,driver-opt=k=v.
func ParseNetwork(value string) (swarm.NetworkAttachmentConfig, error) {
	var n swarm.NetworkAttachmentConfig
	if !strings.Contains(value, "=") {
		n.Target = value
		return n, nil
	}
	parts, err := fields(value)
	if err != nil {
		return n, err
	}
	for _, field := range parts {
		key, val, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok || key == "" {
			return n, fmt.Errorf("invalid field %s", field)
		}
		switch strings.TrimSpace(key) {
		case "name":
			n.Target = val
		case "alias":
			n.Aliases = append(n.Aliases, val)
		case "driver-opt":
			key, val, ok := strings.Cut(val, "=")
			if !ok {
				return n, errors.New("invalid key value pair format in driver options")
			}
			setPair(&n.DriverOpts, key+"="+val)
		case "ip", "ip6", "mac-address", "link-local-ip", "gw-priority":
			return n, fmt.Errorf("%s is not supported for services: their addresses are given by the swarm", key)
		default:
			return n, fmt.Errorf("invalid field key %s", key)
		}
	}
	if n.Target == "" {
		return n, errors.New("network name/id is not specified")
	}
	return n, nil
}

// ParseCredentialSpec reads --credential-spec: config://, file:// or registry://.
func ParseCredentialSpec(value string) (*swarm.CredentialSpec, error) {
	kind, rest, _ := strings.Cut(value, "://")
	switch {
	case value == "":
		return &swarm.CredentialSpec{}, nil
	case kind == "config" && rest != "":
		return &swarm.CredentialSpec{Config: rest}, nil
	case kind == "file" && rest != "":
		return &swarm.CredentialSpec{File: rest}, nil
	case kind == "registry" && rest != "":
		return &swarm.CredentialSpec{Registry: rest}, nil
	}
	return nil, errors.New(`invalid credential spec: value must be prefixed with "config://", "file://", or "registry://"`)
}

// ParsePreference reads --placement-pref: spread=node.labels.zone.
func ParsePreference(value string) (swarm.PlacementPreference, error) {
	key, val, ok := strings.Cut(value, "=")
	switch {
	case !ok:
		return swarm.PlacementPreference{}, errors.New(`placement preference must be of the format "<strategy>=<arg>"`)
	case key != "spread":
		return swarm.PlacementPreference{}, fmt.Errorf("unsupported placement preference %s (only spread is supported)", key)
	}
	return swarm.PlacementPreference{Spread: &swarm.SpreadOver{SpreadDescriptor: val}}, nil
}

// ParseGenericResource reads --generic-resource: gpu=2 is a number of them.
func ParseGenericResource(value string) (swarm.GenericResource, error) {
	kind, val, ok := strings.Cut(value, "=")
	if !ok || kind == "" || val == "" {
		return swarm.GenericResource{}, fmt.Errorf("could not parse GenericResource: incorrect term %s, missing '=' or malformed expression", value)
	}
	n, err := strconv.ParseInt(val, 10, 64)
	if err != nil {
		return swarm.GenericResource{}, fmt.Errorf("invalid generic-resource request `%s`, Named Generic Resources is not supported for service create or update", value)
	}
	return swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: n}}, nil
}

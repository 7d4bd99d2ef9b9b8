package api

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Device is a device of the node that a container may use.
type Device struct {
	Host, Container string // paths
	Permissions     string // of r, w and m
}

// AllGPUs stands for as many as the node has.
const AllGPUs = -1

// readDevices reads /dev/fuse,/dev/sda:/dev/disk:r, as docker run --device takes
// them.
func readDevices(v string) ([]Device, error) {
	var all []Device
	for one := range strings.SplitSeq(v, ",") {
		parts := strings.Split(strings.TrimSpace(one), ":")
		d := Device{Host: parts[0], Container: parts[0], Permissions: "rwm"}
		switch len(parts) {
		case 1:
		case 2:
			if isPermissions(parts[1]) {
				d.Permissions = parts[1]
			} else {
				d.Container = parts[1]
			}
		case 3:
			d.Container, d.Permissions = parts[1], parts[2]
		default:
			return nil, fmt.Errorf("%q has too many colons", one)
		}
		switch {
		case !path.IsAbs(d.Host) || !path.IsAbs(d.Container):
			return nil, fmt.Errorf("%q is not an absolute path", one)
		case !isPermissions(d.Permissions):
			return nil, fmt.Errorf("%q are no permissions", d.Permissions)
		}
		all = append(all, d)
	}
	return all, nil
}

func isPermissions(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && len(s) <= 3
}

func readGPUs(v string) (int, error) {
	if v == "all" {
		return AllGPUs, nil
	}
	n, err := strconv.Atoi(v)
	if err == nil && n < 1 {
		err = errors.New("none")
	}
	return n, err
}

func readReady(v string) (unproven bool, err error) {
	if v != "port" && v != "start" {
		return false, errors.New("neither")
	}
	return v == "start", nil
}

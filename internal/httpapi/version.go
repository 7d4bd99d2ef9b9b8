package httpapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// version is one of the Docker API.
type version struct{ major, minor int }

var (
	maxVersion = version{1, 50}
	// minVersion is the oldest that we advertise: clients from 29 on insist on
	// it. Older clients are served all the same, down to oldestVersion.
	minVersion    = version{1, 44}
	oldestVersion = version{1, 24}
)

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) less(o version) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

func parseVersion(s string) (version, bool) {
	a, b, ok := strings.Cut(s, ".")
	if !ok {
		return version{}, false
	}
	major, err1 := strconv.ParseUint(a, 10, 16)
	minor, err2 := strconv.ParseUint(b, 10, 16)
	return version{int(major), int(minor)}, err1 == nil && err2 == nil
}

// splitVersion takes the version off a path: /v1.50/info is 1.50 and /info. A
// path without one is at the newest version.
func splitVersion(path string) (v version, rest string, explicit bool) {
	if tail, ok := strings.CutPrefix(path, "/v"); ok {
		first, rest, _ := strings.Cut(tail, "/")
		if v, ok := parseVersion(first); ok {
			return v, "/" + rest, true
		}
	}
	return maxVersion, path, false
}

func (v version) check() error {
	switch {
	case maxVersion.less(v):
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"client version %s is too new. Maximum supported API version is %s", v, maxVersion))
	case v.less(oldestVersion):
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, oldestVersion))
	}
	return nil
}

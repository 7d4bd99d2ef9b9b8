package httpapi

import (
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/filters"
)

// flag reads a boolean of the query the way Docker does: everything but these
// words is true.
func (r *request) flag(name string) (bool, error) {
	q, err := r.query(name)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(q)) {
	case "", "0", "no", "false", "none":
		return false, nil
	}
	return true, nil
}

// strictFlag refuses what is not a boolean; Docker has both kinds.
func (r *request) strictFlag(name string) (bool, error) {
	q, err := r.query(name)
	if err != nil || q == "" {
		return false, err
	}
	b, err := strconv.ParseBool(q)
	if err != nil {
		return false, invalid("invalid value for %s: %s", name, q)
	}
	return b, nil
}

func (r *request) query(name string) (string, error) {
	if err := r.ParseForm(); err != nil && !strings.HasPrefix(err.Error(), "mime:") {
		return "", invalid("invalid query: %v", err)
	}
	return r.URL.Query().Get(name), nil
}

// objectVersion is the version that an update was made from.
func (r *request) objectVersion(kind string) (uint64, error) {
	q, err := r.query("version")
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(q, 10, 64)
	if err != nil {
		return 0, invalid("invalid %s version '%s': %v", kind, q, err)
	}
	return v, nil
}

// filters reads both forms that clients send: {"k":{"v":true}} and {"k":["v"]}.
func (r *request) filters() (filters.Args, error) {
	q, err := r.query("filters")
	if err != nil {
		return filters.Args{}, err
	}
	f, err := filters.FromJSON(q)
	if err != nil {
		return filters.Args{}, invalid("invalid filter: must be a JSON object of lists or sets")
	}
	return f, nil
}

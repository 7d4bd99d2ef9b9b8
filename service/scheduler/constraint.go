package scheduler

import (
	"fmt"
	"iter"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"shoal/internal/api"
)

// Constraint is one condition on a node, such as node.role == manager.
type Constraint struct {
	Field string // as the user wrote it, such as node.labels.zone
	Not   bool   // != instead of ==
	Value string
}

// constraintForm is Swarm's: a field, == or !=, a value.
var constraintForm = regexp.MustCompile(`^\s*([a-zA-Z_][a-zA-Z0-9_.\-/]*)\s*(==|!=)\s*(.*\S)\s*$`)

const (
	nodeLabels   = "node.labels."
	engineLabels = "engine.labels."
)

// ParseConstraint reads a constraint and checks that its field exists.
func ParseConstraint(s string) (Constraint, error) {
	m := constraintForm.FindStringSubmatch(s)
	if m == nil {
		return bad("constraint %q is not of the form field==value or field!=value", s)
	}
	c := Constraint{Field: m[1], Not: m[2] == "!=", Value: m[3]}
	if !IsProperty(c.Field) {
		return bad("constraint %q: no node has a %s", s, c.Field)
	}
	return c, nil
}

func bad(format string, args ...any) (Constraint, error) {
	return Constraint{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// ParseConstraints reads all constraints of a placement.
func ParseConstraints(all []string) ([]Constraint, error) {
	var out []Constraint
	for _, s := range all {
		c, err := ParseConstraint(s)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// String gives the constraint the way Docker writes it.
func (c Constraint) String() string {
	if c.Not {
		return c.Field + "!=" + c.Value
	}
	return c.Field + "==" + c.Value
}

// Allows tells whether a node meets the constraint. Names of fields and values
// do not depend on case, keys of labels do, as in Swarm.
func (c Constraint) Allows(n *api.Node) bool {
	var equal bool
	switch has := property(n, c.Field); strings.ToLower(c.Field) {
	case "node.id":
		equal = c.Value == has
	case "node.ip":
		equal = sameAddress(c.Value, has)
	case "node.platform.arch":
		equal = strings.EqualFold(arch(c.Value), has)
	default:
		equal = strings.EqualFold(c.Value, has)
	}
	return equal != c.Not
}

// Allow tells whether a node meets all constraints.
func Allow(all []Constraint, n *api.Node) bool {
	for _, c := range all {
		if !c.Allows(n) {
			return false
		}
	}
	return true
}

// Unmet gives the constraints that no node meets; all, if none is met by no node but
// no node meets all.
func Unmet(all []Constraint, nodes iter.Seq[*api.Node]) (unmet []Constraint) {
	met := make([]bool, len(all))
	for n := range nodes {
		whole := true
		for i, c := range all {
			if c.Allows(n) {
				met[i] = true
			} else {
				whole = false
			}
		}
		if whole {
			return nil
		}
	}
	for i, c := range all {
		if !met[i] {
			unmet = append(unmet, c)
		}
	}
	if unmet == nil {
		return all
	}
	return unmet
}

// IsProperty tells whether nodes have what a descriptor names: node.id, or a label
// such as node.labels.zone or engine.labels.zone.
func IsProperty(descriptor string) bool {
	switch d := strings.ToLower(descriptor); d {
	case "node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch":
		return true
	default:
		return longer(d, nodeLabels) || longer(d, engineLabels)
	}
}

// property gives the value that a node has, "" if it has no such label.
func property(n *api.Node, descriptor string) string {
	switch d := strings.ToLower(descriptor); {
	case d == "node.id":
		return n.ID
	case d == "node.hostname":
		return n.Description.Hostname
	case d == "node.ip":
		return n.Status.Addr
	case d == "node.role":
		return string(n.Role)
	case d == "node.platform.os":
		return n.Description.Platform.OS
	case d == "node.platform.arch":
		return arch(n.Description.Platform.Architecture)
	case longer(d, nodeLabels):
		return n.Spec.Labels[descriptor[len(nodeLabels):]]
	case longer(d, engineLabels):
		return n.Description.Engine.Labels[descriptor[len(engineLabels):]]
	}
	return ""
}

func longer(s, prefix string) bool { return len(s) > len(prefix) && strings.HasPrefix(s, prefix) }

// arch brings the kernel's names of architectures to those of images.
func arch(s string) string {
	switch strings.ToLower(s) {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386", "i686":
		return "386"
	case "armv7l", "armv6l":
		return "arm"
	}
	return s
}

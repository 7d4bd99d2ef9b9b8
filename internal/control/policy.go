package control

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
)

// allowPrivileged is the label of the cluster that lets services have what makes
// a container as mighty as its host. Nobody has it unless an administrator has
// said so: in Swarm there is no such container at all.
const allowPrivileged = api.SettingPrefix + "allow-privileged"

// validateClusterLabels refuses settings of the cluster that nobody knows.
func validateClusterLabels(labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if !strings.HasPrefix(label, api.SettingPrefix) {
			continue
		}
		if label != allowPrivileged {
			return invalid("label %q: no such setting of a swarm; there is %s", label, allowPrivileged)
		}
		if _, err := strconv.ParseBool(labels[label]); err != nil {
			return invalid("label %s=%s: must be true or false", label, labels[label])
		}
	}
	return nil
}

// privilegedAllowed tells what the administrators of the swarm have decided.
func privilegedAllowed(v *store.View) bool {
	cl := v.Cluster()
	if cl == nil {
		return false
	}
	allowed, err := strconv.ParseBool(cl.Spec.Labels[allowPrivileged])
	return err == nil && allowed
}

// AllowPrivileged refuses what has the host's own privileges, unless the swarm
// allows that.
func (c *Control) AllowPrivileged(what string) error {
	if privilegedAllowed(c.View()) {
		return nil
	}
	return errdefs.ErrPermissionDenied.WithMessage(what +
		` is not allowed in this swarm, as it makes a container as mighty as its host; an administrator may allow it with "shoal swarm update --allow-privileged"`)
}

// allowSettings holds a service's settings against the policy of the swarm. What
// it has already it keeps: a policy that becomes stricter does not stand in the
// way of scaling down.
func (c *Control) allowSettings(spec, old *swarm.ServiceSpec) error {
	s, err := api.ReadSettings(spec.Labels)
	if err != nil {
		return invalid("%v", err)
	}
	if old != nil {
		had, err := api.ReadSettings(old.Labels)
		if err == nil && had.Privileged == s.Privileged && slices.Equal(had.Devices, s.Devices) && had.GPUs == s.GPUs {
			return nil
		}
	}
	for _, wanted := range []struct {
		label string
		set   bool
	}{
		{api.PrivilegedLabel, s.Privileged},
		{api.DevicesLabel, len(s.Devices) > 0},
		{api.GPUsLabel, s.GPUs != 0},
	} {
		if wanted.set {
			if err := c.AllowPrivileged("label " + wanted.label); err != nil {
				return err
			}
		}
	}
	return nil
}

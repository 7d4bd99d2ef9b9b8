//go:build linux

package daemon

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"shoal/internal/control"
)

func TestLeaving(t *testing.T) {
	for name, tt := range map[string]struct {
		rest control.Rest
		says string
	}{
		"the last one":              {control.Rest{Present: true}, "Removing the last manager erases all current state of the swarm"},
		"nobody needs it":           {control.Rest{Managers: 2, Reachable: 2, Present: true}, "Demote it first"},
		"one of two":                {control.Rest{Managers: 1, Reachable: 1, Present: true}, "Demote it first"},
		"an even split":             {control.Rest{Managers: 1, Present: true}, "Without a Raft quorum your swarm will be inaccessible: the one other manager can not be reached"},
		"one of three is lost":      {control.Rest{Managers: 2, Reachable: 1, Present: true}, "of the 2 other managers 1 can be reached and 2 are needed"},
		"one of four is lost":       {control.Rest{Managers: 3, Reachable: 2, Present: true}, "Demote it first"},
		"two of four are lost, too": {control.Rest{Managers: 3, Reachable: 1, Present: true}, "--force-new-cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			err := leaving(tt.rest)
			if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "--force`") {
				t.Errorf("%v", err)
			}
		})
	}
}

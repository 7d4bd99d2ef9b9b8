package api

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestWireGuardSince(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	var n Node
	for i, tt := range []struct {
		keys WireGuard
		want time.Time
	}{
		{WireGuard{Error: "no tun"}, time.Time{}},
		{WireGuard{Key: "a"}, t0.Add(time.Hour)},
		{WireGuard{Key: "a", Next: "b"}, t0.Add(time.Hour)}, // not used yet
		{WireGuard{Key: "b", Last: "a"}, t0.Add(3 * time.Hour)},
		{WireGuard{Key: "b"}, t0.Add(3 * time.Hour)},
		{WireGuard{}, time.Time{}},
	} {
		n.SetWireGuard(tt.keys, t0.Add(time.Duration(i)*time.Hour))
		if n.WireGuard != tt.keys || !n.WireGuardSince.Equal(tt.want) {
			t.Errorf("step %d: %+v, since %s, want %s", i, n.WireGuard, n.WireGuardSince, tt.want)
		}
	}
}

func TestDownSince(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	var n Node
	for i, tt := range []struct {
		state swarm.NodeState
		want  time.Time
	}{
		{swarm.NodeStateReady, time.Time{}},
		{swarm.NodeStateDown, t0.Add(time.Hour)},
		{swarm.NodeStateDown, t0.Add(time.Hour)}, // said again
		{swarm.NodeStateReady, time.Time{}},
		{swarm.NodeStateDown, t0.Add(4 * time.Hour)},
	} {
		n.NoEngine = true // it is for the node to say so again
		n.SetStatus(swarm.NodeStatus{State: tt.state}, t0.Add(time.Duration(i)*time.Hour))
		if n.Status.State != tt.state || !n.DownSince.Equal(tt.want) || n.NoEngine {
			t.Errorf("step %d: %s, down since %s, want %s", i, n.Status.State, n.DownSince, tt.want)
		}
	}
}

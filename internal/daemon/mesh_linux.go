package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb"
	"shoal/lb/nft"
	"shoal/lb/proxy"
)

// The data planes there are, for published ports.
const (
	planeAuto  = "auto"
	planeNFT   = "nft"
	planeProxy = "proxy"
)

// choosePlane says what carries published ports: the kernel where it can.
func choosePlane(want, networkless string, log *zap.Logger) (string, error) {
	switch {
	case want == planeNFT && networkless != "":
		return "", fmt.Errorf("--data-plane nft is not possible on this node: %s; give it that, or choose auto or proxy", networkless)
	case want != planeAuto:
		return want, nil
	case networkless != "":
		return planeProxy, nil
	}
	missing, err := netkit.Lacking()
	switch {
	case err != nil:
		log.Warn("can not try what the kernel can do; nftables is used", zap.Error(err))
	case missing["nftables"] != "" || missing["conntrack"] != "":
		log.Warn("published ports are served in userspace, as nftables does not work here",
			zap.String("nftables", missing["nftables"]), zap.String("conntrack", missing["conntrack"]))
		return planeProxy, nil
	}
	return planeNFT, nil
}

// mesh is the routing mesh of a node: the kernel's table, and beside it what
// serves in userspace the ports that the kernel does not.
type mesh struct {
	networkless string // why this node has none of the cluster's networks; "" if it has

	kernel plane
	user   *proxy.Plane
}

// userspace tells which ports are not the kernel's.
func userspace(plane string) func(lb.Port) bool {
	return func(p lb.Port) bool { return plane == planeProxy || p.ProxyProtocol }
}

func newMesh(dataPlane, networkless string, user *proxy.Plane, log *zap.Logger) *mesh {
	if networkless != "" {
		return &mesh{networkless: networkless, kernel: noPlane{}, user: user}
	}
	left := userspace(dataPlane)
	return &mesh{kernel: nft.NewFor(log, func(p lb.Port) bool { return !left(p) }), user: user}
}

// Set serves a state. A port that changes over is in neither plane for a moment.
func (m *mesh) Set(ctx context.Context, s *api.NodeState) error {
	return errors.Join(m.kernel.Set(ctx, s), m.user.Set(ctx, s))
}

func (m *mesh) Mute(ctx context.Context, nodeID string, mute bool) error {
	return errors.Join(m.kernel.Mute(ctx, nodeID, mute), m.user.Mute(ctx, nodeID, mute))
}

// Run keeps the kernel's part as it was set. The other lives as long as the
// process: a member that starts again, in another role, cuts nobody off.
func (m *mesh) Run(ctx context.Context) error { return m.kernel.Run(ctx) }

func (m *mesh) Clear(ctx context.Context) error {
	return errors.Join(m.kernel.Clear(ctx), m.user.Clear(ctx))
}

func (m *mesh) Differs() (string, error) {
	kernel, err := m.kernel.Differs()
	user, err2 := m.user.Differs()
	return strings.Join(nonEmpty(kernel, user), "; "), errors.Join(err, err2)
}

func nonEmpty(all ...string) (out []string) {
	for _, s := range all {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

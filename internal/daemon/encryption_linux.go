package daemon

import (
	"cmp"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"shoal/internal/api"
	"shoal/internal/doctor"
)

// encrypts tells whether a node has encrypted networks.
func encrypts(s *api.NodeState) bool {
	for _, n := range s.Networks {
		if n.Encrypted() {
			return true
		}
	}
	return false
}

// encryptedAnywhere tells whether WireGuard's port has to be open, as far as this
// node knows: a manager knows of networks that it has no part in.
func (m *member) encryptedAnywhere(s *api.NodeState) bool {
	if encrypts(s) || m.manager == nil {
		return encrypts(s)
	}
	for n := range m.manager.store.View().Networks.All() {
		if n.Encrypted() {
			return true
		}
	}
	return false
}

// facts are what the doctor wants to know; nil where there is nothing to encrypt.
func (c *cipher) facts(s *api.NodeState) *doctor.Encryption {
	if !encrypts(s) || c.m.mesh.networkless != "" {
		return nil
	}
	own := c.public()
	if own.Error != "" {
		return &doctor.Encryption{Error: own.Error}
	}
	device, err := c.device.State()
	if err != nil {
		return &doctor.Encryption{Error: err.Error()}
	}
	e := &doctor.Encryption{Others: encryptedPeers(s, device)}
	if s.Node.WireGuard.Key == own.Key {
		e.KeySince = s.Node.WireGuardSince
	}
	return e
}

// encryptedPeers is what a device, if there is one, knows of all other nodes.
func encryptedPeers(s *api.NodeState, device *wgtypes.Device) []doctor.Encrypted {
	known := map[string]wgtypes.Peer{}
	if device != nil {
		for _, p := range device.Peers {
			known[p.PublicKey.String()] = p
		}
	}
	var out []doctor.Encrypted
	for id, p := range s.Peers {
		if p.Down || p.Networkless || !p.DataPath.IsValid() {
			continue // said elsewhere
		}
		o := doctor.Encrypted{Name: cmp.Or(p.Hostname, id)}
		if p.WireGuard.Key == "" {
			o.NoKey = p.WireGuard.WhyNot()
		}
		w := known[p.WireGuard.Key]
		o.Last, o.Unsaid = w.LastHandshakeTime, w.TransmitBytes > 0 && w.LastHandshakeTime.IsZero()
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b doctor.Encrypted) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

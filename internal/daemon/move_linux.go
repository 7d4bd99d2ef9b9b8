package daemon

import (
	"net"
	"reflect"

	"go.uber.org/zap"
)

// readdress takes up the node under the addresses that this machine has now. The
// managers hear of it in the node's first words to them.
func (n *node) readdress(id identity) (identity, error) {
	system, err := systemAddresses()
	if err != nil {
		return id, err
	}
	next, err := id.moved(system, func(iface string) bool {
		_, err := net.InterfaceByName(iface)
		return err == nil
	})
	if err != nil {
		n.log.Warn("an address of this node is none of this machine's any more, and which one is instead can not be told: it is kept; give it back and restart the daemon, or leave and join again with --advertise-addr", zap.Error(err))
	}
	if reflect.DeepEqual(next, id) {
		return id, nil
	}
	if next.AdvertiseAddr != id.AdvertiseAddr || next.ListenAddr != id.ListenAddr || next.DataPathAddr != id.DataPathAddr {
		n.log.Info("this machine has another address, and so has this node",
			zap.String("was", id.AdvertiseAddr), zap.String("advertise", next.AdvertiseAddr),
			zap.String("listen", next.ListenAddr), zap.String("data path", next.DataPathAddr))
	}
	return next, next.save(n.cfg.DataDir)
}

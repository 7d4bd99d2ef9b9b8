package daemon

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestMoved(t *testing.T) {
	at := func(iface, addr string) local { return local{iface, netip.MustParseAddr(addr)} }
	eth0, eth1 := at("eth0", "192.0.2.2"), at("eth1", "198.51.100.7")
	tests := map[string]struct {
		before                      []local
		listen, advertise, dataPath string // as the user said
		after                       []local
		present                     []string // interfaces, with an address or not
		wantListen, wantAdv, wantDP string
		err                         string
	}{
		"nothing has changed":         {before: []local{eth0}, after: []local{eth0}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2"},
		"another address":             {before: []local{eth0}, after: []local{at("eth0", "192.0.2.9")}, wantAdv: "192.0.2.9:2377", wantDP: "192.0.2.9"},
		"one more":                    {before: []local{eth0}, after: []local{eth0, at("eth0", "192.0.2.9")}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2"},
		"on the other interface":      {before: []local{eth0, eth1}, advertise: "eth1:4000", after: []local{eth0, at("eth1", "198.51.100.8")}, wantAdv: "198.51.100.8:4000", wantDP: "198.51.100.8"},
		"each on its own":             {before: []local{eth0, eth1}, advertise: "eth0", dataPath: "eth1", after: []local{at("eth0", "192.0.2.9"), at("eth1", "198.51.100.8")}, wantAdv: "192.0.2.9:2377", wantDP: "198.51.100.8"},
		"a bound listener follows":    {before: []local{eth0}, listen: "192.0.2.2:5000", after: []local{at("eth0", "192.0.2.9")}, wantListen: "192.0.2.9:5000", wantAdv: "192.0.2.9:5000", wantDP: "192.0.2.9"},
		"interface has another name":  {before: []local{eth0}, after: []local{at("ens3", "192.0.2.9")}, wantAdv: "192.0.2.9:2377", wantDP: "192.0.2.9"},
		"address went to another":     {before: []local{eth0}, after: []local{at("bond0", "192.0.2.2")}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2"},
		"a router's":                  {before: []local{eth0}, advertise: "203.0.113.1", dataPath: "eth0", after: []local{at("eth0", "192.0.2.9")}, wantAdv: "203.0.113.1:2377", wantDP: "192.0.2.9"},
		"its own family":              {before: []local{at("eth0", "2001:db8::2")}, after: []local{eth0, at("eth0", "2001:db8::9")}, wantAdv: "[2001:db8::9]:2377", wantDP: "2001:db8::9"},
		"none yet":                    {before: []local{eth0}, after: []local{eth1}, present: []string{"eth0"}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2", err: "interface eth0, which had it, has no address now"},
		"two to choose from":          {before: []local{eth0}, after: []local{at("eth0", "192.0.2.8"), at("eth0", "192.0.2.9")}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2", err: "more than one address"},
		"two interfaces, both others": {before: []local{eth0}, after: []local{at("ens1", "192.0.2.8"), at("ens2", "192.0.2.9")}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2", err: "multiple addresses"},
		"no address at all":           {before: []local{eth0}, wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2", err: "could not find the system's IP address"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			id, err := addresses(tt.listen, tt.advertise, tt.dataPath, tt.before)
			if err != nil {
				t.Fatal(err)
			}
			id.NodeID = "me"
			id.Managers = []swarm.Peer{{NodeID: "me", Addr: id.AdvertiseAddr}, {NodeID: "other", Addr: "192.0.2.3:2377"}}
			before := slices.Clone(id.Managers)
			present := func(iface string) bool {
				return holds(iface, tt.after) > 0 || slices.Contains(tt.present, iface)
			}
			got, err := id.moved(tt.after, present)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if tt.wantListen == "" {
				tt.wantListen = "0.0.0.0:2377"
			}
			if got.ListenAddr != tt.wantListen || got.AdvertiseAddr != tt.wantAdv || got.DataPathAddr != tt.wantDP {
				t.Errorf("moved to %s, %s, %s", got.ListenAddr, got.AdvertiseAddr, got.DataPathAddr)
			}
			if got.Managers[0].Addr != tt.wantAdv || got.Managers[1] != before[1] || !slices.Equal(id.Managers, before) {
				t.Errorf("managers %v, of %v", got.Managers, id.Managers)
			}
			if again, err := got.moved(tt.after, present); err == nil && again.AdvertiseAddr != got.AdvertiseAddr {
				t.Errorf("moves again, to %s", again.AdvertiseAddr)
			}
		})
	}
}

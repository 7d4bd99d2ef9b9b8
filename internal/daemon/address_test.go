package daemon

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	one := []local{{"eth0", netip.MustParseAddr("192.0.2.2")}, {"eth0", netip.MustParseAddr("2001:db8::2")}}
	two := append([]local{{"eth1", netip.MustParseAddr("198.51.100.7")}}, one...)
	tests := []struct {
		name                        string
		listen, advertise, dataPath string
		system                      []local
		wantListen, wantAdv, wantDP string
		err                         string
	}{
		{name: "nothing said", system: one, wantListen: "0.0.0.0:2377", wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2"},
		{name: "docker cli's defaults", listen: "0.0.0.0:2377", system: one, wantListen: "0.0.0.0:2377", wantAdv: "192.0.2.2:2377", wantDP: "192.0.2.2"},
		{name: "two addresses", system: two, err: "could not choose an IP address to advertise"},
		{name: "no address", err: "could not find the system's IP address"},
		{name: "interface", advertise: "eth1", system: two, wantListen: "0.0.0.0:2377", wantAdv: "198.51.100.7:2377", wantDP: "198.51.100.7"},
		{name: "interface and port", advertise: "eth1:4000", system: two, wantListen: "0.0.0.0:2377", wantAdv: "198.51.100.7:4000", wantDP: "198.51.100.7"},
		{name: "listen decides", listen: "198.51.100.7:5000", system: two, wantListen: "198.51.100.7:5000", wantAdv: "198.51.100.7:5000", wantDP: "198.51.100.7"},
		{name: "data path", advertise: "192.0.2.2", dataPath: "eth1", system: two, wantListen: "0.0.0.0:2377", wantAdv: "192.0.2.2:2377", wantDP: "198.51.100.7"},
		{name: "unknown interface", advertise: "eth9", system: two, err: `advertise address "eth9" is neither`},
		{name: "unspecified", advertise: "0.0.0.0", system: one, err: "non-zero IP address"},
		{name: "bad port", listen: "0.0.0.0:x", system: one, err: `invalid port "x"`},
		{name: "ipv6", advertise: "[2001:db8::2]:2377", system: one, wantListen: "0.0.0.0:2377", wantAdv: "[2001:db8::2]:2377", wantDP: "2001:db8::2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := addresses(tt.listen, tt.advertise, tt.dataPath, tt.system)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.ListenAddr != tt.wantListen || got.AdvertiseAddr != tt.wantAdv || got.DataPathAddr != tt.wantDP {
				t.Fatalf("got %+v", got)
			}
		})
	}
}

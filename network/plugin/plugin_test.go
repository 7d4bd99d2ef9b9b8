//go:build linux

package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"shoal/internal/netkit"
	"shoal/internal/netkit/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

const endpointID = "0123456789abcdef-endpoint"

func newPlugin(t *testing.T, dir string) *Plugin {
	t.Helper()
	return New(Config{Socket: filepath.Join(dir, "shoal.sock"), Spec: filepath.Join(dir, "shoal.json"), StateDir: dir, Log: zap.NewNop()})
}

// call plays the engine, which sends a body and reads an answer.
func call(t *testing.T, p *Plugin, name, body string) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	p.handler().ServeHTTP(w, httptest.NewRequest("POST", "/"+name, bytes.NewBufferString(body)))
	out := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s: %d %s", name, w.Code, w.Body)
	}
	return out
}

func TestAnswers(t *testing.T) {
	const net = `"Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1"}},"IPv4Data":[{"Pool":"10.0.0.0/24"}]`
	tests := []struct{ name, call, body, want string }{
		{"activate", "Plugin.Activate", ``, `{"Implements":["NetworkDriver","IpamDriver"]}`},
		{"pool", "IpamDriver.RequestPool", `{"Pool":"10.0.0.9/24","Options":{"com.shoal.network.id":"n1"}}`, `{"Data":{},"Pool":"10.0.0.0/24","PoolID":"n1@10.0.0.0/24"}`},
		{"pool of nobody", "IpamDriver.RequestPool", `{"Pool":"10.0.0.0/24"}`, `to its own networks`},
		{"pool IPv6", "IpamDriver.RequestPool", `{"Pool":"fd00::/64","V6":true,"Options":{"com.shoal.network.id":"n1"}}`, `IPv6 is not supported`},
		{"pool unchosen", "IpamDriver.RequestPool", `{"Options":{"com.shoal.network.id":"n1"}}`, `not an IPv4 subnet`},
		{"address", "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24","Address":"10.0.0.7"}`, `"Address":"10.0.0.7/24"`},
		{"address outside", "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24","Address":"10.0.1.7"}`, `is not in 10.0.0.0/24`},
		{"no address", "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24"}`, `attached to this network by the cluster`},
		{"gateway", "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24","Options":{"RequestAddressType":"com.docker.network.gateway"}}`, `"Address":"10.0.0.1/24"`},
		{"gateway chosen", "IpamDriver.RequestAddress", `{"PoolID":"n1@10.0.0.0/24","Address":"10.0.0.254","Options":{"RequestAddressType":"com.docker.network.gateway"}}`, `"Address":"10.0.0.254/24"`},
		{"strange pool", "IpamDriver.RequestAddress", `{"PoolID":"x","Address":"10.0.0.1"}`, `not one of ours`},
		{"network", "NetworkDriver.CreateNetwork", `{"NetworkID":"e1",` + net + `}`, `{}`},
		{"network again", "NetworkDriver.CreateNetwork", `{"NetworkID":"e1",` + net + `}`, `{}`},
		{"network of nobody", "NetworkDriver.CreateNetwork", `{"NetworkID":"e2"}`, `made by the cluster`},
		{"bad MTU", "NetworkDriver.CreateNetwork", `{"NetworkID":"e2","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n2","com.docker.network.driver.mtu":"big"}}}`, `is not an MTU`},
		{"endpoint without address", "NetworkDriver.CreateEndpoint", `{"NetworkID":"e1","EndpointID":"x","Interface":{}}`, `has no IPv4 address`},
		{"endpoint with MAC", "NetworkDriver.CreateEndpoint", `{"NetworkID":"e1","EndpointID":"x","Interface":{"Address":"10.0.0.7/24","MacAddress":"02:00:00:00:00:01"}}`, `{"Interface":{}}`},
		{"join of unknown", "NetworkDriver.Join", `{"NetworkID":"e1","EndpointID":"zz"}`, `is not known`},
		{"leave of unknown", "NetworkDriver.Leave", `{"NetworkID":"zz","EndpointID":"zz"}`, `{}`},
		{"delete unknown endpoint", "NetworkDriver.DeleteEndpoint", `{"NetworkID":"zz","EndpointID":"zz"}`, `{}`},
		{"delete unknown network", "NetworkDriver.DeleteNetwork", `{"NetworkID":"zz"}`, `{}`},
		{"release unknown", "IpamDriver.ReleaseAddress", `{"PoolID":"zz","Address":"1.2.3.4"}`, `{}`},
		{"garbage", "NetworkDriver.Join", `{"NetworkID":[`, `"Err"`},
		{"wrong type", "NetworkDriver.Join", `{"NetworkID":7}`, `"Err"`},
	}
	p := newPlugin(t, t.TempDir())
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := json.Marshal(call(t, p, tc.call, tc.body))
			if err != nil || !strings.Contains(string(got), tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func join(t *testing.T, p *Plugin) {
	t.Helper()
	if out := call(t, p, "NetworkDriver.Join", `{"NetworkID":"e1","EndpointID":"`+endpointID+`","SandboxKey":"/ns"}`); out["Err"] != nil {
		t.Fatalf("join: %v", out)
	}
}

func run(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// TestJoinFromAnyState joins over whatever a dying daemon or another container
// left, and is the same each time.
func TestJoinFromAnyState(t *testing.T) {
	dir := t.TempDir()
	p := newPlugin(t, dir)
	call(t, p, "NetworkDriver.CreateNetwork", `{"NetworkID":"e1","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1","com.docker.network.driver.mtu":"1400"}}}`)
	call(t, p, "NetworkDriver.CreateEndpoint", `{"NetworkID":"e1","EndpointID":"`+endpointID+`","Interface":{"Address":"10.0.0.7/24"}}`)
	host, peer := netkit.HostIface(endpointID), netkit.PeerIface(endpointID)
	for name, before := range map[string]string{
		"nothing":           "true",
		"joined already":    "true",
		"half made":         "ip link del " + host + "; ip link add " + host + " type dummy 2>/dev/null || ip link add " + host + " type veth peer name other",
		"down and untuned":  "ip link set " + host + " down",
		"address elsewhere": "ip route replace 10.0.0.7/32 dev lo",
		"route gone":        "ip route flush 10.0.0.7/32",
	} {
		t.Run(name, func(t *testing.T) {
			join(t, p)
			run(t, before)
			join(t, p)
			if got := run(t, "ip route show 10.0.0.7"); !strings.HasPrefix(got, "10.0.0.7 dev "+host) || strings.Count(got, "\n") != 1 {
				t.Errorf("route: %s", got)
			}
			if got := run(t, "ip link show "+peer); !strings.Contains(got, "mtu 1400") {
				t.Errorf("peer: %s", got)
			}
			if got := run(t, "ip neigh show dev "+host); !strings.Contains(got, "10.0.0.7 lladdr "+hardwareAddr(endpointID).String()+" PERMANENT") {
				t.Errorf("neighbour: %s", got)
			}
			if got := run(t, "cat /proc/sys/net/ipv4/conf/"+host+"/proxy_arp"); got != "1\n" {
				t.Errorf("proxy_arp: %s", got)
			}
		})
	}
	for range 2 {
		call(t, p, "NetworkDriver.Leave", `{"NetworkID":"e1","EndpointID":"`+endpointID+`"}`)
		call(t, p, "NetworkDriver.DeleteEndpoint", `{"NetworkID":"e1","EndpointID":"`+endpointID+`"}`)
	}
	if got := run(t, "ip -o link"); strings.Contains(got, netkit.IfacePrefix) || strings.Contains(got, peer) {
		t.Errorf("left behind: %s", got)
	}
}

// TestRestart knows after a restart what it was told before, whatever became
// of the record.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	p := newPlugin(t, dir)
	call(t, p, "NetworkDriver.CreateNetwork", `{"NetworkID":"e1","Options":{"com.docker.network.generic":{"com.shoal.network.id":"n1","com.docker.network.driver.mtu":"1400"}}}`)
	create := `{"NetworkID":"e1","EndpointID":"` + endpointID + `","Interface":{"Address":"10.0.0.7/24"}}`
	call(t, p, "NetworkDriver.CreateEndpoint", create)
	p = newPlugin(t, dir)
	join(t, p)
	if got := run(t, "ip link show "+netkit.HostIface(endpointID)); !strings.Contains(got, "mtu 1400") {
		t.Errorf("forgot the network: %s", got)
	}
	file := filepath.Join(dir, "plugin.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("record: %v, %v", info, err)
	}
	for _, damage := range []string{"", "{", `{"Networks":7}`, "\x00\x00\x00"} {
		if err := os.WriteFile(file, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		p = newPlugin(t, dir)
		if out := call(t, p, "NetworkDriver.Leave", `{"NetworkID":"e1","EndpointID":"`+endpointID+`"}`); out["Err"] != nil {
			t.Errorf("leave: %v", out)
		}
		call(t, p, "NetworkDriver.CreateEndpoint", create)
		join(t, p)
	}
	call(t, p, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+endpointID+`"}`)
}

// TestKeep repairs a container's route as soon as it is gone.
func TestKeep(t *testing.T) {
	p := newPlugin(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	call(t, p, "NetworkDriver.CreateEndpoint", `{"NetworkID":"e1","EndpointID":"`+endpointID+`","Interface":{"Address":"10.0.0.7/24"}}`)
	join(t, p)
	defer call(t, p, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+endpointID+`"}`)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for range 3 {
		run(t, "ip route flush 10.0.0.7/32")
		for !strings.Contains(run(t, "ip route show 10.0.0.7"), netkit.IfacePrefix) {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("the route did not come back")
			}
		}
	}
}

// TestListen takes over a dead daemon's socket, and leaves a live one's alone.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	first := newPlugin(t, dir)
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := newPlugin(t, dir).Listen(); err == nil || !strings.Contains(err.Error(), "another shoal daemon") {
		t.Errorf("second daemon: %v", err)
	}
	first.ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = first.ln.Close()
	last := newPlugin(t, dir)
	if err := last.Listen(); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	_ = last.ln.Close()
}

// What an engine finds when the socket is missing must fail at once, which it
// does for a certificate that can not be loaded and for nothing else.
func TestWordForEnginesThatStartAlone(t *testing.T) {
	dir := t.TempDir()
	p := newPlugin(t, dir)
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	defer p.ln.Close()
	raw, err := os.ReadFile(p.spec)
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Name, Addr string
		TLSConfig  struct {
			CAFile             string
			InsecureSkipVerify bool
		}
	}
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.Name != Driver || spec.Addr != "unix://"+p.socket || spec.TLSConfig.CAFile == "" || spec.TLSConfig.InsecureSkipVerify {
		t.Errorf("described as %s", raw)
	}
	if _, err := os.Stat(spec.TLSConfig.CAFile); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it to be missing", spec.TLSConfig.CAFile, err)
	}
	for range 2 { // the second time there is nothing left to remove
		if err := p.Clear(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(p.spec); !os.IsNotExist(err) {
		t.Errorf("the description is left behind: %v", err)
	}
}

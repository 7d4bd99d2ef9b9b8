//go:build linux

package meshtest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"shoal/internal/api"
	"shoal/internal/netkit"
	"shoal/lb/nft"
	"shoal/network/overlay"
	"shoal/network/plugin"
)

// engine is a real Docker engine in this process's network namespace, with a
// /run of its own, in which it finds the plugin.
type engine struct {
	t    *testing.T
	dir  string
	sock string
	stop func()
}

func startPlugin(t *testing.T, dir string) (stop func()) {
	t.Helper()
	p := plugin.New(plugin.Config{
		Socket: filepath.Join(dir, "plugins", "shoal.sock"), Spec: filepath.Join(dir, "shoal.json"),
		StateDir: filepath.Join(dir, "state"), Log: zaptest.NewLogger(t),
	})
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("plugin: %v", err)
		}
	}
}

func (e *engine) start() {
	e.t.Helper()
	script := `mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/docker/plugins &&
mount --bind "$1/plugins" /run/docker/plugins &&
echo '{}' > "$1/daemon.json" && exec dockerd --config-file "$1/daemon.json" -H "unix://$1/docker.sock" --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --userland-proxy=false`
	out, err := os.Create(filepath.Join(e.dir, "dockerd.log"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", e.dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	probe := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.sock)
		},
	}}
	await(e.t, time.Minute, "engine", func() bool {
		resp, err := probe.Get("http://engine/_ping")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	e.t.Logf("engine up after %s", time.Since(begin).Round(time.Millisecond))
}

// await polls a condition with a deadline.
func await(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within %s", what, within)
		}
	}
}

func (e *engine) docker(args ...string) string {
	e.t.Helper()
	out, err := exec.Command("docker", append([]string{"-H", "unix://" + e.sock}, args...)...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// ask connects from inside a container; the answer is "" when that fails.
func (e *engine) ask(container, addr, port string) string {
	out, _ := exec.Command("docker", "-H", "unix://"+e.sock, "exec", container, "/bin/sh", "-c",
		"echo hello | /bin/busybox nc -w 2 "+addr+" "+port).CombinedOutput()
	return strings.TrimSpace(string(out))
}

// post calls the engine's API, for what the command line can not say.
func (e *engine) post(path string, body any) {
	e.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		e.t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.sock)
	}, DisableKeepAlives: true}}
	resp, err := c.Post("http://engine"+path, "application/json", bytes.NewReader(b))
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 {
		var msg bytes.Buffer
		_, _ = msg.ReadFrom(resp.Body)
		e.t.Fatalf("POST %s: %s: %s", path, resp.Status, msg.String())
	}
}

// importBusybox makes an image of the host's static busybox.
func (e *engine) importBusybox() {
	e.t.Helper()
	bin, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		e.t.Skip("no static busybox to make an image of")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, link := range map[string]string{"bin/busybox": "", "bin/sh": "busybox"} {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeSymlink, Linkname: link}
		if link == "" {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(bin))
		}
		if err := w.WriteHeader(h); err != nil {
			e.t.Fatal(err)
		}
		if link == "" {
			if _, err := w.Write(bin); err != nil {
				e.t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command("docker", "-H", "unix://"+e.sock, "import", "-", "box")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("import: %v\n%s", err, out)
	}
}

// TestEngine attaches real containers through a real engine, restarts the
// driver and the engine under them, and takes everything away again.
func TestEngine(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Docker engine")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		t.Skip("no Docker engine installed")
	}
	dir, err := os.MkdirTemp("/var/lib", "shoal-engine-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(filepath.Join(dir, "dockerd.log")); err == nil {
				t.Logf("engine:\n%s", b[max(0, len(b)-4096):])
			}
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.MkdirAll(filepath.Join(dir, "plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	e := &engine{t: t, dir: dir, sock: filepath.Join(dir, "docker.sock"), stop: func() {}}
	stopPlugin := startPlugin(t, dir)
	t.Cleanup(func() { stopPlugin() })
	t.Cleanup(func() { e.stop() })
	e.start()
	e.importBusybox()

	e.post("/networks/create", map[string]any{
		"Name": "ingress", "Driver": plugin.Driver, "CheckDuplicate": true,
		"Options": map[string]string{plugin.OptionNetworkID: "net1", plugin.OptionMTU: "1400"},
		"IPAM": map[string]any{
			"Driver": plugin.Driver, "Options": map[string]string{plugin.OptionNetworkID: "net1"},
			"Config": []any{map[string]string{"Subnet": "10.7.0.0/24"}},
		},
	})
	create := func(name, addr string) {
		e.post("/containers/create?name="+name, map[string]any{
			"Image": "box", "Cmd": []string{"/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/sh", "-c", "read x; echo " + name},
			"StopSignal": "KILL",
			"HostConfig": map[string]any{"NetworkMode": "ingress"},
			"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{
				"ingress": map[string]any{"IPAMConfig": map[string]string{"IPv4Address": addr}},
			}},
		})
		e.docker("start", name)
	}
	create("web1", "10.7.0.7")
	create("web2", "10.7.0.8")
	if got := e.docker("exec", "web1", "/bin/busybox", "ip", "route"); !strings.Contains(got, "default via 10.") || !strings.Contains(got, " dev eth0") {
		t.Errorf("routes in the container:\n%s", got)
	}
	if got := e.docker("exec", "web1", "/bin/busybox", "ip", "addr", "show", "eth0"); !strings.Contains(got, "10.7.0.7/24") || !strings.Contains(got, "mtu 1400") {
		t.Errorf("interface in the container:\n%s", got)
	}

	log := zaptest.NewLogger(t)
	o, mesh := overlay.New(log), nft.New(log)
	state := &api.NodeState{
		Node: &api.Node{Meta: api.Meta{ID: nodeID}},
		Networks: map[string]*api.Network{"net1": {
			Meta: api.Meta{ID: "net1"}, Subnets: []api.Subnet{{Prefix: netip.MustParsePrefix("10.7.0.0/24")}},
		}},
		Endpoints: map[string]*api.Endpoint{"s": {
			ServiceID: "s", Ports: []api.Port{{Protocol: "tcp", Target: 80, Published: 8080}},
			VIPs: []api.VIP{{NetworkID: "net1", Addr: netip.MustParseAddr("10.7.0.2")}},
			Backends: []api.Backend{{
				TaskID: "t1", NodeID: nodeID,
				Networks: []api.Attachment{{NetworkID: "net1", Addr: netip.MustParsePrefix("10.7.0.7/24")}},
			}},
		}},
	}
	state.Networks["net1"].Spec.Ingress = true
	if err := mesh.Set(ctx, state); err != nil {
		t.Fatal(err)
	}
	if err := o.Set(ctx, state); err != nil {
		t.Fatal(err)
	}
	e.docker("run", "-d", "--stop-signal", "KILL", "--name", "plain", "box", "/bin/busybox", "sleep", "1000")
	bridge := strings.TrimSpace(e.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", "plain"))
	check := func(when string) {
		t.Helper()
		for where, got := range map[string]func() string{
			"127.0.0.1":             func() string { s, _ := get(self{}, "tcp", "127.0.0.1:8080"); return s },
			"task by address":       func() string { return e.ask("web2", "10.7.0.7", "80") },
			"task by VIP":           func() string { return e.ask("web2", "10.7.0.2", "80") },
			"itself by VIP":         func() string { return e.ask("web1", "10.7.0.2", "80") },
			"task by port":          func() string { return e.ask("web2", bridge, "8080") },
			"bridge container":      func() string { return e.ask("plain", bridge, "8080") },
			"host to task directly": func() string { s, _ := get(self{}, "tcp", "10.7.0.7:80"); return s },
		} {
			if s := got(); s != "web1" {
				t.Errorf("%s, %s: got %q", when, where, s)
			}
		}
	}
	check("at first")

	stopPlugin()
	stopPlugin = startPlugin(t, dir)
	check("after a restart of the driver")
	e.docker("restart", "-t", "0", "web1")
	check("after a restart of the container")

	e.stop()
	e.start()
	for _, c := range []string{"web1", "web2", "plain"} {
		e.docker("start", c)
	}
	o.SetState(ctx, overlay.State{}) //nolint:errcheck // the next Set tells
	if err := o.Set(ctx, state); err != nil {
		t.Fatal(err)
	}
	check("after a restart of the engine")

	if out, err := exec.Command("docker", "-H", "unix://"+e.sock, "run", "--network", "ingress", "box", "/bin/sh").CombinedOutput(); err == nil || !strings.Contains(string(out), "attached to this network by the cluster") {
		t.Errorf("a container without an address: %v\n%s", err, out)
	}
	for _, c := range []string{"web1", "web2"} {
		e.docker("rm", "-f", c)
	}
	for _, f := range []func(context.Context) error{o.Clear, mesh.Clear} {
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	}
	ids := e.docker("ps", "-aq", "--filter", "network=ingress")
	for id := range strings.FieldsSeq(ids) {
		e.docker("rm", "-f", id)
	}
	e.docker("network", "rm", "ingress")
	for cmd, trace := range map[string]string{
		"ip link": netkit.IfacePrefix, "ip route show table all": "169.254.1.1", "nft list ruleset": "shoal", "iptables -S": "shoal",
	} {
		args := strings.Fields(cmd)
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil || strings.Contains(string(out), trace) {
			t.Errorf("%s shows what should be gone (%v):\n%s", cmd, err, out)
		}
	}
}

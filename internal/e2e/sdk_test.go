package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"shoal/internal/testbed"
)

// TestFromOutside uses a cluster from another machine, with nothing but the files
// of a client certificate: by Docker's SDK, by the docker command and by shoal.
func TestFromOutside(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 1, testbed.WithFlags("--api-addr", "tcp://0.0.0.0"))
	h := bed.Host(0)
	refused(t, h.Shoal("client-cert", "--out", t.TempDir()), "not a swarm manager")
	testbed.Must(t, h.Shoal("swarm", "init"))
	certs, addr := filepath.Join(t.TempDir(), "certs"), "tcp://"+h.IP.String()+":2376"
	contains(t, testbed.Must(t, h.Shoal("client-cert", "--out", certs, "--name", "ann", "--expiry", "1h")), addr, "docker context create shoal")
	refused(t, h.Shoal("client-cert", "--out", certs), "exists already")

	c, err := client.NewClientWithOpts(client.WithHost(addr), client.WithAPIVersionNegotiation(),
		client.WithTLSClientConfig(filepath.Join(certs, "ca.pem"), filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Run("sdk", func(t *testing.T) { program(t, c) })
	t.Run("python", func(t *testing.T) { python(t, addr, certs) })

	from := bed.Client()
	home := t.TempDir()
	run := func(script string, env ...string) testbed.Result {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return from.Run(ctx, append(append([]string{"env", "HOME=" + home}, env...), "/bin/sh", "-c", script)...)
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	testbed.Must(t, run(fmt.Sprintf("docker context create shoal --docker host=%s,ca=%s,cert=%s,key=%s", addr, file("ca.pem"), file("cert.pem"), file("key.pem"))))
	contains(t, testbed.Must(t, run("docker --context shoal node ls")), "h1", "Leader")
	if got := testbed.Must(t, run("echo through | docker --context shoal run -i --rm "+testbed.WebV1+" cat")); got != "through\n" {
		t.Errorf("a container's input and output over the network: %q", got)
	}
	shoal := func(command string) testbed.Result {
		return run("shoal --host "+addr+" "+command, "SHOAL_CERT_PATH="+certs)
	}
	testbed.Must(t, shoal("service create -q --name near --no-resolve-image --update-monitor 300ms --env A=b "+testbed.WebV1))
	for command, want := range map[string]string{ // what Docker's client has no call for
		"node ls": "h1", "info": "Data Plane: nft", "explain near": "near", "service history near": "created with image",
		"exec near.1 env": "A=b", "rebalance --dry-run": "",
	} {
		contains(t, testbed.Must(t, shoal(command)), want)
	}
	testbed.Must(t, shoal("service update -q --env-add A=c near"))
	testbed.Must(t, shoal("service rollback -q --to 1 near"))
	if got := testbed.Must(t, run("echo in | shoal --host "+addr+" exec -i near.1 sh -c 'cat; echo $A'", "SHOAL_CERT_PATH="+certs)); got != "in\nb\n" {
		t.Errorf("exec with input over the network: %q", got)
	}
	refused(t, run("shoal --host "+addr+" client-cert --out "+home+"/more", "SHOAL_CERT_PATH="+certs), "not over the network")
	refused(t, run("docker -H "+addr+" node ls"), "shoal client-cert")
	refused(t, run("shoal --host "+addr+" node ls"), "shoal client-cert")
	refused(t, run(fmt.Sprintf("docker -H %s --tlsverify --tlscacert %s --tlscert %s --tlskey %s info", addr,
		file("ca.pem"), filepath.Join(h.DataDir(), "tls/node.crt"), file("key.pem"))), "")
	if got := testbed.Must(t, h.Run(t.Context(), "/bin/sh", "-c", `printf 'GET /_ping HTTP/1.0\r\n\r\n' | shoal system dial-stdio`)); !strings.HasSuffix(got, "OK") {
		t.Errorf("dial-stdio: %q", got)
	}
	testbed.Must(t, h.Shoal("swarm", "ca", "--rotate", "--quiet"))
	pair, err := tls.LoadX509KeyPair(file("cert.pem"), file("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", h.IP.String()+":2376", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // where a client hears that its certificate is refused
	}
	if err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("a certificate of a root that was rotated away: %v", err)
	}
}

// program is what somebody writes who knows Docker's SDK.
func program(t *testing.T, c *client.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	happened, failed := c.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "service"), filters.Arg("type", "container"))})
	replicas := uint64(1)
	monitor := 100 * time.Millisecond
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: "app", Labels: map[string]string{"made": "here"}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{
			Image: testbed.WebV1, Command: []string{"sh", "-c"}, Args: []string{`trap exit TERM; echo hello; while :; do sleep 0.1; done`},
		}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		UpdateConfig: &swarm.UpdateConfig{Monitor: monitor},
	}
	made, err := c.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("a second service of the name: %v", err)
	}
	running := func(n int) {
		t.Helper()
		testbed.Eventually(t, patience, func() error {
			tasks, err := c.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", "app"), filters.Arg("desired-state", "running"))})
			up := slices.DeleteFunc(tasks, func(t swarm.Task) bool { return t.Status.State != swarm.TaskStateRunning })
			if err == nil && len(up) != n {
				err = fmt.Errorf("%d run, want %d", len(up), n)
			}
			return err
		})
	}
	running(1)
	was, raw, err := c.ServiceInspectWithRaw(ctx, "app", swarm.ServiceInspectOptions{})
	if err != nil || !bytes.Contains(raw, []byte(made.ID)) || was.Spec.Labels["made"] != "here" {
		t.Fatalf("%v in %s", err, raw)
	}
	replicas = 2
	now := was.Spec
	now.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	if _, err := c.ServiceUpdate(ctx, made.ID, was.Version, now, swarm.ServiceUpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ServiceUpdate(ctx, made.ID, was.Version, was.Spec, swarm.ServiceUpdateOptions{}); err == nil || !strings.Contains(err.Error(), "update out of sequence") {
		t.Errorf("an update from an old version: %v", err)
	}
	running(2)
	list, err := c.ServiceList(ctx, swarm.ServiceListOptions{Status: true, Filters: filters.NewArgs(filters.Arg("label", "made=here"))})
	if err != nil || len(list) != 1 || list[0].ServiceStatus == nil || list[0].ServiceStatus.RunningTasks != 2 {
		t.Errorf("list: %+v %v", list, err)
	}
	testbed.Eventually(t, patience, func() error { // what runs need not have written yet
		logs, err := c.ServiceLogs(ctx, "app", container.LogsOptions{ShowStdout: true, ShowStderr: true})
		if err != nil {
			return err
		}
		defer logs.Close()
		var stdout, stderr bytes.Buffer
		if _, err := stdcopy.StdCopy(&stdout, &stderr, logs); err != nil || strings.Count(stdout.String(), "hello") != 2 {
			return fmt.Errorf("logs: %q %q %v", &stdout, &stderr, err)
		}
		return nil
	})
	if err := c.ServiceRemove(ctx, "app"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ServiceInspectWithRaw(ctx, "app", swarm.ServiceInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("after its removal: %v", err)
	}

	want := []string{"service create ", "container start ", "service update 1 to 2", "service remove "}
	for len(want) > 0 {
		select {
		case m := <-happened:
			change := ""
			if old := m.Actor.Attributes["replicas.old"]; old != "" {
				change = old + " to " + m.Actor.Attributes["replicas.new"]
			}
			if fmt.Sprint(m.Type, " ", m.Action, " ", change) == want[0] {
				want = want[1:]
			}
		case err := <-failed:
			t.Fatalf("events: %v, still to come: %q", err, want)
		case <-ctx.Done():
			t.Fatalf("these did not come: %q", want)
		}
	}
}

// debianPython is the one that Debian's packages are for; another may come first
// in PATH.
const debianPython = "/usr/bin/python3"

// python is the same in short with Docker's library for Python.
func python(t *testing.T, addr, certs string) {
	if err := exec.CommandContext(t.Context(), debianPython, "-c", "import docker").Run(); err != nil {
		t.Fatal("there is no docker library for python3: scripts/setup.sh installs python3-docker")
	}
	const script = `
import docker, sys, time
addr, certs, image = sys.argv[1:]
tls = docker.tls.TLSConfig(ca_cert=certs+"/ca.pem", client_cert=(certs+"/cert.pem", certs+"/key.pem"), verify=True)
c = docker.DockerClient(base_url=addr, version="auto", tls=tls)
assert c.swarm.attrs["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
s = c.services.create(image, command=["sleep", "1000"], name="py", labels={"a": "b"}, stop_grace_period=0,
    mode=docker.types.ServiceMode("replicated", 1), env=["A=b"])
def running(n):
    deadline = time.time() + 60
    while True:
        up = {t["ID"] for t in s.tasks({"desired-state": "running"}) if t["Status"]["State"] == "running"}
        if len(up) == n:
            return up
        assert time.time() < deadline, s.tasks()
        time.sleep(0.1)
first = running(1)
assert [x.name for x in c.services.list(filters={"label": ["a=b"]})] == ["py"]
assert s.scale(2) # which sends all defaults back
assert running(2) > first, s.tasks()
s.reload()
assert s.attrs["Spec"]["Mode"]["Replicated"]["Replicas"] == 2, s.attrs
assert len(s.tasks()) == 2, s.tasks()
assert s.update(labels={"c": "d"})
s.reload()
assert s.attrs["Spec"]["Labels"] == {"c": "d"}, s.attrs
assert c.nodes.list(filters={"role": "manager"})[0].attrs["ManagerStatus"]["Leader"]
secret = c.secrets.create(name="pys", data=b"x")
secret.remove()
assert c.containers.run(image, "echo out", remove=True) == b"out\n"
s.remove()
try:
    c.services.get("py")
    assert False
except docker.errors.NotFound:
    pass
`
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, debianPython, "-c", script, addr, certs, testbed.WebV1)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.Contains(kv, "CA_BUNDLE=") // which would be trusted in the place of ours
	})
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	} else if err != nil {
		t.Fatal(err)
	}
}

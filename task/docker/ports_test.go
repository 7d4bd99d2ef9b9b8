package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"shoal/internal/api"
)

// TestTakenPort: an engine that can not publish a port says so at length and
// without who has it; the task says who, or else what the engine says.
func TestTakenPort(t *testing.T) {
	const failed = "driver failed programming external connectivity on endpoint web.1.t1 (%s): "
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		name, engine, neighbour string
		owner                   string // of port 18090/tcp
		want                    string
	}{
		{"a process, engine 20", failed + "Error starting userland proxy: listen tcp4 0.0.0.0:18090: bind: address already in use", "", "python3 (pid 7)", "port 18090/tcp is already in use on node h1 by python3 (pid 7)"},
		{"a process, engine 28", "failed to set up container networking: " + failed + "failed to bind host port for 0.0.0.0:18090:172.17.0.2:80/tcp: address already in use", "", "python3 (pid 7)", "port 18090/tcp is already in use on node h1 by python3 (pid 7)"},
		{"a container", failed + "Bind for 0.0.0.0:18090 failed: port is already allocated", "stray", "docker-proxy (pid 8)", "port 18090/tcp is already in use on node h1 by container stray"},
		{"who has gone", failed + "Bind for 0.0.0.0:18090 failed: port is already allocated", "", "", "driver failed programming external connectivity on endpoint web.1.t1 (0123456789ab): Bind for 0.0.0.0:18090 failed: port is already allocated"},
		{"another port", failed + "Bind for 0.0.0.0:18091 failed: port is already allocated", "", "python3 (pid 7)", "driver failed programming external connectivity on endpoint web.1.t1 (0123456789ab): Bind for 0.0.0.0:18091 failed: port is already allocated"},
		{"another reason", "no space left on device: %s:18090", "", "python3 (pid 7)", "no space left on device: " + hex[:12] + ":18090"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("API-Version", "1.41")
				w.Header().Set("Content-Type", "application/json")
				switch path := r.URL.Path; {
				case strings.HasSuffix(path, "/_ping"):
				case strings.HasSuffix(path, "/start"):
					w.WriteHeader(http.StatusInternalServerError)
					_ = json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(c.engine, hex)})
				case strings.HasSuffix(path, "/containers/c1/json"):
					_, _ = fmt.Fprint(w, `{"Id":"c1","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"18090"}],"81/tcp":[{"HostPort":"18091"}]}}}`)
				case strings.HasSuffix(path, "/containers/json"):
					var others []container.Summary
					if c.neighbour != "" {
						others = append(others, container.Summary{Names: []string{"/" + c.neighbour}, Ports: []container.Port{{PublicPort: 18090, Type: "tcp"}}})
					}
					_ = json.NewEncoder(w).Encode(others)
				case strings.HasSuffix(path, "/info"):
					_, _ = fmt.Fprint(w, `{"Name":"h1"}`)
				default:
					http.NotFound(w, r)
				}
			}))
			defer engine.Close()
			e := New(Config{Host: "tcp://" + engine.Listener.Addr().String(), FilesDir: t.TempDir(), PortOwner: func(protocol string, port uint16) (string, error) {
				if protocol == "tcp" && port == 18090 {
					return c.owner, nil
				}
				return "", nil
			}})
			defer func() { _ = e.Close() }()
			if err := e.Start(t.Context(), "c1"); err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestChosenPorts: a number that the mesh, a process, another container or the
// task itself has is not chosen, and what was chosen is found again.
func TestChosenPorts(t *testing.T) {
	var neighbours []container.Summary
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("API-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/_ping"):
		case strings.HasSuffix(path, "/containers/json"):
			_ = json.NewEncoder(w).Encode(neighbours)
		default:
			http.NotFound(w, r)
		}
	}))
	defer engine.Close()
	asked := map[string]bool{}
	e := New(Config{Host: "tcp://" + engine.Listener.Addr().String(), FilesDir: t.TempDir(), PortOwner: func(protocol string, port uint16) (string, error) {
		// Whoever asks twice may have it: the first number of each is a stranger's.
		if first := !asked[protocol]; first {
			asked[protocol] = true
			return "python3 (pid 7)", nil
		}
		return "", nil
	}})
	defer func() { _ = e.Close() }()
	cc := &compiled{config: &container.Config{Labels: map[string]string{}}, host: &container.HostConfig{PortBindings: nat.PortMap{
		"80/tcp": {{}, {HostPort: "8080"}, {}}, "80/udp": {{}},
	}}}
	made, err := e.choosePorts(t.Context(), &api.NodeState{}, cc)
	if err != nil {
		t.Fatal(err)
	}
	made()
	chosen := strings.Split(cc.config.Labels[labelPorts], ",")
	all := portConfigs(cc.host.PortBindings)
	if len(all) != 4 || len(chosen) != 3 {
		t.Fatalf("chosen: %v, of %v", chosen, all)
	}
	neighbours = []container.Summary{{Names: []string{"/web.1.t1"}, Labels: cc.config.Labels}}
	s := &api.NodeState{Endpoints: map[string]*api.Endpoint{"web": {Ports: []api.Port{{Protocol: "tcp", Published: 7000}}}}}
	for _, p := range all {
		mine := p.PublishedPort != 8080
		if who, err := e.PublishedBy(t.Context(), string(p.Protocol), uint16(p.PublishedPort)); err != nil || (who == "web.1.t1") != mine {
			t.Errorf("%d/%s is published by %q, %v", p.PublishedPort, p.Protocol, who, err)
		}
	}
	if !meshed(s, "tcp", 7000) || meshed(s, "udp", 7000) || meshed(s, "tcp", 7001) {
		t.Error("what the mesh has is not seen")
	}
	if !published(cc.host.PortBindings, "tcp", 8080) || published(cc.host.PortBindings, "udp", 8080) {
		t.Error("what the task has is not seen")
	}
}

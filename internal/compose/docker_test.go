package compose

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

// TestSameAsDocker deploys the files that docker stack deploy knows with the stock client, to a manager that only
// listens, and compares what it is asked for with what we would ask for.
func TestSameAsDocker(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the docker client")
	}
	dir := testDir(t)
	for _, name := range []string{"voting", "proxy", "monitoring", "database"} {
		t.Run(name, func(t *testing.T) {
			// Load is for one at a time: the library logs to all of the process.
			stack, _ := loadStack(t, Input{Name: "st", Files: []string{name + ".yml"}, Dir: dir, Env: testEnv})
			t.Parallel()
			heard := listen(t)
			cmd := exec.Command(docker, "-H", "unix://"+heard.socket, "stack", "deploy", "--resolve-image", "never", "-c", name+".yml", "st")
			cmd.Dir = dir
			cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
			for key, value := range testEnv {
				cmd.Env = append(cmd.Env, key+"="+value)
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("docker stack deploy: %v\n%s", err, out)
			}
			if diff := cmp.Diff(heard.asked(), asked(stack)); diff != "" {
				t.Errorf("not what docker stack deploy asks for (-docker +shoal):\n%s", diff)
			}
		})
	}
}

// asked is every object of a stack by its kind and name, as JSON, the IDs of others left out.
func asked(s *Stack) map[string]any {
	all := map[string]any{}
	for _, n := range s.Networks {
		all["network "+n.Name] = plain(network.CreateRequest{Name: n.Name, CreateOptions: n.Options})
	}
	for _, o := range s.Secrets {
		all["secret "+o.Name] = plain(o)
	}
	for _, o := range s.Configs {
		all["config "+o.Name] = plain(o)
	}
	for _, o := range s.Services {
		// The client adds the tag as it asks; ours is the same.
		box := o.Spec.TaskTemplate.ContainerSpec
		if named, err := reference.ParseNormalizedNamed(box.Image); err == nil {
			box.Image = reference.FamiliarString(reference.TagNameOnly(named))
		}
		data, err := json.Marshal(o.Spec)
		if err != nil {
			panic(err)
		}
		all["service "+o.Spec.Name] = strict(data)
	}
	return all
}

// strict is a service's spec as a manager stores it: what is empty but there makes a difference, and new tasks.
func strict(data []byte) any {
	var spec swarm.ServiceSpec
	if err := json.Unmarshal(data, &spec); err != nil {
		panic(err)
	}
	for _, r := range spec.TaskTemplate.ContainerSpec.Secrets {
		r.SecretID = ""
	}
	for _, r := range spec.TaskTemplate.ContainerSpec.Configs {
		r.ConfigID = ""
	}
	return spec
}

// plain is a value as its JSON says it, without what is empty and without IDs.
func plain(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return prune(out)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			value = prune(value)
			if key == "SecretID" || key == "ConfigID" || value == nil || value == "" || value == false || value == float64(0) {
				delete(v, key)
				continue
			}
			v[key] = value
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

// manager answers like one that has nothing yet, and remembers what it was asked for.
type manager struct {
	socket string
	mu     sync.Mutex
	made   map[string]any
	names  map[string][]string // by kind
}

func listen(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{socket: filepath.Join(dir, "m.sock"), made: map[string]any{}, names: map[string][]string{}}
	l, err := net.Listen("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: m}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
		_ = os.RemoveAll(dir)
	})
	return m
}

func (m *manager) asked() map[string]any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made
}

var version = regexp.MustCompile(`^/v1\.\d+`)

func (m *manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Content-Type", "application/json")
	path := version.ReplaceAllString(r.URL.Path, "")
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	single := strings.TrimSuffix(kind, "s")
	switch {
	case path == "/_ping":
	case path == "/info":
		fmt.Fprint(w, `{"Swarm":{"LocalNodeState":"active","ControlAvailable":true}}`)
	case rest == "create":
		body, _ := io.ReadAll(r.Body)
		var object map[string]any
		_ = json.Unmarshal(body, &object)
		name, _ := object["Name"].(string)
		delete(object, "CheckDuplicate") // the engine has long ignored it
		m.made[single+" "+name] = plain(object)
		if kind == "services" {
			m.made[single+" "+name] = strict(body)
		}
		m.names[kind] = append(m.names[kind], name)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"ID":"id-%s"}`, name)
	case kind == "networks" && rest != "": // an external one
		fmt.Fprintf(w, `{"Name":%q,"Id":"id","Scope":"swarm"}`, rest)
	case rest != "":
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"%s %s not found"}`, single, rest)
	case kind == "secrets":
		list := []swarm.Secret{{ID: "x", Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: "shared_key"}}}}
		for _, name := range m.names[kind] {
			list = append(list, swarm.Secret{ID: "id-" + name, Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}}})
		}
		_ = json.NewEncoder(w).Encode(list)
	case kind == "configs":
		list := []swarm.Config{}
		for _, name := range m.names[kind] {
			list = append(list, swarm.Config{ID: "id-" + name, Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}}})
		}
		_ = json.NewEncoder(w).Encode(list)
	default:
		fmt.Fprint(w, `[]`)
	}
}

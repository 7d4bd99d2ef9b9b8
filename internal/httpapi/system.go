package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
)

// distributionTime bounds a look at a registry. Clients ask for a digest before
// they create a service and go on without one; an engine that can not resolve
// the registry's name would keep them for half a minute.
const distributionTime = 5 * time.Second

// defaultBuilder is BuildKit, where the engine can not be asked.
const defaultBuilder = "2"

func (s *server) passToEngine(w http.ResponseWriter, r *request) error { return s.engine.pass(w, r) }

// volumeCreate keeps volumes of the cluster from engines that do not know of them
// and would make one of their own.
func (s *server) volumeCreate(w http.ResponseWriter, r *request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return badJSON(err)
	}
	var wanted struct{ ClusterVolumeSpec json.RawMessage }
	if json.Unmarshal(body, &wanted) == nil && len(wanted.ClusterVolumeSpec) > 0 && string(wanted.ClusterVolumeSpec) != "null" {
		return s.refuse("cluster volumes are")(w, r)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return s.engine.pass(w, r)
}

func (s *server) distribution(w http.ResponseWriter, r *request) error {
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.registryTime,
		unavailable("the registry did not answer the Docker engine within %s", s.registryTime))
	defer cancel()
	r.Request = r.WithContext(ctx)
	s.logIn(r)
	return s.engine.pass(w, r)
}

// logIn lends a question about an image the cluster's credentials, if its client
// has none of its own.
func (s *server) logIn(r *request) {
	if own := r.Header.Get(registry.AuthHeader); own != "" && own != "e30=" {
		return
	}
	_, path, _ := splitVersion(r.URL.Path)
	image := strings.TrimSuffix(strings.TrimPrefix(path, "/distribution/"), "/json")
	if auth := s.node.RegistryAuth(image); auth != "" {
		r.Request = r.Clone(r.Context()) // the client's own header stays as it was
		r.Header.Set(registry.AuthHeader, auth)
	}
}

// ping says what clients need before anything else. It answers without an
// engine, too.
func (s *server) ping(w http.ResponseWriter, r *request) error {
	builder := defaultBuilder
	if facts, err := s.engine.know(r.Context()); err == nil && facts.builder != "" {
		builder = facts.builder
	}
	h := w.Header()
	h.Set("Builder-Version", builder)
	h.Set("Swarm", swarmHeader(s.node.Status()))
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := io.WriteString(w, "OK")
	return err
}

func swarmHeader(st NodeStatus) string {
	switch {
	case st.State == "":
		return string(swarm.LocalNodeStateInactive)
	case st.State != swarm.LocalNodeStateActive:
		return string(st.State)
	case st.ControlAvailable:
		return "active/manager"
	}
	return "active/worker"
}

// getVersion is the engine's, with the API versions that hold here.
func (s *server) getVersion(w http.ResponseWriter, r *request) error {
	var v types.Version
	if err := s.engine.getJSON(r.Context(), "/version", &v); err != nil {
		v = types.Version{
			Version: s.build.Version, GitCommit: s.build.Commit, BuildTime: s.build.Time,
			Os: runtime.GOOS, Arch: runtime.GOARCH, GoVersion: runtime.Version(),
		}
	}
	v.APIVersion, v.MinAPIVersion = maxVersion.String(), minVersion.String()
	for i := range v.Components {
		if d := v.Components[i].Details; v.Components[i].Name == "Engine" && d != nil {
			d["ApiVersion"], d["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	details := map[string]string{"GoVersion": runtime.Version(), "DataPlane": s.node.Status().DataPlane}
	if s.build.Commit != "" {
		details["GitCommit"], details["BuildTime"] = s.build.Commit, s.build.Time
	}
	v.Components = append(v.Components, types.ComponentVersion{Name: "shoal", Version: s.build.Version, Details: details})
	return writeJSON(w, http.StatusOK, v)
}

// getInfo is the engine's, with our part about the cluster. What we do not know
// of passes unread. Without an engine, the part about the cluster remains.
func (s *server) getInfo(w http.ResponseWriter, r *request) error {
	st := s.node.Status()
	info := map[string]json.RawMessage{}
	var warnings []string
	if err := s.engine.getJSON(r.Context(), s.engine.path(r, "/info"), &info); err != nil {
		hostname, _ := os.Hostname() // no name is better than no answer
		info = map[string]json.RawMessage{"Name": raw(hostname), "OSType": raw(runtime.GOOS), "NCPU": raw(runtime.NumCPU())}
		warnings = append(warnings, "WARNING: "+err.Error())
	} else {
		_ = json.Unmarshal(info["Warnings"], &warnings) // what is not a list is replaced
	}
	section, err := s.swarmInfo(st)
	if err != nil {
		return err
	}
	if section.Managers == 2 {
		warnings = append(warnings, "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"+
			"         no fault tolerance, and poses a high risk to lose control over the cluster.")
	}
	info["Swarm"], info["Warnings"] = raw(section), raw(warnings)
	about := map[string]string{"Version": s.build.Version, "DataPlane": st.DataPlane}
	if host, port, err := net.SplitHostPort(s.apiAddr); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = st.NodeAddr
		}
		about["APIAddr"] = "tcp://" + net.JoinHostPort(host, port)
	}
	info["Shoal"] = raw(about)
	return writeJSON(w, http.StatusOK, info)
}

func (s *server) swarmInfo(st NodeStatus) (swarm.Info, error) {
	info := swarm.Info{
		NodeID:           st.NodeID,
		NodeAddr:         st.NodeAddr,
		LocalNodeState:   st.State,
		ControlAvailable: st.ControlAvailable,
		Error:            st.Err,
		RemoteManagers:   st.RemoteManagers,
	}
	if info.LocalNodeState == "" {
		info.LocalNodeState = swarm.LocalNodeStateInactive
	}
	// Also without a leader, and then it says so: people look here first.
	c := s.node.Replica()
	if c == nil || st.State != swarm.LocalNodeStateActive {
		return info, nil
	}
	if info.Error == "" && s.node.Control() == nil && s.node.Forward() == nil {
		info.Error = errNoLeader.Error()
	}
	cluster, err := c.Cluster()
	if err != nil {
		return info, nil // a manager that is not ready shows what it knows
	}
	info.Cluster = &cluster.ClusterInfo
	nodes, err := c.Nodes(filters.NewArgs())
	if err != nil {
		return info, fmt.Errorf("count nodes: %w", err)
	}
	info.Nodes = len(nodes)
	for _, n := range nodes {
		if strings.EqualFold(string(n.Spec.Role), string(swarm.NodeRoleManager)) {
			info.Managers++
		}
	}
	return info, nil
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}

// diagnose is ours alone: Docker has nothing like it.
func (s *server) diagnose(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, s.doctor.Diagnose(r.Context()))
}

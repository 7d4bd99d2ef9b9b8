package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"shoal/internal/control"
)

// Containers that are no tasks may be on the cluster's attachable networks. The
// engine has these under a name of its own, a moment after they were made; what is
// said of them to it is said with that.

const (
	// offered is how long a container waits for the engine to have its network.
	offered = 10 * time.Second
	look    = 50 * time.Millisecond
)

// containerCreate looks which networks a new container is to be on.
func (s *server) containerCreate(w http.ResponseWriter, r *request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return badJSON(err)
	}
	if s.inCluster() {
		if body, err = s.onNetworks(r, body); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return s.engine.pass(w, r)
}

// onNetworks gives the body with the engine's names for the cluster's networks.
// All that is not about networks stays as it came.
func (s *server) onNetworks(r *request, body []byte) ([]byte, error) {
	var all, host, networking map[string]json.RawMessage
	var mode container.NetworkMode
	settings := map[string]json.RawMessage{}
	if json.Unmarshal(body, &all) != nil {
		return body, nil // what can not be read is the engine's to refuse
	}
	_ = json.Unmarshal(all["HostConfig"], &host)
	_ = json.Unmarshal(host["NetworkMode"], &mode)
	_ = json.Unmarshal(all["NetworkingConfig"], &networking)
	_ = json.Unmarshal(networking["EndpointsConfig"], &settings)
	changed := false
	if mode.IsUserDefined() {
		name, ours, err := s.engineName(r, string(mode))
		if err != nil {
			return nil, err
		}
		if ours {
			host["NetworkMode"], changed = raw(name), true
		}
	}
	for ref, setting := range settings {
		if !container.NetworkMode(ref).IsUserDefined() {
			continue
		}
		name, ours, err := s.engineName(r, ref)
		if err != nil {
			return nil, err
		}
		if ours {
			delete(settings, ref)
			settings[name], changed = setting, true
		}
	}
	if !changed {
		return body, nil
	}
	// Who names servers of its own gets these alone.
	var servers []string
	if _ = json.Unmarshal(host["Dns"], &servers); len(servers) == 0 && len(s.dns) > 0 {
		if host == nil {
			host = map[string]json.RawMessage{}
		}
		host["Dns"] = raw(s.dns)
	}
	if host != nil {
		all["HostConfig"] = raw(host)
	}
	if networking != nil {
		networking["EndpointsConfig"] = raw(settings)
		all["NetworkingConfig"] = raw(networking)
	}
	return raw(all), nil
}

// engineName gives the engine's name of a network of the cluster that containers
// may be attached to. ours is false for what the engine has for itself, and for
// what nobody knows: it says so best.
func (s *server) engineName(r *request, ref string) (name string, ours bool, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), offered)
	defer cancel()
	for {
		c, err := s.findNetwork(r, ref, "")
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
			// No manager answers. What this node was told last goes on.
			c, err = s.knownNetwork(r, ref)
		}
		if errdefs.IsNotFound(err) || err == nil && !c.cluster {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		if !c.attachable {
			return "", false, control.NotAttachable(c.name)
		}
		if c.engineID != "" {
			return c.engineName, true, nil
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return "", false, unavailable("network %s is not there yet on the engine of this node: see the daemon's log", c.name)
		}
	}
}

// networkConnect and networkDisconnect are the engine's, under its own name.
func (s *server) networkConnect(w http.ResponseWriter, r *request) error {
	return s.onNetwork(w, r, "/connect", true)
}

func (s *server) networkDisconnect(w http.ResponseWriter, r *request) error {
	return s.onNetwork(w, r, "/disconnect", false)
}

func (s *server) onNetwork(w http.ResponseWriter, r *request, verb string, attach bool) error {
	if !s.inCluster() {
		return s.engine.pass(w, r)
	}
	c, err := s.findNetwork(r, r.vars["id"], "")
	if err != nil {
		return err
	}
	if !c.cluster {
		return s.engine.pass(w, r.at("/networks/"+c.id+verb))
	}
	if !attach && c.engineID != "" {
		return s.engine.pass(w, r.at("/networks/"+c.engineID+verb))
	}
	name, _, err := s.engineName(r, c.id)
	if err != nil {
		return err
	}
	return s.engine.pass(w, r.at("/networks/"+name+verb))
}

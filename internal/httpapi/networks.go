package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"shoal/internal/api"
	"shoal/internal/control"
)

// Networks are of two kinds: the cluster's, and those that the local engine has
// for itself. Clients see one list.

// engineNetworks lists the engine's networks, with what else it says of each.
func (s *server) engineNetworks(ctx context.Context, f filters.Args) ([]engineNetwork, []json.RawMessage, error) {
	path := "/networks"
	if f.Len() > 0 {
		q, err := filters.ToJSON(f)
		if err != nil {
			return nil, nil, invalid("invalid filter: %v", err)
		}
		path += "?" + url.Values{"filters": {q}}.Encode()
	}
	var raws []json.RawMessage
	if err := s.engine.getJSON(ctx, path, &raws); err != nil {
		return nil, nil, err
	}
	networks := make([]engineNetwork, len(raws))
	for i, r := range raws {
		if err := json.Unmarshal(r, &networks[i]); err != nil {
			return nil, nil, invalid("read the engine's networks: %v", err)
		}
	}
	return networks, raws, nil
}

func (s *server) networkList(w http.ResponseWriter, r *request) error {
	if !s.inCluster() {
		return s.engine.pass(w, r)
	}
	f, err := r.filters()
	if err != nil {
		return err
	}
	if err := network.ValidateFilters(f); err != nil {
		return invalid("%v", err)
	}
	list, err := s.clusterNetworks(r, f)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, n := range s.node.Networks() {
		ours[n.ID] = true
	}
	local, raws, err := s.engineNetworks(r.Context(), f)
	if err != nil {
		return err
	}
	for i, n := range local {
		if !ours[n.Labels[labelNetwork]] {
			list = append(list, raws[i])
		}
	}
	return writeJSON(w, http.StatusOK, list)
}

// clusterNetworks lists the cluster's networks: on a worker those that it knows.
func (s *server) clusterNetworks(r *request, f filters.Args) ([]json.RawMessage, error) {
	list := []json.RawMessage{}
	if !s.managing() {
		known, err := control.ListNetworks(s.node.Networks(), f, func(*api.Network) bool { return true })
		for _, n := range known {
			list = append(list, raw(n))
		}
		return list, err
	}
	q, err := filters.ToJSON(f)
	if err != nil {
		return nil, invalid("invalid filter: %v", err)
	}
	a, err := s.ask(r, http.MethodGet, "/shoal/networks", url.Values{"filters": {q}}, nil)
	if err != nil {
		return nil, err
	}
	return list, a.read(&list)
}

// findNetwork finds the network that a client means.
func (s *server) findNetwork(r *request, ref, scope string) (candidate, error) {
	// Where nothing else is said, a predefined name means the engine's network.
	if n, ok := api.Predefined(ref); ok && (scope == scopeSwarm || ref == n.ID && scope == "") {
		return candidate{id: n.ID, name: n.Spec.Name, cluster: true}, nil
	}
	known := s.node.Networks()
	if s.managing() {
		a, err := s.ask(r, http.MethodGet, "/shoal/networks", nil, nil)
		if err != nil {
			return candidate{}, err
		}
		var list []network.Summary
		if err := a.read(&list); err != nil {
			return candidate{}, err
		}
		known = nil
		for _, n := range list {
			o := &api.Network{Meta: api.Meta{ID: n.ID}}
			o.Spec.Name, o.Spec.Attachable = n.Name, n.Attachable
			known = append(known, o)
		}
	}
	local, _, err := s.engineNetworks(r.Context(), filters.Args{})
	if err != nil && scope != scopeSwarm {
		return candidate{}, err
	}
	return pick(ref, scope, candidates(local, known))
}

// knownNetwork finds it as far as this node knows, without the managers.
func (s *server) knownNetwork(r *request, ref string) (candidate, error) {
	local, _, err := s.engineNetworks(r.Context(), filters.Args{})
	if err != nil {
		return candidate{}, err
	}
	return pick(ref, "", candidates(local, s.node.Networks()))
}

func (s *server) networkInspect(w http.ResponseWriter, r *request) error {
	if !s.inCluster() {
		return s.engine.pass(w, r)
	}
	scope, err := r.query("scope")
	if err != nil {
		return err
	}
	c, err := s.findNetwork(r, r.vars["id"], scope)
	if err != nil {
		return err
	}
	if !c.cluster {
		return s.engine.pass(w, r.at("/networks/"+c.id))
	}
	var out network.Inspect
	if n, ok := api.Predefined(c.id); ok {
		return writeJSON(w, http.StatusOK, control.PredefinedResource(n))
	}
	if s.managing() {
		a, err := s.ask(r, http.MethodGet, "/shoal/networks/"+c.id, r.URL.Query(), nil)
		if err != nil {
			return err
		}
		if err := a.read(&out); err != nil {
			return err
		}
	} else {
		for _, n := range s.node.Networks() {
			if n.ID == c.id {
				out = control.NetworkResource(n)
			}
		}
	}
	if c.engineID != "" {
		// As in Docker: the containers of this machine alone, and null if there
		// are none. (There, the engine then has no such network.)
		var here network.Inspect
		if err := s.engine.getJSON(r.Context(), "/networks/"+c.engineID, &here); err == nil && len(here.Containers) > 0 {
			out.Containers = here.Containers
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *server) networkCreate(w http.ResponseWriter, r *request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return badJSON(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var req network.CreateRequest
	if json.Unmarshal(body, &req) != nil {
		return s.engine.pass(w, r) // what can not be read is the engine's to refuse
	}
	if !control.ClusterNetwork(req) {
		for _, n := range s.node.Networks() {
			if n.Spec.Name == req.Name {
				return errdefs.ErrAlreadyExists.WithMessage("network with name " + req.Name + " already exists")
			}
		}
		return s.engine.pass(w, r)
	}
	if !s.managing() {
		return notManager(s.node.Status())
	}
	a, err := s.ask(r, http.MethodPost, "/shoal/networks/create", nil, req)
	if err != nil {
		return err
	}
	return a.pass(w)
}

func (s *server) networkRemove(w http.ResponseWriter, r *request) error {
	if !s.inCluster() {
		return s.engine.pass(w, r)
	}
	c, err := s.findNetwork(r, r.vars["id"], "")
	switch {
	case err != nil:
		return err
	case !c.cluster:
		return s.engine.pass(w, r.at("/networks/"+c.id))
	case !s.managing():
		return notManager(s.node.Status())
	}
	if n, ok := api.Predefined(c.id); ok {
		return errdefs.ErrPermissionDenied.WithMessage(n.Spec.Name + " is a pre-defined network and cannot be removed")
	}
	a, err := s.ask(r, http.MethodDelete, "/shoal/networks/"+c.id, nil, nil)
	if err != nil {
		return err
	}
	return a.pass(w)
}

// networkPrune removes unused networks of both kinds. The engine's parts of the
// cluster's are kept from it: the next task would need them again.
func (s *server) networkPrune(w http.ResponseWriter, r *request) error {
	if !s.inCluster() {
		return s.engine.pass(w, r)
	}
	f, err := r.filters()
	if err != nil {
		return err
	}
	q, err := filters.ToJSON(f)
	if err != nil {
		return invalid("invalid filter: %v", err)
	}
	var all network.PruneReport
	if s.managing() {
		a, err := s.ask(r, http.MethodPost, "/shoal/networks/prune", url.Values{"filters": {q}}, nil)
		if err != nil {
			return err
		}
		if err := a.read(&all); err != nil {
			return err
		}
	}
	f.Add("label!", labelNetwork)
	if q, err = filters.ToJSON(f); err != nil {
		return invalid("invalid filter: %v", err)
	}
	local := &answer{header: http.Header{}}
	own := *r
	own.Request = r.Clone(r.Context())
	own.URL.RawQuery = url.Values{"filters": {q}}.Encode()
	if err := s.engine.pass(local, &own); err != nil {
		return err
	}
	var engines network.PruneReport
	if err := local.read(&engines); err != nil {
		return err
	}
	all.NetworksDeleted = append(all.NetworksDeleted, engines.NetworksDeleted...)
	return writeJSON(w, http.StatusOK, all)
}

// at is the request for another path, in the version that the client speaks.
func (r *request) at(path string) *request {
	out := *r
	out.Request = r.Clone(r.Context())
	if r.explicit {
		path = "/v" + r.version.String() + path
	}
	out.URL.Path, out.URL.RawPath = path, ""
	return &out
}

// What follows is answered by the leader.

func (s *server) clusterNetworkList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	list, err := r.control.Networks(f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) clusterNetworkInspect(w http.ResponseWriter, r *request) error {
	verbose, err := r.strictFlag("verbose")
	if err != nil {
		return err
	}
	n, err := r.control.Network(r.vars["id"], verbose)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, n)
}

func (s *server) clusterNetworkCreate(w http.ResponseWriter, r *request) error {
	var req network.CreateRequest
	if err := readJSON(w, r.Request, &req); err != nil {
		return err
	}
	id, err := r.control.CreateNetwork(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id})
}

func (s *server) clusterNetworkRemove(w http.ResponseWriter, r *request) error {
	if err := r.control.RemoveNetwork(r.Context(), r.vars["id"]); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) clusterNetworkPrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	removed, err := r.control.PruneNetworks(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, network.PruneReport{NetworksDeleted: removed})
}

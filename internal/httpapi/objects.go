package httpapi

import (
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/control"
)

func (s *server) nodeList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	nodes, err := r.control.Nodes(f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, nodes)
}

func (s *server) nodeInspect(w http.ResponseWriter, r *request) error {
	n, err := r.control.Node(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, n)
}

func (s *server) nodeUpdate(w http.ResponseWriter, r *request) error {
	var spec swarm.NodeSpec
	if err := readJSON(w, r.Request, &spec); err != nil {
		return err
	}
	version, err := r.objectVersion("node")
	if err != nil {
		return err
	}
	return r.control.UpdateNode(r.Context(), r.vars["id"], version, spec)
}

func (s *server) nodeRemove(_ http.ResponseWriter, r *request) error {
	force, err := r.flag("force")
	if err != nil {
		return err
	}
	return r.control.RemoveNode(r.Context(), r.vars["id"], force)
}

func (s *server) serviceList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	status := false
	if !r.version.less(version{1, 41}) {
		if status, err = r.strictFlag("status"); err != nil {
			return err
		}
	}
	services, err := r.control.Services(f, status)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, services)
}

func (s *server) serviceInspect(w http.ResponseWriter, r *request) error {
	defaults, err := r.strictFlag("insertDefaults")
	if err != nil {
		return err
	}
	svc, err := r.control.Service(r.vars["id"], defaults)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, svc)
}

func (s *server) serviceCreate(w http.ResponseWriter, r *request) error {
	var spec swarm.ServiceSpec
	if err := readJSON(w, r.Request, &spec); err != nil {
		return err
	}
	id, err := r.control.CreateService(r.Context(), spec, r.Header.Get(registry.AuthHeader))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, struct {
		ID       string
		Warnings []string `json:",omitempty"` // an engine leaves them out where there are none
	}{id, r.control.Warnings(id)})
}

func (s *server) serviceUpdate(w http.ResponseWriter, r *request) error {
	u := control.Update{RegistryAuth: r.Header.Get(registry.AuthHeader)}
	if err := readJSON(w, r.Request, &u.Spec); err != nil {
		return err
	}
	var err error
	if u.Version, err = r.objectVersion("service"); err != nil {
		return err
	}
	if u.RegistryAuthFrom, err = r.query("registryAuthFrom"); err != nil {
		return err
	}
	rollback, err := r.query("rollback")
	if err != nil {
		return err
	}
	switch rollback {
	case "", "none":
	case "previous":
		u.Rollback = true
	default:
		return invalid("unrecognized rollback option %s", rollback)
	}
	if err := r.control.UpdateService(r.Context(), r.vars["id"], u); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, swarm.ServiceUpdateResponse{Warnings: r.control.Warnings(r.vars["id"])})
}

func (s *server) serviceRemove(_ http.ResponseWriter, r *request) error {
	return r.control.RemoveService(r.Context(), r.vars["id"])
}

func (s *server) taskList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	tasks, err := r.control.Tasks(f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tasks)
}

func (s *server) taskInspect(w http.ResponseWriter, r *request) error {
	t, err := r.control.Task(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, t)
}

func (s *server) refuse(what string) func(http.ResponseWriter, *request) error {
	return func(http.ResponseWriter, *request) error {
		return errdefs.ErrNotImplemented.WithMessage(what + " not supported by this version of shoal")
	}
}

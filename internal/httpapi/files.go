package httpapi

import (
	"net/http"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/control"
)

func (s *server) secretList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	retired, err := r.flag("versions") // ours alone
	if err != nil {
		return err
	}
	secrets, err := r.control.Secrets(f, retired)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, secrets)
}

func (s *server) secretInspect(w http.ResponseWriter, r *request) error {
	secret, err := r.control.Secret(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, secret)
}

func (s *server) secretCreate(w http.ResponseWriter, r *request) error {
	var spec swarm.SecretSpec
	if err := readJSON(w, r.Request, &spec); err != nil {
		return err
	}
	id, err := r.control.CreateSecret(r.Context(), spec)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]string{"ID": id})
}

func (s *server) configList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	retired, err := r.flag("versions")
	if err != nil {
		return err
	}
	configs, err := r.control.Configs(f, retired)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, configs)
}

func (s *server) configInspect(w http.ResponseWriter, r *request) error {
	config, err := r.control.Config(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, config)
}

func (s *server) configCreate(w http.ResponseWriter, r *request) error {
	var spec swarm.ConfigSpec
	if err := readJSON(w, r.Request, &spec); err != nil {
		return err
	}
	id, err := r.control.CreateConfig(r.Context(), spec)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]string{"ID": id})
}

func (s *server) fileUpdate(kind api.Kind) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		var spec swarm.ConfigSpec
		if err := readJSON(w, r.Request, &spec); err != nil {
			return err
		}
		version, err := r.objectVersion(string(kind))
		if err != nil {
			return err
		}
		return r.control.UpdateFile(r.Context(), kind, r.vars["id"], version, spec)
	}
}

// fileReplace is ours alone: in Docker's API data never changes. With stay=1, the
// services of the file's own stack are left to whoever deploys it.
func (s *server) fileReplace(kind api.Kind) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		var spec swarm.ConfigSpec
		if err := readJSON(w, r.Request, &spec); err != nil {
			return err
		}
		stay, err := r.flag("stay")
		if err != nil {
			return err
		}
		dryRun, err := r.flag("dryRun")
		if err != nil {
			return err
		}
		if dryRun {
			would, err := r.control.WouldReplace(kind, r.vars["id"], spec)
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, would)
		}
		movers := control.MoveAll
		if stay {
			movers = control.MoveOthers
		}
		made, err := r.control.ReplaceFile(r.Context(), kind, r.vars["id"], spec, movers)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, made)
	}
}

// fileRemove answers 204, as Docker does for these two alone.
func (s *server) fileRemove(kind api.Kind) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		if err := r.control.RemoveFile(r.Context(), kind, r.vars["id"]); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

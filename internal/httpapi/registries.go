package httpapi

import (
	"net/http"

	"shoal/internal/control"
)

func (s *server) registryList(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, r.control.Registries())
}

func (s *server) registryLogin(w http.ResponseWriter, r *request) error {
	var l control.Login
	if err := readJSON(w, r.Request, &l); err != nil {
		return err
	}
	return r.control.SetRegistry(r.Context(), l)
}

func (s *server) registryLogout(w http.ResponseWriter, r *request) error {
	if err := r.control.RemoveRegistry(r.Context(), r.vars["host"]); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

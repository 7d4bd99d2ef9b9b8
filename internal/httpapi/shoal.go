package httpapi

import (
	"net/http"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/control"
)

// What Docker's API has no word for. Its clients send nothing under /shoal/.

func (s *server) explain(w http.ResponseWriter, r *request) error {
	e, err := r.control.Explain(r.vars["ref"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}

func (s *server) moving(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, r.control.Moving())
}

func (s *server) rebalance(w http.ResponseWriter, r *request) error {
	dryRun, err := r.flag("dryRun")
	if err != nil {
		return err
	}
	moves, err := r.control.Rebalance(r.Context(), r.Form["service"], dryRun)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, moves)
}

func (s *server) rotateKeys(w http.ResponseWriter, r *request) error {
	if err := r.control.RotateKeys(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) serviceHistory(w http.ResponseWriter, r *request) error {
	revisions, err := r.control.History(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, revisions)
}

// serviceRollback goes back to any revision that is kept; the previous one has
// Docker's own way.
func (s *server) serviceRollback(w http.ResponseWriter, r *request) error {
	u := control.Update{Rollback: true}
	var err error
	if u.Version, err = r.objectVersion("service"); err != nil {
		return err
	}
	if u.To, err = r.query("to"); err != nil {
		return err
	}
	if u.To == "" {
		return invalid("which revision to go back to is missing: to=NUMBER or to=NAME")
	}
	if err := r.control.UpdateService(r.Context(), r.vars["id"], u); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, swarm.ServiceUpdateResponse{Warnings: r.control.Warnings(r.vars["id"])})
}

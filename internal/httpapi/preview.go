package httpapi

import (
	"net/http"

	"shoal/internal/api"
)

// preview is ours alone: what would become of services, and where their tasks would run. It changes nothing.
func (s *server) preview(w http.ResponseWriter, r *request) error {
	var wishes []api.Wish
	if err := readJSON(w, r.Request, &wishes); err != nil {
		return err
	}
	previews, err := r.control.Preview(r.Context(), wishes)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, previews)
}

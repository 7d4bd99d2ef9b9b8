package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/docker/docker/api/types/filters"
)

// taskLabel is on the containers of tasks, and on no others.
const taskLabel = "com.docker.swarm.task.id"

// containerList is the engine's. An engine in swarm mode knows which containers are
// tasks, and lists them by "is-task"; to the engine of a node of ours, none is.
func (s *server) containerList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return s.engine.pass(w, r) // which refuses it in its own words
	}
	tasks, err := f.GetBoolOrDefault("is-task", false)
	if !f.Contains("is-task") || err != nil {
		return s.engine.pass(w, r)
	}
	for _, value := range f.Get("is-task") {
		f.Del("is-task", value)
	}
	if tasks {
		f.Add("label", taskLabel)
	}
	text, err := filters.ToJSON(f)
	if err != nil {
		return invalid("invalid filter: %v", err)
	}
	query := r.URL.Query()
	query.Set("filters", text)
	if tasks {
		r.Request = r.Clone(r.Context())
		r.URL.RawQuery = query.Encode()
		return s.engine.pass(w, r)
	}
	// There is no filter for what has no label. The last so many are those of the rest.
	limit, _ := strconv.Atoi(query.Get("limit"))
	if limit > 0 {
		query.Del("limit")
		query.Set("all", "1")
	}
	var all []json.RawMessage
	if err := s.engine.getJSON(r.Context(), s.engine.path(r, "/containers/json")+"?"+query.Encode(), &all); err != nil {
		return err
	}
	rest := []json.RawMessage{}
	for _, raw := range all {
		var c struct{ Labels map[string]string }
		if err := json.Unmarshal(raw, &c); err != nil {
			return err
		}
		if _, is := c.Labels[taskLabel]; !is && (limit <= 0 || len(rest) < limit) {
			rest = append(rest, raw)
		}
	}
	return writeJSON(w, http.StatusOK, rest)
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/docker/docker/api/types/swarm"
)

// ask puts a question to the cluster on behalf of a request that concerns this
// machine as well, so that it can not be passed on as a whole.
func (s *server) ask(r *request, method, path string, query url.Values, body any) (*answer, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("ask the cluster: %w", err)
		}
	}
	q, err := http.NewRequestWithContext(r.Context(), method, (&url.URL{Path: path, RawQuery: query.Encode()}).String(), bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("ask the cluster: %w", err)
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if c := r.Header.Values(conditionHeader); len(c) > 0 {
		q.Header[conditionHeader] = c
	}
	a := &answer{header: http.Header{}}
	if err := s.dispatch(a, q); err != nil {
		return nil, err
	}
	return a, nil
}

// answer is an answer that is kept, to be read here or passed on.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) failed() bool { return a.status >= http.StatusBadRequest }

// pass gives the answer to the client.
func (a *answer) pass(w http.ResponseWriter) error {
	if a.status == 0 {
		return nil
	}
	if a.body.Len() > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	_, err := io.Copy(w, &a.body)
	return err
}

// read decodes a good answer; one that is not comes back as an error.
func (a *answer) read(into any) error {
	if a.failed() {
		return &clusterRefusal{a}
	}
	if err := json.Unmarshal(a.body.Bytes(), into); err != nil {
		return fmt.Errorf("read the cluster's answer: %w", err)
	}
	return nil
}

// clusterRefusal is an answer that says no, with the status and words that it had.
type clusterRefusal struct{ answer *answer }

func (e *clusterRefusal) Error() string {
	var msg struct{ Message string }
	if json.Unmarshal(e.answer.body.Bytes(), &msg) != nil || msg.Message == "" {
		return http.StatusText(e.answer.status)
	}
	return msg.Message
}

// managing tells whether this node can ask the cluster; inCluster whether it is
// in one at all.
func (s *server) managing() bool {
	st := s.node.Status()
	return st.ControlAvailable && st.State == swarm.LocalNodeStateActive
}

func (s *server) inCluster() bool {
	st := s.node.Status().State
	return st != "" && st != swarm.LocalNodeStateInactive
}

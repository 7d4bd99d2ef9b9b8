package httpapi

import (
	"io"
	"net/http"
	"net/url"
	"testing"
)

// TestIsTask: what only an engine in swarm mode could tell is told by labels.
func TestIsTask(t *testing.T) {
	e := newFakeEngine(t, "1.41", "1.12", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Id":"a","New":1},{"Id":"t","Labels":{"com.docker.swarm.task.id":"x"}},{"Id":"b","Labels":{"of":"me"}}]`)
	})
	h := newHarness(t, e.host)
	const all = `[{"Id":"a","New":1},{"Id":"t","Labels":{"com.docker.swarm.task.id":"x"}},{"Id":"b","Labels":{"of":"me"}}]`
	for _, c := range []struct{ query, asked, want string }{
		{"", "", all},
		{`filters={"status":["running"]}`, `filters={"status":["running"]}`, all},
		{`filters={"is-task":["maybe"]}`, `filters={"is-task":["maybe"]}`, all},
		{`filters={"is-task":{"true":true},"label":{"of":true}}&all=1`, `all=1&filters={"label":{"com.docker.swarm.task.id":true,"of":true}}`, all},
		{`filters={"is-task":["false"]}`, `filters=`, `[{"Id":"a","New":1},{"Id":"b","Labels":{"of":"me"}}]` + "\n"},
		{`filters={"is-task":["0"]}&limit=1`, `all=1&filters=`, `[{"Id":"a","New":1}]` + "\n"},
	} {
		path := "/v1.50/containers/json"
		if c.query != "" {
			path += "?" + url.PathEscape(c.query)
		}
		status, _, body := h.call("GET", path, "")
		asked, err := url.QueryUnescape(e.last())
		want := "/v1.41/containers/json"
		if c.asked != "" {
			want += "?" + c.asked
		}
		if status != 200 || body != c.want || err != nil || asked != want {
			t.Errorf("%s: %d %s\nthe engine was asked %s, want %s", c.query, status, body, asked, want)
		}
	}
}

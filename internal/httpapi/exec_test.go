package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// echoExec is a node whose commands say what they hear in capital letters, and
// end with 3 when their input does.
type echoExec struct{ asked chan string }

func (e *echoExec) TaskExec(_ context.Context, nodeID, taskID string, o api.ExecOptions) (io.ReadWriteCloser, error) {
	e.asked <- taskID + " " + strings.Join(o.Cmd, " ")
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		for {
			kind, payload, err := api.ReadFrame(there)
			if err != nil {
				return
			}
			switch kind {
			case api.FrameStdin:
				err = api.WriteFrame(there, api.FrameStdout, bytes.ToUpper(payload))
			case api.FrameEOF:
				_ = api.WriteFrameJSON(there, api.FrameResult, api.ExecResult{ExitCode: 3})
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return here, nil
}

// TestExec: what a client says reaches the command while its answers come back,
// also through a manager that does not lead.
func TestExec(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	h.create("web", 1, "")

	exec := func(ref string, frames func(w io.Writer)) *http.Response {
		t.Helper()
		body, w := io.Pipe()
		t.Cleanup(func() { _ = w.Close() })
		go frames(w)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shoal/shoal/tasks/"+ref+"/exec", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	options := func(w io.Writer) {
		_ = api.WriteFrameJSON(w, api.FrameOptions, api.ExecOptions{Cmd: []string{"cat", "-"}, Stdin: true})
	}

	words := make(chan string)
	resp := exec("web.1", func(w io.Writer) {
		options(w)
		for word := range words {
			_ = api.WriteFrame(w, api.FrameStdin, []byte(word))
		}
		_ = api.WriteFrame(w, api.FrameEOF, nil)
	})
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s", resp.Status, raw)
	}
	if asked := <-h.execs.asked; !strings.HasSuffix(asked, " cat -") {
		t.Errorf("the node was asked for %q", asked)
	}
	for _, word := range []string{"one", "two"} {
		words <- word
		if kind, got, err := api.ReadFrame(resp.Body); err != nil || kind != api.FrameStdout || string(got) != strings.ToUpper(word) {
			t.Fatalf("%q came back as %c %q, %v", word, kind, got, err)
		}
	}
	close(words)
	var result api.ExecResult
	if kind, raw, err := api.ReadFrame(resp.Body); err != nil || kind != api.FrameResult || json.Unmarshal(raw, &result) != nil || result.ExitCode != 3 {
		t.Errorf("result %c %q, %v", kind, raw, err)
	}

	// A node that is no manager says so at once, while the request goes on.
	status, verbs := h.node.Status(), h.node.Control()
	h.node.set(NodeStatus{State: swarm.LocalNodeStateActive}, nil)
	if resp := exec("web.1", options); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("on a worker: %s", resp.Status)
	}
	h.node.set(status, verbs)
	for _, c := range []struct {
		ref    string
		frames func(io.Writer)
		status int
		says   string
	}{
		{"none.1", options, http.StatusNotFound, "task none.1 not found"},
		{"web.2", options, http.StatusNotFound, "task web.2 not found"},
		{"web.1", func(w io.Writer) { _ = api.WriteFrame(w, api.FrameStdin, nil) }, http.StatusBadRequest, "first frame"},
		{"web.1", func(w io.Writer) { _ = api.WriteFrameJSON(w, api.FrameOptions, api.ExecOptions{}) }, http.StatusBadRequest, "No exec command"},
		{"web.1", func(w io.Writer) { _, _ = w.Write([]byte("hello")) }, http.StatusBadRequest, "too large"},
	} {
		resp := exec(c.ref, c.frames)
		raw, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || !strings.Contains(string(raw), c.says) {
			t.Errorf("%s: %s %s, want %d %s", c.ref, resp.Status, raw, c.status, c.says)
		}
	}
}

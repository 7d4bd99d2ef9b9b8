package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker/docker/pkg/stdcopy"
	"github.com/google/go-cmp/cmp"
)

const logDetails = "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id="

// logServer answers as a daemon does for a service of ten, of which two tasks wrote something.
func logServer(t *testing.T, got *http.Request) string {
	mux := http.NewServeMux()
	answer := func(pattern, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(body))
		})
	}
	answer("GET /{v}/services/web", `{"ID":"s1","Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":10}}}}`)
	answer("GET /{v}/services/tty", `{"ID":"s2","Spec":{"TaskTemplate":{"ContainerSpec":{"TTY":true}}}}`)
	answer("GET /{v}/services/s1", `{"ID":"s1","Spec":{"Name":"web"}}`)
	answer("GET /{v}/nodes/n1", `{"ID":"n1","Description":{"Hostname":"host"}}`)
	answer("GET /{v}/tasks/task1", `{"ID":"task1","Slot":1,"NodeID":"n1"}`)
	answer("GET /{v}/tasks/task10aaaaaaaaaa", `{"ID":"task10aaaaaaaaaa","Slot":10,"NodeID":"n1"}`)
	logs := func(w http.ResponseWriter, r *http.Request) {
		*got = *r
		out, errs := stdcopy.NewStdWriter(w, stdcopy.Stdout), stdcopy.NewStdWriter(w, stdcopy.Stderr)
		stamp, from := "", func(string, string) string { return "" }
		if r.FormValue("timestamps") == "1" {
			stamp = "2026-01-01T00:00:00.000000001Z "
		}
		if r.FormValue("details") == "1" {
			from = func(task, more string) string { return logDetails + task + more + " " }
		}
		_, _ = out.Write([]byte(stamp + from("task1", ",tag=a%2Cb") + "one = 1, 2\n"))
		_, _ = errs.Write([]byte(stamp + from("task10aaaaaaaaaa", "") + "oops\n"))
	}
	mux.HandleFunc("GET /{v}/services/web/logs", logs)
	mux.HandleFunc("GET /{v}/tasks/task1/logs", logs)
	mux.HandleFunc("GET /{v}/services/tty/logs", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("raw\n")) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Api-Version", "1.50")
		if r.URL.Path != "/_ping" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"message":"not found"}`))
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http://", "tcp://", 1)
}

func TestLogs(t *testing.T) {
	tests := []struct {
		name, args  string
		out, errors string
		code        int
	}{
		{name: "prefixes line up", args: "web", out: "web.1.task1@host     | one = 1, 2\n", errors: "web.10.task10aaaaaa@host    | oops\n"},
		{name: "timestamps", args: "-t web", out: "2026-01-01T00:00:00.000000001Z web.1.task1@host     | one = 1, 2\n", errors: "2026-01-01T00:00:00.000000001Z web.10.task10aaaaaa@host    | oops\n"},
		{name: "details", args: "web --details", out: "web.1.task1@host     | tag=a,b one = 1, 2\n", errors: "web.10.task10aaaaaa@host    |  oops\n"},
		{name: "no task IDs", args: "--no-task-ids web", out: "web.1@host     | one = 1, 2\n", errors: "web.10@host    | oops\n"},
		{name: "no truncation", args: "--no-trunc web", out: "web.1.task1@host     | one = 1, 2\n", errors: "web.10.task10aaaaaaaaaa@host    | oops\n"},
		{name: "no names", args: "--no-resolve web", out: "s1.1.task1@n1     | one = 1, 2\n", errors: "s1.10.task10aaaaaa@n1    | oops\n"},
		{name: "raw", args: "--raw web", out: "one = 1, 2\n", errors: "oops\n"},
		{name: "a task", args: "task1", out: "web.1.task1@host    | one = 1, 2\n", errors: "web.10.task10aaaaaa@host    | oops\n"},
		{name: "neither", args: "nosuch", errors: "no such task or service: nosuch\n", code: 1},
		{name: "a terminal's output has no lines to prefix", args: "tty", errors: "tty service logs only supported with --raw\n", code: 1},
		{name: "a terminal's output, raw", args: "--raw tty", out: "raw\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got http.Request
			args := append([]string{"shoal", "-H", logServer(t, &got), "service", "logs"}, strings.Fields(test.args)...)
			var out, errs bytes.Buffer
			code := App{}.Run(context.Background(), args, strings.NewReader(""), &out, &errs)
			if diff := cmp.Diff([]any{test.out, test.errors, test.code}, []any{out.String(), errs.String(), code}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLogsAsksForWhatWasAsked(t *testing.T) {
	var got http.Request
	args := []string{"shoal", "-H", logServer(t, &got), "service", "logs", "-fn", "5", "--since", "2026-01-01T00:00:00Z", "web"}
	var out bytes.Buffer
	if code := (App{}).Run(context.Background(), args, strings.NewReader(""), &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	q := got.URL.Query()
	if q.Get("follow") != "1" || q.Get("tail") != "5" || !strings.HasPrefix(q.Get("since"), "1767225600") || q.Get("stdout") != "1" || q.Get("stderr") != "1" {
		t.Error(got.URL)
	}
}

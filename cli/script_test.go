package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"shoal/internal/build"
)

// The scripts run the real command line as a process against a daemon made of files: testdata/*.txt says how.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shoal": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(App{Build: build.Info{Version: "1.2.3", Commit: "0123456", Time: "2026-01-02T03:04:05Z"}, Daemon: miniDaemon}.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
	}})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// A socket's path is limited to 108 bytes; the script's own directory may be deeper.
			dir, err := os.MkdirTemp("", "shoal")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			env.Setenv("SOCKDIR", dir)
			env.Setenv("SHOAL_HOST", "unix://"+filepath.Join(dir, "api.sock"))
			env.Setenv("HOME", env.WorkDir)
			stop, err := serveFiles(filepath.Join(dir, "api.sock"), env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(stop)
			return nil
		},
	})
}

// serveFiles answers the API from a script's files: GET /services/web from api/GET/services/web, or the third time from
// api/GET/services/web.3 if there is one (and the last such from then on). Where both a list and its entries are asked
// for, GET /services is in api/GET/services/list. A first line "HTTP 409" is the
// status. What is not there is not found. Every request but GETs is written to the file "requests".
func serveFiles(socket, dir string) (stop func(), err error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	api := &fileAPI{dir: dir, asked: map[string]int{}}
	server := &http.Server{Handler: api}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return func() {
		_ = server.Close()
		<-ended
	}, nil
}

type fileAPI struct {
	dir   string
	mu    sync.Mutex
	asked map[string]int
}

var versionPrefix = regexp.MustCompile(`^/v1\.\d+`)

func (a *fileAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	path := versionPrefix.ReplaceAllString(r.URL.Path, "")
	if path == "/_ping" {
		return
	}
	if err := a.record(r, path); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	status, body := a.answer(r.Method, path)
	if status >= 400 && !json.Valid(body) {
		body, _ = json.Marshal(map[string]string{"message": strings.TrimSpace(string(body))})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (a *fileAPI) answer(method, path string) (int, []byte) {
	file := filepath.Join(a.dir, "api", method, filepath.FromSlash(path))
	a.asked[method+path]++
	for n := a.asked[method+path]; n > 0; n-- {
		if data, err := os.ReadFile(file + "." + strconv.Itoa(n)); err == nil {
			return withStatus(data)
		}
	}
	for _, name := range []string{file, filepath.Join(file, "list")} {
		if data, err := os.ReadFile(name); err == nil {
			return withStatus(data)
		}
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	return http.StatusNotFound, []byte(fmt.Sprintf("%s %s not found", strings.TrimSuffix(parts[0], "s"), parts[len(parts)-1]))
}

func withStatus(data []byte) (int, []byte) {
	line, rest, ok := strings.Cut(string(data), "\n")
	if code, err := strconv.Atoi(strings.TrimPrefix(line, "HTTP ")); ok && err == nil && strings.HasPrefix(line, "HTTP ") {
		return code, []byte(rest)
	}
	return http.StatusOK, data
}

func (a *fileAPI) record(r *http.Request, path string) error {
	if r.Method == http.MethodGet && !strings.HasPrefix(path, "/distribution") {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	query := ""
	if len(r.URL.RawQuery) > 0 {
		query = "?" + r.URL.RawQuery
	}
	file, err := os.OpenFile(filepath.Join(a.dir, "requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	auth := ""
	if header := r.Header.Get("X-Registry-Auth"); header != "" {
		auth = " auth=" + header
	}
	if header := r.Header.Get(ifIndex); header != "" {
		auth += " if=" + header
	}
	_, err = fmt.Fprintf(file, "%s %s%s%s %s\n", r.Method, path, query, auth, strings.TrimSpace(string(body)))
	return err
}

// miniDaemon stands for the real one: it says what it was told and answers the API from files.
func miniDaemon(ctx context.Context, c DaemonConfig) error {
	fmt.Printf("daemon %+v\n", c)
	if c.LogLevel == "error" {
		return errors.New("told to fail")
	}
	if c.LogLevel == "debug" {
		return nil
	}
	stop, err := serveFiles(c.Socket, c.DataDir)
	if err != nil {
		return err
	}
	defer stop()
	if err := os.WriteFile(filepath.Join(c.DataDir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

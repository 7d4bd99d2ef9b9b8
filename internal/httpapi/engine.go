package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/docker/docker/api/types"
	"go.uber.org/zap"
)

const (
	// factsAge is how long the engine's version is believed. After an upgrade
	// of the engine at most the requests of this time are spoken to it in the
	// wrong version, and it answers them with an error that clients understand.
	factsAge = 5 * time.Second
	// retryAge is how long an engine that does not answer is left alone.
	retryAge   = time.Second
	factsTime  = 3 * time.Second
	engineTime = 15 * time.Second // for /info and /version: an engine counts its containers for them
	maxAnswer  = 16 << 20
)

// engine is the local Docker engine behind the API.
type engine struct {
	host      string
	log       *zap.Logger
	transport *http.Transport
	proxy     *httputil.ReverseProxy

	mu    sync.Mutex
	facts engineFacts
	err   error
	until time.Time // facts and err count until then
}

// engineFacts is what has to be known of an engine to speak to it.
type engineFacts struct {
	api, min version
	builder  string // Builder-Version of its ping
}

// speak gives the version that the engine knows and that is nearest to v.
func (f engineFacts) speak(v version) version {
	if f.api.less(v) {
		v = f.api
	}
	if v.less(f.min) {
		v = f.min
	}
	return v
}

func newEngine(host string, log *zap.Logger) (*engine, error) {
	scheme, addr, ok := strings.Cut(host, "://")
	if !ok || scheme != "unix" && scheme != "tcp" || addr == "" {
		return nil, fmt.Errorf("address of the Docker engine %q: must be unix://path or tcp://host:port", host)
	}
	e := &engine{host: host, log: log}
	e.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, scheme, addr)
		},
		DisableCompression: true, // what passes through stays as it is
		IdleConnTimeout:    time.Minute,
	}
	e.proxy = &httputil.ReverseProxy{
		Transport:      e.transport,
		Rewrite:        rewrite,
		FlushInterval:  -1, // clients wait for the header of /wait before they start the container
		ModifyResponse: e.learn,
		ErrorHandler:   e.fail,
		ErrorLog:       zap.NewStdLog(log.Named("proxy")),
	}
	return e, nil
}

// engineHost is the Host that requests to an engine carry. Go insists on one.
const engineHost = "docker"

// target is the request as the engine is to see it.
type targetKey struct{}

func rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = "http", engineHost, engineHost
	if u, ok := pr.In.Context().Value(targetKey{}).(*url.URL); ok {
		pr.Out.URL.Path, pr.Out.URL.RawPath = u.Path, u.RawPath
	}
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // as the client wrote it
}

// pass hands a request on, in a version of the API that the engine speaks. It
// carries bodies of any size, connections that are taken over (attach, exec,
// session) and answers that never end.
func (e *engine) pass(w http.ResponseWriter, r *request) error {
	facts, err := e.know(r.Context())
	if err != nil {
		return err
	}
	// One without a version is at our newest, which is not always the engine's.
	v, rest, _ := splitVersion(r.URL.EscapedPath())
	u, err := url.Parse("/v" + facts.speak(v).String() + rest)
	if err != nil {
		return invalid("invalid path: %v", err)
	}
	e.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), targetKey{}, u)))
	return nil
}

// learn takes the headers that are ours out of the engine's answer, and notices
// when another version of it answers.
func (e *engine) learn(res *http.Response) error {
	if v, ok := parseVersion(res.Header.Get("Api-Version")); ok {
		e.mu.Lock()
		if v != e.facts.api {
			e.until = time.Time{}
		}
		e.mu.Unlock()
	}
	for _, h := range []string{"Api-Version", "Ostype", "Docker-Experimental", "Server"} {
		res.Header.Del(h)
	}
	return nil
}

func (e *engine) fail(w http.ResponseWriter, r *http.Request, err error) {
	if cause := context.Cause(r.Context()); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause // a limit of ours
	} else {
		err = e.unreachable(err)
	}
	writeError(w, err)
}

func (e *engine) unreachable(err error) error {
	return unavailable("cannot reach the Docker engine at %s: %v", e.host, err)
}

// know gives the facts of the engine, asking it if they are old.
func (e *engine) know(ctx context.Context) (engineFacts, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().Before(e.until) {
		return e.facts, e.err
	}
	// Not the client's context: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), factsTime)
	defer cancel()
	facts, err := e.ask(ctx)
	if err != nil {
		e.err, e.until = e.unreachable(err), time.Now().Add(retryAge)
		return e.facts, e.err
	}
	e.facts, e.err, e.until = facts, nil, time.Now().Add(factsAge)
	return e.facts, nil
}

func (e *engine) ask(ctx context.Context) (engineFacts, error) {
	res, err := e.get(ctx, "/_ping")
	if err != nil {
		return engineFacts{}, err
	}
	defer res.Body.Close()
	facts := engineFacts{builder: res.Header.Get("Builder-Version")}
	v, ok := parseVersion(res.Header.Get("Api-Version"))
	if !ok {
		return engineFacts{}, errors.New("it does not say its API version")
	}
	facts.api, facts.min = v, e.facts.min
	if v == e.facts.api {
		return facts, nil
	}
	var about types.Version
	if err := e.getJSON(ctx, "/version", &about); err != nil {
		return engineFacts{}, err
	}
	facts.min, _ = parseVersion(about.MinAPIVersion) // engines that do not say take all
	return facts, nil
}

// path is a path in the version of a client's request, as far as the engine
// speaks it.
func (e *engine) path(r *request, path string) string {
	facts, err := e.know(r.Context())
	if err != nil {
		return path // which is asked in vain
	}
	return "/v" + facts.speak(r.version).String() + path
}

func (e *engine) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+engineHost+path, nil)
	if err != nil {
		return nil, err
	}
	return e.transport.RoundTrip(req)
}

// getJSON asks the engine for an object.
func (e *engine) getJSON(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	res, err := e.get(ctx, path)
	if err != nil {
		return e.unreachable(err)
	}
	defer res.Body.Close()
	body := io.LimitReader(res.Body, maxAnswer)
	if res.StatusCode != http.StatusOK {
		return refusal(res)
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the Docker engine's answer to %s: %w", path, err)
	}
	return nil
}

// refusal is the engine's answer where it is an error, of the same kind.
func refusal(res *http.Response) error {
	var msg struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&msg); err != nil || msg.Message == "" {
		msg.Message = "the Docker engine answered " + res.Status
	}
	return &engineRefusal{msg.Message, errhttp.ToNative(res.StatusCode)}
}

type engineRefusal struct {
	text string
	kind error
}

func (e *engineRefusal) Error() string { return e.text }
func (e *engineRefusal) Unwrap() error { return e.kind }

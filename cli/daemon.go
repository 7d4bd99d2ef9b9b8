package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"shoal/cli/flags"
	"shoal/internal/api"
	"shoal/internal/build"
)

// DaemonConfig is what shoal daemon was told, and defaults for the rest: nothing in it is empty but what is
// said to be.
type DaemonConfig struct {
	DataDir    string
	Socket     string
	DockerHost string
	APIAddr    string // host:port; may be empty
	DataPlane  string // auto, nft or proxy
	LogLevel   string
	Build      build.Info
}

// DefaultDataDir holds a node's state unless told otherwise.
const DefaultDataDir = "/var/lib/shoal"

var (
	dataPlanes = []string{"auto", "nft", "proxy"}
	logLevels  = []string{"debug", "info", "warn", "error"}
)

func (s *session) daemonCommand() leaf {
	set := flags.Set{
		flags.Text("api-addr", "", "Address to answer the API on over the network, too, as tcp://HOST[:PORT], for clients with a certificate of \"shoal client-cert\", from SHOAL_API_ADDR"),
		flags.Text("data-dir", "", "Directory that holds this node's state, from SHOAL_DATA_DIR").WithDefault(`"` + DefaultDataDir + `"`),
		flags.Text("socket", "", "Path of the socket to answer the API on, from SHOAL_SOCKET").WithDefault(`"` + DefaultSocket + `"`),
		flags.Text("docker-host", "", "Engine that runs the containers, from SHOAL_DOCKER_HOST, then DOCKER_HOST").WithDefault(`"unix:///var/run/docker.sock"`),
		flags.Var("data-plane", "", "string", `What carries published ports ("auto", "nft", "proxy"), from SHOAL_DATA_PLANE`, oneOf(dataPlanes)).WithDefault(`"auto"`),
		flags.Var("log-level", "", "string", `How much to log ("debug", "info", "warn", "error"), from SHOAL_LOG_LEVEL`, oneOf(logLevels)).WithDefault(`"info"`),
	}
	return leaf{
		name: "daemon", usage: "Run a node in the foreground", flags: set, arity: none,
		run: func(ctx context.Context, in input) error {
			if s.app.Daemon == nil {
				return errors.New("the daemon runs on Linux only: this is a client for a daemon elsewhere (see --host)")
			}
			config, err := daemonConfig(in.Set)
			if err != nil {
				return err
			}
			config.Build = s.app.Build
			return s.app.Daemon(ctx, config)
		},
	}
}

// daemonConfig takes flags before the environment, and the environment before the defaults.
func daemonConfig(f flags.Set) (DaemonConfig, error) {
	value := func(flag, variable, otherwise string) string {
		if v := f.Text(flag); f.Changed(flag) && v != "" {
			return v
		}
		return env(variable, otherwise)
	}
	c := DaemonConfig{
		DataDir:    value("data-dir", "SHOAL_DATA_DIR", DefaultDataDir),
		Socket:     value("socket", "SHOAL_SOCKET", DefaultSocket),
		DockerHost: value("docker-host", "SHOAL_DOCKER_HOST", env("DOCKER_HOST", "unix:///var/run/docker.sock")),
		DataPlane:  value("data-plane", "SHOAL_DATA_PLANE", "auto"),
		LogLevel:   value("log-level", "SHOAL_LOG_LEVEL", "info"),
	}
	if text := value("api-addr", "SHOAL_API_ADDR", ""); text != "" {
		var err error
		if c.APIAddr, err = apiAddr(text); err != nil {
			return c, fmt.Errorf("--api-addr %q: %w", text, err)
		}
	}
	if _, err := oneOf(dataPlanes)(c.DataPlane); err != nil {
		return c, fmt.Errorf("SHOAL_DATA_PLANE %q: %w", c.DataPlane, err)
	}
	if _, err := oneOf(logLevels)(c.LogLevel); err != nil {
		return c, fmt.Errorf("SHOAL_LOG_LEVEL %q: %w", c.LogLevel, err)
	}
	return c, nil
}

func oneOf(words []string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", errors.New("must be " + api.Either(words...))
		}
		return s, nil
	}
}

// defaultAPIPort is Docker's, for TLS.
const defaultAPIPort = "2376"

// apiAddr reads tcp://HOST[:PORT]. No host is every address of the machine.
func apiAddr(text string) (string, error) {
	rest, ok := strings.CutPrefix(text, "tcp://")
	if !ok || strings.ContainsAny(rest, "/?#@") {
		return "", errors.New("must be tcp://HOST[:PORT]")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), defaultAPIPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

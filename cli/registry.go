package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/go-units"
	"golang.org/x/term"

	"shoal/cli/flags"
	"shoal/cli/format"
)

func (s *session) registryCommands() []leaf {
	login := flags.Set{
		flags.Text("username", "u", "Username"),
		flags.Text("password", "p", "Password or personal access token (PAT); --password-stdin keeps it out of the shell's history"),
		flags.Bool("password-stdin", "", "Take the Password or Personal Access Token (PAT) from stdin"),
		flags.Bool("no-check", "", "Do not have the registry check the credentials first"),
	}
	list := flags.Set{flags.Text("format", "", format.Usage), flags.Bool("quiet", "q", "Only display registries")}
	return []leaf{
		{
			name: "login", args: "[REGISTRY]", usage: "Have all nodes log in at a registry when they pull; the default is Docker Hub",
			flags: login, arity: arity{0, 1}, run: s.registryLogin,
		},
		{name: "logout", args: "[REGISTRY]", usage: "Forget the credentials of all nodes for a registry", arity: arity{0, 1}, run: s.registryLogout},
		{name: "ls", aliases: []string{"list"}, usage: "List the registries that all nodes can log in at", flags: list, arity: none, run: s.registryList},
	}
}

// hubName is what is meant if no registry is named.
const hubName = "docker.io"

func registryName(in input) string {
	if len(in.args) == 0 {
		return hubName
	}
	return in.args[0]
}

func (s *session) registryLogin(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	user, password, err := s.askLogin(in)
	if err != nil {
		return err
	}
	name := registryName(in)
	login := struct{ Host, Username, Password, IdentityToken string }{Host: name, Username: user, Password: password}
	if !in.Bool("no-check") {
		address := name
		if registryHost(name) == hubName {
			address = dockerHub
		}
		answer, err := api.RegistryLogin(ctx, registry.AuthConfig{Username: user, Password: password, ServerAddress: address})
		if err != nil {
			return fmt.Errorf("the credentials are not kept, for they could not be checked (--no-check goes without): %w", err)
		}
		if answer.IdentityToken != "" {
			login.Password, login.IdentityToken = "", answer.IdentityToken
		}
	}
	if err := s.ask(ctx, http.MethodPost, "/shoal/registries", login, nil); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "Login Succeeded")
	return nil
}

// askLogin takes user and password from flags, from stdin, or from whoever sits at the terminal.
func (s *session) askLogin(in input) (user, password string, err error) {
	user, password = in.Text("username"), in.Text("password")
	switch {
	case in.Bool("password-stdin") && password != "":
		return "", "", errors.New("--password and --password-stdin are mutually exclusive")
	case in.Bool("password-stdin") && user == "":
		return "", "", errors.New("must provide --username with --password-stdin")
	case in.Bool("password-stdin"):
		raw, err := io.ReadAll(io.LimitReader(s.in, maxPassword))
		if err != nil {
			return "", "", fmt.Errorf("read the password: %w", err)
		}
		return user, strings.TrimRight(string(raw), "\r\n"), nil
	case password != "" && user != "":
		fmt.Fprintln(s.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		return user, password, nil
	}
	terminal, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(terminal.Fd())) {
		return "", "", errors.New("no user name and password: give --username and --password-stdin")
	}
	if user == "" {
		fmt.Fprint(s.err, "Username: ")
		if _, err := fmt.Fscanln(s.in, &user); err != nil {
			return "", "", fmt.Errorf("read the user name: %w", err)
		}
	}
	fmt.Fprint(s.err, "Password: ")
	raw, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(s.err)
	if err != nil {
		return "", "", fmt.Errorf("read the password: %w", err)
	}
	return user, string(raw), nil
}

// maxPassword is more than any token has.
const maxPassword = 64 << 10

func (s *session) registryLogout(ctx context.Context, in input) error {
	name := registryName(in)
	if err := s.ask(ctx, http.MethodDelete, "/shoal/registries/"+url.PathEscape(registryHost(name)), nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Removing login credentials for %s\n", name)
	return nil
}

func (s *session) registryList(ctx context.Context, in input) error {
	var found []struct {
		Host, Username string
		UpdatedAt      time.Time
	}
	if err := s.ask(ctx, http.MethodGet, "/shoal/registries", nil, &found); err != nil {
		return err
	}
	t := format.Table{
		Headers: map[string]string{"Registry": "REGISTRY", "Username": "USERNAME", "UpdatedAt": "UPDATED"},
		Default: "{{.Registry}}\t{{.Username}}\t{{.UpdatedAt}}",
	}
	for _, r := range found {
		t.Rows = append(t.Rows, format.Row{"Registry": r.Host, "Username": r.Username, "UpdatedAt": units.HumanDuration(time.Since(r.UpdatedAt)) + " ago"})
	}
	if in.Bool("quiet") && !in.Changed("format") {
		return t.Write(s.out, "{{.Registry}}")
	}
	return t.Write(s.out, in.Text("format"))
}

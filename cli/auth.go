package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/registry"
)

// dockerHub is the name under which Docker keeps the credentials of its own registry.
const dockerHub = "https://index.docker.io/v1/"

// helperTimeout bounds a credential helper, which may wait for someone to unlock something.
const helperTimeout = 30 * time.Second

// credentials is the part of Docker's config.json that says how to log in to registries.
type credentials struct {
	Auths       map[string]registry.AuthConfig `json:"auths"`
	CredsStore  string                         `json:"credsStore"`
	CredHelpers map[string]string              `json:"credHelpers"`
}

// registryAuth is the header that lets the swarm pull an image with the credentials of docker login. Not being logged
// in is fine: the header then says so.
func registryAuth(ctx context.Context, image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", image, err)
	}
	config, err := readCredentials()
	if err != nil {
		return "", err
	}
	host := reference.Domain(named)
	if host == "docker.io" {
		host = dockerHub
	}
	auth, err := config.lookup(ctx, host)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", host, err)
	}
	return registry.EncodeAuthConfig(auth)
}

func readCredentials() (credentials, error) {
	var c credentials
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return c, fmt.Errorf("find Docker's config.json: %w", err)
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c credentials) lookup(ctx context.Context, host string) (registry.AuthConfig, error) {
	helper := c.CredsStore
	if named := c.CredHelpers[host]; named != "" {
		helper = named
	}
	if helper != "" {
		return askHelper(ctx, helper, host)
	}
	for name, auth := range c.Auths {
		if name == host || registryHost(name) == host {
			auth.ServerAddress = name
			return decodeAuth(auth)
		}
	}
	return registry.AuthConfig{}, nil
}

// registryHost is the host of an entry that was written as a URL.
func registryHost(name string) string {
	_, rest, ok := strings.Cut(name, "://")
	if !ok {
		rest = name
	}
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// decodeAuth takes user and password out of the "auth" field, which is how the file keeps them.
func decodeAuth(auth registry.AuthConfig) (registry.AuthConfig, error) {
	if auth.Auth == "" {
		return auth, nil
	}
	plain, err := base64.StdEncoding.DecodeString(auth.Auth)
	if err != nil {
		return auth, fmt.Errorf("decode auth: %w", err)
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return auth, errors.New("auth is not user:password")
	}
	auth.Username, auth.Password, auth.Auth = user, strings.TrimRight(password, "\x00"), ""
	return auth, nil
}

// askHelper runs docker-credential-NAME get, which takes the registry on stdin and answers in JSON.
func askHelper(ctx context.Context, name, host string) (registry.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(host), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stdout.String() + stderr.String())
		if strings.Contains(said, "credentials not found") {
			return registry.AuthConfig{}, nil
		}
		return registry.AuthConfig{}, fmt.Errorf("docker-credential-%s: %w: %s", name, err, said)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		return registry.AuthConfig{}, fmt.Errorf("docker-credential-%s: %w", name, err)
	}
	auth := registry.AuthConfig{Username: answer.Username, Password: answer.Secret, ServerAddress: host}
	if answer.Username == "<token>" {
		auth = registry.AuthConfig{IdentityToken: answer.Secret, ServerAddress: host}
	}
	return auth, nil
}

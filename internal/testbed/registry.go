package testbed

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"golang.org/x/sys/unix"
)

const (
	registryPort  = 5000
	registryStart = 20 * time.Second
)

func isRegistry(argv []string) bool {
	return len(argv) > 0 && filepath.Base(argv[0]) == "docker-registry"
}

// StartRegistry starts Debian's docker-registry on the client host and returns
// its address, to put before an image's name. The bed's engines accept it
// without TLS. With lines of an htpasswd file, it lets in their users alone.
func (b *Bed) StartRegistry(ctx context.Context, htpasswd ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, registryStart)
	defer cancel()
	h := b.client
	address := fmt.Sprintf("%s:%d", h.IP, registryPort)
	data, config := filepath.Join(h.Dir(), "registry"), filepath.Join(h.Dir(), "registry.yml")
	if _, err := os.Stat(h.find("docker-registry")); err != nil {
		return "", errors.New("the registry is not installed: apt-get install docker-registry")
	}
	yml := fmt.Sprintf("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n", data, address)
	if len(htpasswd) > 0 {
		users := filepath.Join(h.Dir(), "htpasswd")
		if err := os.WriteFile(users, []byte(strings.Join(htpasswd, "\n")+"\n"), 0o600); err != nil {
			return "", err
		}
		yml += fmt.Sprintf("auth:\n  htpasswd:\n    realm: testbed\n    path: %s\n", users)
	}
	if err := os.WriteFile(config, []byte(yml), 0o644); err != nil {
		return "", err
	}
	d, err := h.startDaemon("registry.log", "docker-registry", "serve", config)
	if err != nil {
		return "", err
	}
	if err := d.await(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := h.HTTP().Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}); err != nil {
		return "", fmt.Errorf("start the registry: %w", err)
	}
	return address, nil
}

// StopRegistry stops it; what was pushed stays until the bed goes.
func (b *Bed) StopRegistry(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registryStart)
	defer cancel()
	return b.client.end(ctx, unix.SIGTERM, isRegistry)
}

// Push tags an image of the host's engine under a new name and pushes it, logged
// in if login is given.
func (h *Host) Push(ctx context.Context, from, to string, login ...registry.AuthConfig) error {
	engine, err := h.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	if err := engine.ImageTag(ctx, from, to); err != nil {
		return fmt.Errorf("tag %s as %s: %w", from, to, err)
	}
	// The engine wants credentials even where the registry does not.
	auth := base64.URLEncoding.EncodeToString([]byte("{}"))
	for _, l := range login {
		if auth, err = registry.EncodeAuthConfig(l); err != nil {
			return fmt.Errorf("push %s: %w", to, err)
		}
	}
	body, err := engine.ImagePush(ctx, to, image.PushOptions{RegistryAuth: auth})
	if err != nil {
		return fmt.Errorf("push %s: %w", to, err)
	}
	defer body.Close()
	if err := drain(body); err != nil {
		return fmt.Errorf("push %s: %w", to, err)
	}
	return nil
}

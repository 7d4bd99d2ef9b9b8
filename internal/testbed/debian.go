package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

//go:embed debian.sh
var debianScript string

// debianPackages are real servers, and the clients that come with them. Debian
// decides on the versions.
var debianPackages = []string{
	"nginx", "redis-server", "redis-tools", "postgresql", "wrk", "curl", // what is tried
	"dash", "busybox-static", "util-linux", // a shell, small tools, and setpriv
}

// Debian is a file system with real software: nginx, redis and postgres, curl,
// wrk, redis-benchmark and pgbench.
type Debian struct{ dir string }

// MakeDebian downloads and unpacks Debian's packages, which takes a while the first
// time. What it made is kept for the next test.
func MakeDebian(ctx context.Context) (Debian, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return Debian{}, errors.New("real software comes from Debian's packages, and this machine has no apt-get")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Debian{}, err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return Debian{}, err
	}
	key := sha256.Sum256(fmt.Append(release, debianScript, debianPackages))
	d := Debian{filepath.Join(cache, "shoal-testbed", fmt.Sprintf("debian-%x", key[:6]))}
	if err := os.MkdirAll(filepath.Dir(d.dir), 0o755); err != nil {
		return Debian{}, err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", debianScript, "debian", d.dir}, debianPackages...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return Debian{}, fmt.Errorf("unpack %s: %w\n%s", strings.Join(debianPackages, " "), err, out)
	}
	return d, nil
}

// Names of the images made of it. Nothing listens at their registry's address, as
// with the test image.
const (
	debianBase = "127.0.0.1:9/debian"
	Nginx      = "127.0.0.1:9/nginx"
	Redis      = "127.0.0.1:9/redis"
	Postgres   = "127.0.0.1:9/postgres"
)

// servers are what each image does if it is told nothing else: what those of the
// same name on the public registry do.
var servers = map[string][]string{
	Nginx: {`CMD ["nginx","-g","daemon off;"]`, "EXPOSE 80/tcp"},
	Redis: {`CMD ["redis-server","--protected-mode","no"]`, "EXPOSE 6379/tcp", "WORKDIR /data", "VOLUME /data"},
	Postgres: {
		`ENTRYPOINT ["postgres-entrypoint"]`, `CMD ["postgres"]`, "EXPOSE 5432/tcp",
		"ENV PGDATA=/var/lib/postgresql/data", "VOLUME /var/lib/postgresql/data",
	},
}

// Import gives a host's engine the images.
func (d Debian) Import(ctx context.Context, h *Host) error {
	engine, err := h.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	if err := d.importBase(ctx, engine); err != nil {
		return fmt.Errorf("import %s on %s: %w", debianBase, h.Name, err)
	}
	// An image with the same files and other words is cheaper than another import.
	made, err := engine.ContainerCreate(ctx, &container.Config{Image: debianBase, Cmd: []string{"true"}}, nil, nil, nil, "")
	if err != nil {
		return fmt.Errorf("derive images on %s: %w", h.Name, err)
	}
	for name, changes := range servers {
		if _, err := engine.ContainerCommit(ctx, made.ID, container.CommitOptions{Reference: name, Changes: changes}); err != nil {
			return fmt.Errorf("derive %s on %s: %w", name, h.Name, err)
		}
	}
	return engine.ContainerRemove(ctx, made.ID, container.RemoveOptions{})
}

func (d Debian) importBase(ctx context.Context, engine *client.Client) error {
	tar := exec.CommandContext(ctx, "tar", "-C", d.dir, "-c", ".")
	var told bytes.Buffer
	tar.Stderr = &told
	files, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tar.Start(); err != nil {
		return err
	}
	source := image.ImportSource{Source: files, SourceName: "-"}
	changes := []string{"ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	body, err := engine.ImageImport(ctx, source, debianBase, image.ImportOptions{Changes: changes})
	if err == nil {
		defer body.Close()
		err = drain(body)
	}
	_ = files.Close() // where the engine did not read on
	if err = errors.Join(err, tar.Wait()); err != nil {
		return fmt.Errorf("%w\n%s", err, &told)
	}
	return nil
}

// Command is a command line that runs a program of it on any host.
func (d Debian) Command(argv ...string) []string {
	return append([]string{"chroot", d.dir}, argv...)
}

package testbed

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

// Web is the test image's name without its tag. Nothing listens at that
// address, so an engine that is told to pull it is refused at once instead of
// after a registry's time-outs; outside a bed, too.
const Web = "127.0.0.1:9/web"

// Three versions of the test image, which differ in what they say they are.
const (
	WebV1 = Web + ":v1"
	WebV2 = Web + ":v2"
	WebV3 = Web + ":v3"
)

// busybox gives the image a shell, wget, nc and the like, if it is installed.
const busybox = "/usr/bin/busybox"

// Image is the root file system of the test image.
type Image struct{ tar []byte }

// BuildImage compiles the web server and packs it. source is a directory in
// the module; only the Go tool is needed.
func BuildImage(ctx context.Context, source string) (Image, error) {
	temp, err := os.MkdirTemp("", "shoal-webapp-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(temp)
	binary := filepath.Join(temp, "webapp")
	if err := goBuild(ctx, source, binary, "shoal/internal/testbed/cmd/webapp"); err != nil {
		return Image{}, err
	}
	server, err := os.ReadFile(binary)
	if err != nil {
		return Image{}, err
	}
	box, err := os.ReadFile(busybox)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Image{}, err
	}
	raw, err := pack(ctx, server, box)
	if err != nil {
		return Image{}, fmt.Errorf("pack the test image: %w", err)
	}
	return Image{tar: raw}, nil
}

// goBuild compiles a static binary, whatever the caller's environment says.
func goBuild(ctx context.Context, source, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// pack makes the file system: the server, and busybox under each of its names.
func pack(ctx context.Context, server, box []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, d := range []string{"bin/", "etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{
		"bin/webapp": server,
		"etc/passwd": []byte("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
		"etc/group":  []byte("root:x:0:\nnogroup:x:65534:\n"),
	}
	if box != nil {
		files["bin/busybox"] = box
	}
	for name, content := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if box != nil {
		names, err := exec.CommandContext(ctx, busybox, "--list").Output()
		if err != nil {
			return nil, fmt.Errorf("list busybox commands: %w", err)
		}
		for _, name := range strings.Fields(string(names)) {
			if name == "busybox" {
				continue
			}
			h := &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}
			if err := w.WriteHeader(h); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Import makes an image under the given name. version is what its server
// calls itself; changes are further Dockerfile instructions.
//
// The server is the image's command and not its entrypoint, so that a service
// can be given any other command, one that does not exist included.
func (i Image) Import(ctx context.Context, engine *client.Client, name, version string, changes ...string) error {
	changes = append([]string{
		"ENV PATH=/bin",
		"ENV VERSION=" + version,
		`CMD ["webapp"]`,
		"EXPOSE 80/tcp 80/udp",
		"LABEL shoal.testbed=webapp",
	}, changes...)
	source := image.ImportSource{Source: bytes.NewReader(i.tar), SourceName: "-"}
	body, err := engine.ImageImport(ctx, source, name, image.ImportOptions{Changes: changes})
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	defer body.Close()
	if err := drain(body); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return nil
}

// drain reads an engine's progress messages to the end; a failure is one of
// them, after a status that said all is well.
func drain(body io.Reader) error {
	for dec := json.NewDecoder(body); ; {
		var msg struct {
			Error string `json:"error"`
		}
		if err := dec.Decode(&msg); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if msg.Error != "" {
			return errors.New(msg.Error)
		}
	}
}

// ImportWeb gives the host's engine the three versions of the test image.
func (h *Host) ImportWeb(ctx context.Context, img Image) error {
	engine, err := h.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	for _, name := range []string{WebV1, WebV2, WebV3} {
		if err := img.Import(ctx, engine, name, name[len(Web)+1:]); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// ImportWeb builds the test image and gives it to every host's engine.
func (b *Bed) ImportWeb(ctx context.Context, source string) error {
	img, err := BuildImage(ctx, source)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range b.hosts {
		group.Go(func() error { return h.ImportWeb(ctx, img) })
	}
	return group.Wait()
}

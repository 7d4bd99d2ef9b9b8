package api

import (
	"strings"

	"github.com/distribution/reference"
)

// Registry is how the cluster logs in at a registry, whoever pulls from it and
// wherever. No answer shows Auth.
type Registry struct {
	Meta
	Host     string // as in image references, docker.io for Docker's own
	Username string // "" for a token
	Auth     string // as X-Registry-Auth carries it
}

// Kind implements Object.
func (*Registry) Kind() Kind { return KindRegistry }

// dockerHub is the host of Docker's registry in references, and hubAddress what
// its credentials are kept under in Docker's own files.
const (
	dockerHub  = "docker.io"
	hubAddress = "index.docker.io"
)

// RegistryHost gives the host of a registry's address as image references name it.
func RegistryHost(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	switch host {
	case "", hubAddress, "registry-1.docker.io":
		return dockerHub
	}
	return host
}

// ImageHost gives the registry that an image is pulled from; "" if the reference
// is none.
func ImageHost(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

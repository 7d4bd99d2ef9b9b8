package control

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/docker/docker/api/types/registry"

	"shoal/internal/api"
	"shoal/internal/store"
)

// Login is a registry with the credentials of the cluster for it.
type Login struct {
	Host                              string
	Username, Password, IdentityToken string
}

// RegistryInfo is what may be told of a Login.
type RegistryInfo struct {
	Host                 string
	Username             string
	CreatedAt, UpdatedAt time.Time
}

// registryHost is a host with perhaps a port, as image references have it.
var registryHost = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)

// SetRegistry keeps the cluster's credentials for a registry, in place of others.
// Nodes use them from their next pull on; no task is replaced.
func (c *Control) SetRegistry(ctx context.Context, l Login) error {
	host := api.RegistryHost(l.Host)
	switch {
	case !registryHost.MatchString(host):
		return invalid("invalid registry %q: must be a host, with a port if need be", l.Host)
	case l.IdentityToken == "" && (l.Username == "" || l.Password == ""):
		return invalid("credentials for %s: user name and password, or a token, must be given", host)
	}
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{
		Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, ServerAddress: host,
	})
	if err != nil {
		return fmt.Errorf("encode credentials for %s: %w", host, err)
	}
	if len(auth) > maxAuth {
		return invalid("credentials for %s: longer than %d bytes", host, maxAuth)
	}
	return c.update(ctx, func(tx *store.Tx) error {
		r := &api.Registry{Meta: api.Meta{ID: api.NewID()}}
		if old, ok := tx.Registries.One(store.ByName, host); ok {
			r = api.Clone(old)
		}
		r.Host, r.Username, r.Auth = host, l.Username, auth
		return tx.Put(r)
	})
}

// RemoveRegistry forgets the cluster's credentials for a registry.
func (c *Control) RemoveRegistry(ctx context.Context, address string) error {
	host := api.RegistryHost(address)
	return c.update(ctx, func(tx *store.Tx) error {
		r, ok := tx.Registries.One(store.ByName, host)
		if !ok {
			return notFound(api.KindRegistry, host)
		}
		return tx.Delete(api.KindRegistry, r.ID)
	})
}

// Registries lists where the cluster can log in, without the credentials.
func (c *Control) Registries() []RegistryInfo {
	out := []RegistryInfo{}
	for r := range c.View().Registries.All() {
		out = append(out, RegistryInfo{Host: r.Host, Username: r.Username, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt})
	}
	return out
}

package cli

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/registry"
	"github.com/google/go-cmp/cmp"
)

func TestRegistryAuth(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"docker-credential-good": `read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"me\",\"Secret\":\"for $host\"}"`,
		"docker-credential-tok":  `echo '{"Username":"<token>","Secret":"tok"}'`,
		"docker-credential-none": `echo "credentials not found in native keychain"; exit 1`,
		"docker-credential-bad":  `echo "locked"; exit 1`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, config, image string
		want                registry.AuthConfig
		err                 string
	}{
		{name: "not logged in", image: "img"},
		{name: "Docker Hub", config: `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"}}}`, image: "img", want: registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: "https://index.docker.io/v1/"}},
		{name: "another registry", config: `{"auths":{"r.io:5000":{"auth":"bWU6czpjOnI="}}}`, image: "r.io:5000/a/b:1", want: registry.AuthConfig{Username: "me", Password: "s:c:r", ServerAddress: "r.io:5000"}},
		{name: "written as a URL", config: `{"auths":{"https://r.io/v2/":{"identitytoken":"t"}}}`, image: "r.io/a", want: registry.AuthConfig{IdentityToken: "t", ServerAddress: "https://r.io/v2/"}},
		{name: "logged in elsewhere", config: `{"auths":{"r.io":{"auth":"bWU6c2VjcmV0"}}}`, image: "x.io/a"},
		{name: "store", config: `{"credsStore":"good"}`, image: "img", want: registry.AuthConfig{Username: "me", Password: "for https://index.docker.io/v1/", ServerAddress: "https://index.docker.io/v1/"}},
		{name: "a helper of its own", config: `{"credsStore":"bad","credHelpers":{"r.io":"tok"}}`, image: "r.io/a", want: registry.AuthConfig{IdentityToken: "tok", ServerAddress: "r.io"}},
		{name: "the store has nothing", config: `{"credsStore":"none"}`, image: "r.io/a"},
		{name: "the store fails", config: `{"credsStore":"bad"}`, image: "r.io/a", err: "credentials for r.io: docker-credential-bad: exit status 1: locked"},
		{name: "nonsense", config: `{"auths":{"r.io":{"auth":"bWU="}}}`, image: "r.io/a", err: "credentials for r.io: auth is not user:password"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("DOCKER_CONFIG", dir)
			if test.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(test.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			header, err := registryAuth(context.Background(), test.image)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := registry.DecodeAuthConfig(header)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

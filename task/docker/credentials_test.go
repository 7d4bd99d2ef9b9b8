package docker

import (
	"errors"
	"slices"
	"testing"

	"shoal/internal/api"
)

func TestCredentials(t *testing.T) {
	for _, tt := range []struct {
		cluster, service string
		want             []string
	}{
		{"", "", []string{""}},
		{"", "e30=", []string{"e30="}},
		{"", "s", []string{"s"}},
		{"c", "", []string{"c"}},
		{"c", "e30=", []string{"c"}},
		{"c", "s", []string{"c", "s"}},
		{"c", "c", []string{"c"}},
	} {
		if got := credentials(&api.Assignment{ClusterAuth: tt.cluster, RegistryAuth: tt.service}); !slices.Equal(got, tt.want) {
			t.Errorf("%q and %q: %q", tt.cluster, tt.service, got)
		}
	}
}

func TestRefusedLogin(t *testing.T) {
	if !refusedLogin(errors.New("pull access denied for x")) || refusedLogin(errors.New("manifest unknown")) {
		t.Error("which failures are about credentials")
	}
}

package docker

import (
	"slices"
	"strings"

	"shoal/internal/api"
)

// credentials are what to try at an image's registry, in order. The cluster's go
// first, for they are kept up to date; what came along with the service may have
// expired, or be the one that is allowed to read just this image.
func credentials(a *api.Assignment) []string {
	var auths []string
	for _, auth := range []string{a.ClusterAuth, a.RegistryAuth} {
		if auth != "" && auth != noCredentials && !slices.Contains(auths, auth) {
			auths = append(auths, auth)
		}
	}
	if auths == nil {
		return []string{a.RegistryAuth}
	}
	return auths
}

// noCredentials is what clients send that are not logged in: {}.
const noCredentials = "e30="

// refusedLogin tells whether a pull failed for its credentials. Registries and
// engines have no common way to say so.
func refusedLogin(err error) bool {
	text := strings.ToLower(err.Error())
	for _, word := range []string{"unauthorized", "no basic auth", "authentication required", "denied", "forbidden"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/compose"
)

// applied is what became of one service.
type applied struct {
	id      string
	changed bool
	before  *swarm.UpdateStatus
}

// apply creates a service, or updates it if it is other than the file says.
func (d *deployment) apply(ctx context.Context, service compose.Service) (applied, error) {
	spec := service.Spec
	image := spec.TaskTemplate.ContainerSpec.Image
	var auth string
	if d.auth {
		var err error
		if auth, err = registryAuth(ctx, image); err != nil {
			return applied{}, err
		}
	}
	had, exists := d.had[spec.Name]
	if !exists {
		fmt.Fprintln(d.out, "Creating service", spec.Name)
		var unpinned []string
		if d.resolve != "never" {
			unpinned = d.pin(ctx, &spec.TaskTemplate, auth)
		}
		made, err := d.conn.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{EncodedRegistryAuth: auth})
		if d.wrote(err) != nil {
			return applied{}, fmt.Errorf("failed to create service %s: %w", spec.Name, err)
		}
		d.warn(append(unpinned, made.Warnings...))
		return applied{id: made.ID, changed: true}, nil
	}

	warnings := d.image(ctx, &spec, had.Spec, auth)
	options := swarm.ServiceUpdateOptions{EncodedRegistryAuth: auth}
	if !d.auth {
		// The credentials kept with the present spec go on being used.
		options.RegistryAuthFrom = swarm.RegistryAuthFromSpec
	}
	var out applied
	var told string
	_, nothing, err := d.changeService(ctx, had.ID, &options, func(now *swarm.Service) (string, error) {
		if d.conditional && len(compose.Differences(had.Spec, now.Spec)) > 0 {
			return "", errors.New("somebody else has changed it; look at \"shoal stack plan\" again")
		}
		// There is no flag that forces new tasks; those that were forced before stay.
		spec.TaskTemplate.ForceUpdate = now.Spec.TaskTemplate.ForceUpdate
		out = applied{id: now.ID, before: now.UpdateStatus, changed: len(compose.Differences(now.Spec, spec)) > 0}
		text := fmt.Sprintf("Updating service %s (id: %s)", spec.Name, now.ID)
		if !out.changed && !d.auth {
			return text + ": nothing to change", nil
		}
		if now.Spec = spec; told != text {
			told = text
			fmt.Fprintln(d.out, text)
		}
		return "", nil
	})
	if err != nil {
		return applied{}, fmt.Errorf("failed to update service %s: %w", spec.Name, err)
	}
	if nothing != "" {
		fmt.Fprintln(d.out, nothing)
		return out, nil
	}
	d.warn(warnings)
	return out, nil
}

// image pins the image of a service that exists. An image that the file has not changed, and whose registry does not
// answer, stays what it is: that a registry is down never replaces a task.
func (d *deployment) image(ctx context.Context, spec *swarm.ServiceSpec, had swarm.ServiceSpec, auth string) (warnings []string) {
	unchanged := spec.Labels[compose.LabelImage] == had.Labels[compose.LabelImage] && had.TaskTemplate.ContainerSpec != nil
	if d.resolve == "always" || d.resolve == "changed" && !unchanged {
		warnings = d.pin(ctx, &spec.TaskTemplate, auth)
		if len(warnings) == 0 || !unchanged {
			return warnings
		}
	}
	if unchanged {
		spec.TaskTemplate.ContainerSpec.Image = had.TaskTemplate.ContainerSpec.Image
		if had.TaskTemplate.Placement != nil {
			spec.TaskTemplate.Placement.Platforms = had.TaskTemplate.Placement.Platforms
		}
		return nil
	}
	return warnings
}

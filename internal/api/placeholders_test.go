package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

func TestFill(t *testing.T) {
	p := &Placeholders{}
	p.Service.Name, p.Task.Slot, p.Node.Labels = "web", "3", map[string]string{"zone": "a"}
	in := &swarm.ContainerSpec{
		Hostname: `{{join "-" .Service.Name .Task.Slot}}`,
		Env:      []string{"PLAIN=1", "ZONE={{.Node.Labels.zone}}", "{{.Nope}}"},
		Mounts:   []mount.Mount{{Source: "{{.Service.Name}}", Target: "/x", VolumeOptions: &mount.VolumeOptions{Labels: map[string]string{"slot": "{{.Task.Slot}}"}}}},
	}
	out, err := p.Fill(in)
	if err != nil {
		t.Fatal(err)
	}
	if out.Hostname != "web-3" || !slices.Equal(out.Env, []string{"PLAIN=1", "ZONE=a", "{{.Nope}}"}) ||
		out.Mounts[0].Source != "web" || out.Mounts[0].VolumeOptions.Labels["slot"] != "3" {
		t.Errorf("%+v", out)
	}
	if in.Mounts[0].Source != "{{.Service.Name}}" || in.Mounts[0].VolumeOptions.Labels["slot"] != "{{.Task.Slot}}" {
		t.Error("the spec itself was written to")
	}
}

// TestPlaceholdersKeepSecrets: an error names the variable, not its value.
func TestPlaceholdersKeepSecrets(t *testing.T) {
	for _, value := range []string{"s3cret{{.Nope}}", "{{s3cret", "{{s3cret}}", `{{"s3cret}}`, "s3cret{{.Node.Labels.none}}"} {
		_, err := (&Placeholders{}).Fill(&swarm.ContainerSpec{Env: []string{"PASSWORD=" + value}})
		if err == nil || !strings.HasPrefix(err.Error(), "environment variable PASSWORD: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestCheckPlaceholders(t *testing.T) {
	for hostname, good := range map[string]bool{
		"plain": true, "{{.Service.Name}}-{{.Task.Slot}}": true, "{{slice .Task.ID 0 12}}": true,
		"{{.Node.Labels.zone}}": true, `{{index .Service.Labels "a.b"}}`: true,
		"{{.Nope}}": false, "{{.Node.Nope}}": false, "{{": false, "{{nope .Task.ID}}": false,
	} {
		if err := CheckPlaceholders(&swarm.ContainerSpec{Hostname: hostname}); (err == nil) != good {
			t.Errorf("%s: %v", hostname, err)
		}
	}
}

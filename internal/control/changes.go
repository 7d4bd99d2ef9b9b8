package control

import (
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/docker/docker/api/types/swarm"
)

// changes says what tasks of one spec have that those of another have not, for
// people. Values stay out of it but for the image: they may be secrets.
func changes(old, now *swarm.ServiceSpec) []string {
	var out []string
	a, b := old.TaskTemplate, now.TaskTemplate
	x, y := a.ContainerSpec, b.ContainerSpec
	if x == nil || y == nil {
		return nil
	}
	if x.Image != y.Image {
		out = append(out, "image "+x.Image+" -> "+y.Image)
	}
	out = append(out, envChanges(x.Env, y.Env)...)
	out = append(out, fieldChanges(*x, *y, "Image", "Env")...)
	out = append(out, fieldChanges(a, b, "ContainerSpec", "ForceUpdate")...)
	i, j := inputsOf(old), inputsOf(now)
	if i.Ingress != j.Ingress || !sameJSON(i.Host, j.Host) {
		out = append(out, "published ports")
	}
	if a.ForceUpdate != b.ForceUpdate {
		out = append(out, "restarted")
	}
	return out
}

// envChanges names the variables that came, went or have another value.
func envChanges(old, now []string) (out []string) {
	read := func(env []string) map[string]string {
		m := map[string]string{}
		for _, e := range env {
			name, value, _ := strings.Cut(e, "=")
			m[name] = value
		}
		return m
	}
	a, b := read(old), read(now)
	for name, value := range b {
		if was, ok := a[name]; !ok {
			out = append(out, "+env "+name)
		} else if was != value {
			out = append(out, "env "+name)
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			out = append(out, "-env "+name)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return strings.Compare(strings.TrimLeft(a, "+-"), strings.TrimLeft(b, "+-"))
	})
	return out
}

// fieldChanges names the fields of a struct that differ. It goes by the type, so
// that a field of a newer Docker is named as well.
func fieldChanges(old, now any, but ...string) (out []string) {
	a, b := reflect.ValueOf(old), reflect.ValueOf(now)
	for i := range a.NumField() {
		f := a.Type().Field(i)
		if f.IsExported() && !slices.Contains(but, f.Name) && !sameJSON(a.Field(i).Interface(), b.Field(i).Interface()) {
			out = append(out, words(f.Name))
		}
	}
	return out
}

// words makes "stop grace period" of StopGracePeriod.
func words(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

package api

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadSettings(t *testing.T) {
	for _, tt := range []struct {
		labels string // label=value, separated by blanks
		want   Settings
		bad    string // in the error
	}{
		{labels: "team=a shoaling=x"},
		{labels: "shoal.stopped=true", want: Settings{Stopped: true}},
		{labels: "shoal.stopped=false"},
		{labels: "shoal.start-timeout=90s shoal.revision=v1.4", want: Settings{StartTimeout: 90 * time.Second, RevisionName: "v1.4"}},
		{labels: "shoal.privileged=true shoal.devices=/dev/fuse shoal.gpus=2 shoal.ready=start", want: Settings{Privileged: true, Devices: []Device{{"/dev/fuse", "/dev/fuse", "rwm"}}, GPUs: 2, Unproven: true}},
		{labels: "shoal.ready=port"},
		{labels: "shoal.ready=now", bad: "must be port or start"},
		{labels: "shoal.devices=fuse", bad: "must be devices as docker run takes them"},
		{labels: "shoal.wings=2", bad: `"shoal.wings": no such setting`},
		{labels: "shoal.=2", bad: `"shoal.": no such setting`},
		{labels: "shoal.Stopped=true", bad: `"shoal.Stopped"`},
		{labels: "shoal.stopped=", bad: "shoal.stopped=: must be true or false"},
		{labels: "shoal.stopped=maybe", bad: "must be true or false"},
		{labels: "shoal.start-timeout=5", bad: "must be a duration, such as 5m"},
		{labels: "shoal.start-timeout=-5s", bad: "must be a duration, such as 5m"},
		{labels: "shoal.revision=7", bad: "must be a name"},
	} {
		labels := map[string]string{}
		for _, l := range strings.Fields(tt.labels) {
			name, value, _ := strings.Cut(l, "=")
			labels[name] = value
		}
		got, err := ReadSettings(labels)
		if tt.bad == "" && (err != nil || !reflect.DeepEqual(got, tt.want)) || tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad)) {
			t.Errorf("%s: %+v, %v", tt.labels, got, err)
		}
	}
}

// TestSettingsAreDocumented: users find every setting in the manual.
func TestSettingsAreDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range KnownSettings() {
		if row := "| `" + s.Label + "` | " + s.Value + " | " + s.Meaning + " |"; !strings.Contains(string(manual), row) {
			t.Errorf("docs/settings.md lacks the row\n%s", row)
		}
		if !strings.HasPrefix(s.Label, SettingPrefix) {
			t.Errorf("%s is not under %s", s.Label, SettingPrefix)
		}
	}
}

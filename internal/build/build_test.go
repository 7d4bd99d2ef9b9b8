package build

import (
	"runtime/debug"
	"testing"
)

func TestWith(t *testing.T) {
	noted := func(pairs ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{}
		for i := 0; i < len(pairs); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return b
	}
	const commit, at = "0123456789abcdef0123456789abcdef01234567", "2026-01-02T03:04:05Z"
	linked := Info{Version: "v1", Commit: "fedcba9", Time: "2025-01-02T03:04:05Z"}
	for name, test := range map[string]struct {
		linked Info
		noted  *debug.BuildInfo
		want   Info
	}{
		"nothing":           {Info{}, nil, Info{Version: "dev"}},
		"no repository":     {Info{}, noted("-compiler", "gc"), Info{Version: "dev"}},
		"plain":             {Info{}, noted("vcs.revision", commit, "vcs.time", at, "vcs.modified", "false"), Info{"dev", "0123456", at}},
		"changed":           {Info{}, noted("vcs.revision", commit, "vcs.time", at, "vcs.modified", "true"), Info{Version: "dev"}},
		"make":              {linked, noted(), linked},
		"both":              {linked, noted("vcs.revision", commit, "vcs.time", at, "vcs.modified", "false"), linked},
		"make, changed":     {Info{Version: "v1-dirty"}, noted(), Info{Version: "v1-dirty"}},
		"linker, half told": {Info{Version: "v1"}, noted("vcs.revision", "012", "vcs.time", at, "vcs.modified", "false"), Info{"v1", "012", at}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.linked.with(test.noted); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

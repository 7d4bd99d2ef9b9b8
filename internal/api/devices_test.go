package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadDevices(t *testing.T) {
	for text, want := range map[string][]Device{
		"/dev/fuse":                    {{"/dev/fuse", "/dev/fuse", "rwm"}},
		"/dev/fuse, /dev/sda:/dev/x":   {{"/dev/fuse", "/dev/fuse", "rwm"}, {"/dev/sda", "/dev/x", "rwm"}},
		"/dev/sda:r":                   {{"/dev/sda", "/dev/sda", "r"}},
		"/dev/sda:/dev/x:rw":           {{"/dev/sda", "/dev/x", "rw"}},
		"":                             nil,
		"fuse":                         nil,
		"/dev/fuse,":                   nil,
		"/dev/a:/dev/b:rwx":            nil,
		"/dev/a:/dev/b:rw:more":        nil,
		"/dev/a:relative/path":         nil,
		"/dev/a:/dev/b:rwmrwmrwmrwmrw": nil,
	} {
		got, err := readDevices(text)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%q: %v\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]int{"all": AllGPUs, "2": 2} {
		if n, err := readGPUs(text); err != nil || n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "some"} {
		if _, err := readGPUs(text); err == nil {
			t.Errorf("%q was taken for a number of GPUs", text)
		}
	}
}

package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/system"
	"golang.org/x/sys/unix"
)

// TestFilesOfGuardedEngines: where an engine maps users, the files of a task belong
// to those whom its container knows, or are refused by name.
func TestFilesOfGuardedEngines(t *testing.T) {
	for _, tt := range []struct {
		name, options, root string
		uid, gid            int // as the user asked
		onHost              string
		selinux             bool
	}{
		{"plain", "name=seccomp,profile=builtin name=cgroupns", "/var/lib/docker", 7, 8, "7:8", false},
		{"userns", "name=seccomp,profile=builtin name=userns", "/var/lib/docker/100000.200000", 7, 8, "100007:200008", false},
		{"userns, root", "name=userns", "/var/lib/docker/100000.200000", 0, 0, "100000:200000", false},
		{"userns, nobody there", "name=userns", "/var/lib/docker/100000.100000", 65536, 0, "file /k: its owner 65536:0 does not exist", false},
		{"userns, unknown", "name=userns", "/var/lib/docker", 0, 0, "userns-remap, but its directory /var/lib/docker", false},
		{"SELinux", "name=selinux", "/var/lib/docker", 7, 8, "7:8", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			on, err := fileHostOf(&system.Info{SecurityOptions: strings.Fields(tt.options), DockerRootDir: tt.root})
			files := []file{{target: "/k", uid: tt.uid, gid: tt.gid}}
			if err == nil {
				err = on.own(files)
			}
			got := fmt.Sprintf("%d:%d", files[0].uid, files[0].gid)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.onHost) || on.selinux != tt.selinux {
				t.Errorf("%q, SELinux %v, want %q, %v", got, on.selinux, tt.onHost, tt.selinux)
			}
		})
	}
}

// TestLabelledFiles: all files of a task get the label of its container.
func TestLabelledFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to label files")
	}
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	dir := filepath.Join(t.TempDir(), "files")
	fs := newFileStore(dir)
	t.Cleanup(func() { _ = fs.clear() })
	if _, err := fs.put("t1", []file{{target: "/a"}, {target: "/b"}}); err != nil {
		t.Fatal(err)
	}
	if err := fs.label("t1", label); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0", "1"} {
		has := make([]byte, 100)
		n, err := unix.Getxattr(filepath.Join(dir, "t1", name), "security.selinux", has)
		if err != nil || strings.TrimRight(string(has[:max(n, 0)]), "\x00") != label {
			t.Errorf("file %s has the label %q, %v", name, has[:max(n, 0)], err)
		}
	}
	if err := fs.label("t2", label); !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("files that are not there: %v", err)
	}
}

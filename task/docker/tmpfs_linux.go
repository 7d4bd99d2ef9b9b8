package docker

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// onTmpfs makes a directory that is in memory alone. /run is on most hosts;
// elsewhere a tmpfs is mounted.
func onTmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return nil
	}
	if err := unix.Mount("shoal", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return &os.PathError{Op: "mount tmpfs on", Path: dir, Err: err}
	}
	return nil
}

// setLabel gives a file an SELinux label.
func setLabel(name, label string) error {
	if err := unix.Setxattr(name, "security.selinux", []byte(label), 0); err != nil {
		return &os.PathError{Op: "set the label of", Path: name, Err: err}
	}
	return nil
}

func removeTmpfs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(dir+"/"+e.Name()))
	}
	_ = unix.Unmount(dir, unix.MNT_DETACH) // it need not be a mount
	_ = os.Remove(dir)
	return errors.Join(errs...)
}

package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// downTimeout is for a bed whose hosts are many and busy.
const downTimeout = time.Minute

// Down removes everything that belongs to the bed. It works from any state,
// after a crash too, and more than once.
func (b *Bed) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if err := b.endHosts(ctx); err != nil {
		return err
	}
	// The mounts below it were in the hosts' namespaces and went with them.
	if err := os.RemoveAll(b.Dir()); err != nil {
		return fmt.Errorf("remove bed %s: %w", b.Name(), err)
	}
	return nil
}

// endHosts ends all processes of the bed and what the kernel keeps for them.
func (b *Bed) endHosts(ctx context.Context) error {
	holders, err := findHolders(b.Dir())
	if err != nil {
		return err
	}
	var ending []process
	for _, pid := range holders {
		p, ok := openProcess(pid, func(pid int) bool { return slices.Contains(cmdline(pid), b.Dir()) })
		if !ok {
			continue
		}
		defer p.close()
		if err := p.signal(unix.SIGKILL); err != nil {
			return err
		}
		ending = append(ending, p)
	}
	for _, p := range ending {
		// Process 1 of a host ends last, after all others in it.
		if err := p.wait(ctx); err != nil {
			return err
		}
	}
	for _, h := range b.all() {
		h.pid = 0
	}
	// The kernel takes namespaces apart in its own time; this end of the cable
	// can go at once.
	if b.state.Subnet.IsValid() {
		if link, err := netlink.LinkByName(b.state.link()); err == nil {
			if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("remove %s: %w", b.state.link(), err)
			}
		}
	}
	return b.removeCgroups(ctx)
}

// removeCgroups removes the empty cgroups that killed engines left. A cgroup
// stays busy for a moment after its last process has ended.
func (b *Bed) removeCgroups(ctx context.Context) error {
	return poll(ctx, 20*time.Millisecond, func() error {
		var left error
		// Version 1 has one tree per controller, version 2 a single one.
		for _, pattern := range []string{"/sys/fs/cgroup/shoal-testbed", "/sys/fs/cgroup/*/shoal-testbed"} {
			trees, err := filepath.Glob(pattern)
			if err != nil {
				return err
			}
			for _, tree := range trees {
				left = errors.Join(left, removeTree(filepath.Join(tree, b.Name())))
				// The last bed takes the parent away; for others it is not empty.
				_ = os.Remove(tree)
			}
		}
		return left
	})
}

// removeTree removes directories from the leaves up; the files in a cgroup
// are not files.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Remove takes down the bed of that name, even if nothing but its directory
// or its processes are left.
func Remove(ctx context.Context, name string, log *zap.Logger) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("bed name %q: use up to 31 of a-z, 0-9 and -", name)
	}
	state, err := readState(name)
	if err != nil {
		state = State{Name: name}
	}
	return build(state, log).Down(ctx)
}

// Sweep removes temporary beds whose owner has ended without doing so.
func Sweep(ctx context.Context, log *zap.Logger) error {
	names, err := List()
	if err != nil {
		return err
	}
	for _, name := range names {
		state, err := readState(name)
		if err != nil || !state.Owner.dead() {
			continue
		}
		log.Info("removing the bed of a process that ended", zap.String("bed", name), zap.Int("pid", state.Owner.PID))
		if err := Remove(ctx, name, log); err != nil {
			return err
		}
	}
	return nil
}

package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is in the argument list of every holder, so that a bed can find its
// own processes even when it died before it could write down their numbers.
const marker = "shoal-testbed-holder"

// holderScript is process 1 of a host. It does nothing but hold the namespaces
// and, being process 1, reap what the host's daemons leave behind: the shell
// collects orphans while it waits.
const holderScript = `while :; do sleep 3600 & wait; done`

// allNamespaces is what makes a host; each has its own process numbers, so
// that killing process 1 ends everything in it, containers included.
const allNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// startHolder makes fresh namespaces and a process that outlives this one to
// hold them. dir and name are what findHolders looks for.
func startHolder(dir, name string) (int, error) {
	cmd := exec.Command("/bin/sh", "-c", holderScript, marker, dir, name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: allNamespaces, Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the namespaces of %s: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // reap it when Down kills it; it holds nothing else
	return cmd.Process.Pid, nil
}

// findHolders returns the holders of the bed in dir, by host name.
func findHolders(dir string) (map[string]int, error) {
	found := make(map[string]int)
	err := eachProcess(func(pid int) {
		argv := cmdline(pid)
		if len(argv) == 6 && argv[3] == marker && argv[4] == dir && isFirst(pid) {
			found[argv[5]] = pid
		}
	})
	return found, err
}

// isFirst tells whether a process is process 1 of its namespace. The shell's
// children look like the shell until they have become something else.
func isFirst(pid int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers) // outermost namespace first
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// enter runs fn on a thread that has joined namespaces of process pid. A
// process started by fn is born there. The thread is thrown away afterwards.
func enter(pid, namespaces int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread cannot be thrown away, and its namespaces are
			// what others take for the whole process's. Sit on it meanwhile.
			done <- enter(pid, namespaces, fn)
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the runtime then ends the thread.
		done <- func() error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return fmt.Errorf("open process %d: %w", pid, err)
			}
			defer unix.Close(fd)
			if namespaces&unix.CLONE_NEWNS != 0 {
				// A mount namespace cannot be joined while the working
				// directory is shared with other threads.
				if err := unix.Unshare(unix.CLONE_FS); err != nil {
					return fmt.Errorf("unshare file system state: %w", err)
				}
			}
			if err := unix.Setns(fd, namespaces); err != nil {
				return fmt.Errorf("join namespaces of process %d: %w", pid, err)
			}
			return fn()
		}()
	}()
	return <-done
}

// eachProcess calls fn for every process of this machine.
func eachProcess(fn func(pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			fn(pid)
		}
	}
	return nil
}

// cmdline is a process's argument list; nil if it is gone.
func cmdline(pid int) []string {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// throttlePeriod is the kernel's usual one, in microseconds: what a process may
// use up of each is given at its beginning.
const throttlePeriod = 100_000

// Throttle gives the host's daemon a share of one processor, at least 0.01 (the
// kernel gives no less than a millisecond in a period), until it is started
// again or the bed is taken down.
func (h *Host) Throttle(share float64) error {
	pid, err := h.ShoalPID()
	if err != nil {
		return err
	}
	quota := strconv.Itoa(int(share * throttlePeriod))
	group, files := "/sys/fs/cgroup/cpu", map[string]string{"cpu.cfs_period_us": strconv.Itoa(throttlePeriod), "cpu.cfs_quota_us": quota}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		group, files = "/sys/fs/cgroup", map[string]string{"cpu.max": quota + " " + strconv.Itoa(throttlePeriod)}
	}
	dir := filepath.Join(group, h.cgroup()+"-daemon")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("throttle the daemon of %s: %w", h.Name, err)
	}
	files["cgroup.procs"] = strconv.Itoa(pid)
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			return fmt.Errorf("throttle the daemon of %s: %w", h.Name, err)
		}
	}
	return nil
}

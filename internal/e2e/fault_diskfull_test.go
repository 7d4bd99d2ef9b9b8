package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

// maxWrites bounds the attempts to fill a disk that is all but full.
const maxWrites = 400

// TestDiskFull writes until the disk is full. What was acknowledged before must
// be there when there is room again, what was refused must not, and meanwhile
// nothing that runs may suffer.
func TestDiskFull(t *testing.T) {
	bed := testbed.Start(t, 1)
	h, outside := bed.Host(0), bed.Client()
	do(t, h.StopShoal)
	const dir = "/var/lib/shoal"
	testbed.Must(t, h.Run(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", dir))
	do(t, startShoal(h))
	testbed.Must(t, h.Shoal("swarm", "init"))
	deploy(t, h, "web", 2, 8080)
	before := mustLive(t, h, "web")
	traffic := startFlow(t, outside, fmt.Sprintf("http://%s:8080/", h.IP))

	fill := h.Run(t.Context(), "dd", "if=/dev/zero", "of="+dir+"/ballast", "bs=64k")
	if fill.Code == 0 || !strings.Contains(fill.Stderr, "No space left") {
		t.Fatalf("the disk is not full: %v", fill.Err())
	}
	// Room for a few writes: the daemon must run into the wall, not begin at it.
	testbed.Must(t, h.Run(t.Context(), "truncate", "-s", "-512K", dir+"/ballast"))

	api := dialed(t, h.API)
	acknowledged, refused := map[string]bool{}, map[string]bool{}
	var failure error
	for i := 0; failure == nil && i < maxWrites; i++ {
		spec := webSpec(fmt.Sprintf("s%d", i), 0, 0)
		spec.Labels = map[string]string{"ballast": strings.Repeat("x", 20<<10)}
		_, err := api.ServiceCreate(t.Context(), spec, swarm.ServiceCreateOptions{})
		switch {
		case err == nil:
			acknowledged[spec.Name] = true
		case errdefs.IsUnavailable(err), errdefs.IsInvalidArgument(err):
			refused[spec.Name] = true
			failure = err
		default: // the outcome is not known
			failure = err
		}
	}
	t.Logf("%d services acknowledged, then: %v", len(acknowledged), failure)
	if len(acknowledged) == 0 || failure == nil {
		t.Fatal("the disk did not fill up in between")
	}
	if !strings.Contains(failure.Error(), "no space left on device") {
		t.Errorf("the client is not told why: %v", failure)
	}
	testbed.Eventually(t, patience, func() error {
		if up, err := h.ShoalRunning(); err != nil || up {
			return fmt.Errorf("the daemon goes on although it can not write (%v)", err)
		}
		return nil
	})
	lines := logLines(t, h)
	if last := lines[len(lines)-1]; !strings.Contains(last, "no space left on device") || !strings.Contains(last, dir+"/raft/raft.db") {
		t.Errorf("the daemon's last words do not tell why it stopped: %s", last)
	}
	untouched(t, h, "web", before)

	// A start on the full disk may fail, with the reason; it may not do harm.
	if r := runDaemon(t, h); r.Code != 0 && !strings.Contains(r.Stderr, "no space left on device") {
		t.Errorf("a start on the full disk ends with: %s", r.Stderr)
	}
	untouched(t, h, "web", before)

	testbed.Must(t, h.Run(t.Context(), "rm", dir+"/ballast"))
	do(t, startShoal(h))
	testbed.Eventually(t, patience, func() error { return settled(h, "web", 2) })
	list, err := api.ServiceList(t.Context(), swarm.ServiceListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if refused[s.Spec.Name] {
			t.Errorf("service %s was refused and is there", s.Spec.Name)
		}
		if s.Spec.Name != "web" && len(s.Spec.Labels["ballast"]) != 20<<10 {
			t.Errorf("service %s is not whole", s.Spec.Name)
		}
		delete(acknowledged, s.Spec.Name)
	}
	if len(acknowledged) > 0 {
		t.Errorf("acknowledged services are gone: %v", acknowledged)
	}
	deploy(t, h, "after", 1, 0)
	untouched(t, h, "web", before)
	traffic.check(t)
	quiet(t, h, "no space left on device")

	var stale []string
	for _, pattern := range []string{"*.new", "*.tmp", "*/*.new", "*/*.json.*", "node.json.*"} {
		found, err := filepath.Glob(filepath.Join("/proc", fmt.Sprint(mustPID(t, h)), "root", dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		stale = append(stale, found...)
	}
	if len(stale) > 0 {
		t.Errorf("half-written files are left: %v", stale)
	}
}

func mustPID(t testing.TB, h *testbed.Host) int {
	t.Helper()
	pid, err := h.ShoalPID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root", pid)); err != nil {
		t.Fatal(err)
	}
	return pid
}

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/internal/testbed"
)

// installation is a copy of what `make install` needs, with the binary that is
// being tested in the place of one that it would build.
func installation(t *testing.T, h *testbed.Host) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Dir(strings.TrimSpace(output(t, "go", "env", "GOMOD")))
	for _, name := range []string{"Makefile", "scripts", "packaging"} {
		output(t, "cp", "-r", filepath.Join(root, name), dir)
	}
	shoal := strings.TrimSpace(testbed.Must(t, h.Run(t.Context(), "sh", "-c", "command -v shoal")))
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "cp", shoal, filepath.Join(dir, "bin/shoal"))
	return dir
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// TestInstall installs into a directory, as a packager does, and takes all of
// it away again.
func TestInstall(t *testing.T) {
	t.Parallel()
	h := testbed.Start(t, 1, testbed.WithoutImages()).Host(0)
	tree, dest := installation(t, h), t.TempDir()
	output(t, "make", "-C", tree, "install", "GO=true", "DESTDIR="+dest)
	want := []string{
		"usr/local/bin/shoal",
		"usr/local/lib/systemd/system/shoal.service",
		"usr/local/share/bash-completion/completions/shoal",
		"usr/local/share/fish/vendor_completions.d/shoal.fish",
		"usr/local/share/zsh/site-functions/_shoal",
	}
	if got := files(t, dest); !slices.Equal(got, want) {
		t.Fatalf("installed %v, want %v", got, want)
	}
	unit, err := os.ReadFile(filepath.Join(dest, want[1]))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(unit), "ExecStart=/usr/local/bin/shoal daemon", "Before=docker.service", "KillMode=process", "Type=notify")
	if strings.Contains(string(unit), "@") || strings.Contains(string(unit), "Requires=docker") {
		t.Errorf("the unit:\n%s", unit)
	}

	complete := `set -e; PATH=` + filepath.Join(dest, "usr/local/bin") + `:$PATH
. "$1"
complete -p shoal
function="$(complete -p shoal | sed 's/.*-F \([^ ]*\).*/\1/')"
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=(); "$function" shoal "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "reply: ${COMPREPLY[*]}"; }
try shoal serv
try shoal service cr
try shoal service create --pub`
	out := output(t, "bash", "-c", complete, "bash", filepath.Join(dest, want[2]))
	contains(t, out, "complete ", "reply: service", "reply: create", "reply: --publish")
	for file, shell := range map[string]string{want[2]: "bash", want[3]: "fish", want[4]: "zsh"} {
		raw, err := os.ReadFile(filepath.Join(dest, file))
		if err != nil || !strings.Contains(string(raw), "shoal") {
			t.Errorf("completion for %s: %d bytes, %v", shell, len(raw), err)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed: its completion was not tried", shell)
			continue
		}
		output(t, shell, "-n", filepath.Join(dest, file))
	}

	output(t, "make", "-C", tree, "uninstall", "GO=true", "DESTDIR="+dest)
	if left := files(t, dest); len(left) != 0 {
		t.Errorf("uninstall left %v", left)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	all := lines(output(t, "find", dir, "-mindepth", "1", "!", "-type", "d", "-printf", "%P\n"))
	slices.Sort(all)
	return all
}

// TestInstallHost installs on a host that runs no systemd, beside an engine
// whose containers go on; and leaves nothing behind.
func TestInstallHost(t *testing.T) {
	t.Parallel()
	bed := testbed.Start(t, 1)
	h := bed.Host(0)
	tree := installation(t, h)
	if err := h.StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, h.EngineDocker("run", "-d", "--name", "other", "-p", "9001:80", testbed.WebV1))
	before := survey(t, h)

	// The host's /var/lib is its own; nothing reaches this machine.
	const prefix = "/var/lib/installed"
	run := func(target string) testbed.Result {
		return h.Run(context.Background(), "make", "-C", tree, target, "GO=true", "PREFIX="+prefix)
	}
	contains(t, testbed.Must(t, run("install")), "shoal swarm init")
	shoal := func(args ...string) testbed.Result {
		return h.Run(context.Background(), append([]string{prefix + "/bin/shoal"}, args...)...)
	}
	testbed.Must(t, shoal("swarm", "init"))
	testbed.Must(t, shoal("service", "create", "--name", "web", "--publish", "8080:80", "--update-monitor", "300ms", "--no-resolve-image", testbed.WebV1))
	for _, port := range []string{"8080", "9001"} {
		if _, err := answers(bed.Client(), url(h, port), 1); err != nil {
			t.Error(err)
		}
	}

	refused(t, run("uninstall"), "still in a swarm", "shoal swarm leave --force")
	if _, err := answers(bed.Client(), url(h, "8080"), 1); err != nil {
		t.Errorf("after a refused uninstall: %v", err)
	}
	testbed.Must(t, shoal("swarm", "leave", "--force"))
	testbed.Must(t, run("uninstall"))
	if up, err := h.ShoalRunning(); err != nil || up {
		t.Errorf("after uninstall the daemon runs: %v, %v", up, err)
	}
	if diff := difference(before, survey(t, h)); diff != "" && strings.Contains(diff, "left:") {
		t.Errorf("after uninstall:\n%s", diff)
	}
	for _, path := range []string{prefix + "/bin/shoal", "/var/lib/shoal", "/run/shoal.sock"} {
		if r := h.Run(t.Context(), "test", "-e", path); r.Code == 0 {
			t.Errorf("%s is still there", path)
		}
	}
	if _, err := answers(bed.Client(), url(h, "9001"), 1); err != nil {
		t.Errorf("the engine's other container: %v", err)
	}
}

package testbed

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one machine of a bed.
type Host struct {
	Name string
	IP   netip.Addr

	bed   *Bed
	index int
	pid   int // of its process 1; 0 before it is made
}

//go:embed hostfs.sh
var hostfsScript string

// Dir holds the host's private files: run/ is its /run, and so on.
func (h *Host) Dir() string { return filepath.Join(h.bed.Dir(), h.Name) }

// LogDir holds one file per daemon of the host.
func (h *Host) LogDir() string { return filepath.Join(h.Dir(), "log") }

// hold starts the host's process 1.
func (h *Host) hold() error {
	pid, err := startHolder(h.bed.Dir(), h.Name)
	h.pid = pid
	return err
}

// make makes the host as it is before anything runs on it.
func (h *Host) make(ctx context.Context) error {
	if err := h.makeFiles(); err != nil {
		return err
	}
	if err := h.hold(); err != nil {
		return err
	}
	if err := h.connect(); err != nil {
		return err
	}
	res := h.Run(ctx, "/bin/sh", "-c", hostfsScript, "hostfs", h.Dir(), h.Name, h.bed.Dir(), filepath.Dir(h.bed.state.Shoal))
	if res.Err() != nil {
		return fmt.Errorf("set up the file system: %w", res.Err())
	}
	return nil
}

// makeFiles writes what hostfs.sh mounts.
func (h *Host) makeFiles() error {
	for _, d := range []string{"log", "sys", "run/docker/plugins", "run/lock", "etc/docker", "var/lib/docker", "var/lib/shoal"} {
		if err := os.MkdirAll(filepath.Join(h.Dir(), d), 0o755); err != nil {
			return err
		}
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n")
	for _, other := range append([]*Host{h.bed.client}, h.bed.hosts...) {
		fmt.Fprintf(&hosts, "%s %s\n", other.IP, other.Name)
	}
	for name, content := range map[string]string{
		"etc/hosts":    hosts.String(),
		"etc/hostname": h.Name + "\n",
		// The gateway has no name server and says so at once. It must not be a
		// loopback address: an engine would replace that by a public one.
		"etc/resolv.conf":        fmt.Sprintf("nameserver %s\noptions attempts:1 timeout:1\n", h.bed.ground.IP),
		"etc/docker/daemon.json": h.engineConfig(),
	} {
		if err := os.WriteFile(filepath.Join(h.Dir(), name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Result is how a command ended.
type Result struct {
	Args   []string
	Stdout string
	Stderr string
	Code   int   // exit code; -1 if it did not run or was killed
	err    error // why it did not run
}

// Err is nil if the command succeeded; otherwise it holds all there is to know.
func (r Result) Err() error {
	switch {
	case r.err != nil:
		return fmt.Errorf("%s: %w\n%s%s", strings.Join(r.Args, " "), r.err, r.Stdout, r.Stderr)
	case r.Code != 0:
		return fmt.Errorf("%s: exit code %d\n%s%s", strings.Join(r.Args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return nil
}

// Command prepares a command that will run on the host once StartOn starts it.
// It sees the host's network, processes and files: default paths such as
// /run/shoal.sock and /var/lib/shoal are the host's own.
func (h *Host) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.find(argv[0]), argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = append(h.environment(), "PATH="+h.path())
	cmd.WaitDelay = 5 * time.Second // for output held open by grandchildren
	return cmd
}

// StartOn starts a command that Command prepared.
func (h *Host) StartOn(cmd *exec.Cmd) error {
	if h.pid == 0 {
		return fmt.Errorf("host %s is not up", h.Name)
	}
	return enter(h.pid, allNamespaces, cmd.Start)
}

// environment is this process's, without what would point a client elsewhere
// than at the host's own daemons.
func (h *Host) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "DOCKER_") || strings.HasPrefix(kv, "SHOAL_") || strings.HasPrefix(kv, "PATH=") {
			continue
		}
		env = append(env, kv)
	}
	return env
}

// path is the host's PATH. It does not come from this process's: that one may
// lack the sbin directories, where engines are.
func (h *Host) path() string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if h.bed.state.Engine != "" {
		path = h.bed.state.Engine + ":" + path
	}
	if h.bed.state.Shoal != "" {
		path = filepath.Dir(h.bed.state.Shoal) + ":" + path
	}
	return path
}

// find looks a command up in the host's path.
func (h *Host) find(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range filepath.SplitList(h.path()) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	return name // to fail with an error that names it
}

// Run runs a command on the host and waits for it. When ctx ends, the command
// and what it started in its process group are killed.
func (h *Host) Run(ctx context.Context, argv ...string) Result {
	return h.RunInput(ctx, nil, argv...)
}

// RunInput is Run with standard input.
func (h *Host) RunInput(ctx context.Context, stdin io.Reader, argv ...string) Result {
	var stdout, stderr bytes.Buffer
	cmd := h.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err := h.StartOn(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	res := Result{Args: argv, Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !exit.Exited() || ctx.Err() != nil {
		res.err = err
	}
	return res
}

// startDaemon starts a process that outlives this one and logs to a file.
func (h *Host) startDaemon(log string, argv ...string) (*daemon, error) {
	f, err := os.OpenFile(filepath.Join(h.LogDir(), log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := h.Command(context.Background(), argv...)
	cmd.Cancel = nil
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.StartOn(cmd); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", argv[0], h.Name, err)
	}
	d := &daemon{host: h, log: log, ended: make(chan struct{})}
	go func() {
		defer close(d.ended)
		d.err = cmd.Wait()
	}()
	return d, nil
}

// daemon is a background process of a host, as its starter sees it.
type daemon struct {
	host  *Host
	log   string
	ended chan struct{}
	err   error // after ended
}

// await polls until the daemon is ready; it gives up when it ends or ctx does.
func (d *daemon) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-d.ended:
			cancel(fmt.Errorf("it ended: %w", d.err))
		case <-stop:
		}
	}()
	err := poll(ctx, 10*time.Millisecond, func() error { return ready(ctx) })
	if err != nil {
		return fmt.Errorf("%w (%w); end of %s:\n%s", err, context.Cause(ctx), d.log, tail(filepath.Join(d.host.LogDir(), d.log), 20))
	}
	return nil
}

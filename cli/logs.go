package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/docker/docker/pkg/stringid"

	"shoal/cli/flags"
)

func logsFlags() flags.Set {
	return flags.Set{
		flags.Bool("details", "", "Show extra details provided to logs"),
		flags.Bool("follow", "f", "Follow log output"),
		flags.Bool("no-resolve", "", "Do not map IDs to Names in output"),
		flags.Bool("no-task-ids", "", "Do not include task IDs in output"),
		flags.Bool("no-trunc", "", "Do not truncate output"),
		flags.Bool("raw", "", "Do not neatly format logs"),
		flags.Text("since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`),
		flags.Text("tail", "n", "Number of lines to show from the end of the logs").WithDefault(`"all"`),
		flags.Bool("timestamps", "t", "Show timestamps"),
	}
}

// logSource is the service or the task whose logs are asked for.
type logSource struct {
	id   string
	task bool
	tty  bool
	// widest is the longest slot number, so that the prefixes of all tasks line up.
	widest int
}

func (s *session) serviceLogs(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	source, err := s.logSource(ctx, in.args[0])
	if err != nil {
		return err
	}
	raw := in.Bool("raw")
	options := container.LogsOptions{
		ShowStdout: true, ShowStderr: true, Since: in.Text("since"), Timestamps: in.Bool("timestamps"), Follow: in.Bool("follow"),
		Tail: orDefault(in.Text("tail"), "all"),
		// Which task a line is from comes with the details.
		Details: in.Bool("details") || !raw,
	}
	ask := api.ServiceLogs
	if source.task {
		ask = api.TaskLogs
	}
	body, err := ask(ctx, source.id, options)
	if err != nil {
		return err
	}
	defer body.Close()

	stdout, stderr := s.out, s.err
	if source.tty {
		if !raw {
			return errors.New("tty service logs only supported with --raw")
		}
		_, err = io.Copy(stdout, body)
	} else {
		if !raw {
			names := &logNames{resolver: s.resolver(in.Bool("no-resolve")), ctx: ctx, in: in, widest: source.widest}
			stdout = &logWriter{out: s.out, names: names, in: in}
			stderr = &logWriter{out: s.err, names: names, in: in}
		}
		_, err = stdcopy.StdCopy(stdout, stderr, body)
	}
	if ctx.Err() != nil {
		return exitError{130, ""} // following ends by interrupting it
	}
	return err
}

// logSource finds a service, or else a task, by name or ID.
func (s *session) logSource(ctx context.Context, name string) (logSource, error) {
	service, _, err := s.conn.ServiceInspectWithRaw(ctx, name, swarm.ServiceInspectOptions{})
	if err == nil {
		source := logSource{id: name, tty: usesTTY(service.Spec.TaskTemplate), widest: 1}
		if r := service.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
			source.widest = len(strconv.FormatUint(*r.Replicas, 10))
		}
		return source, nil
	}
	if !errdefs.IsNotFound(err) {
		return logSource{}, err
	}
	task, _, err := s.conn.TaskInspectWithRaw(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return logSource{}, fmt.Errorf("no such task or service: %s", name)
	case err != nil:
		return logSource{}, err
	}
	return logSource{id: name, task: true, tty: usesTTY(task.Spec), widest: len(strconv.Itoa(task.Slot))}, nil
}

func usesTTY(t swarm.TaskSpec) bool { return t.ContainerSpec != nil && t.ContainerSpec.TTY }

// logWriter puts where a line comes from in front of it.
type logWriter struct {
	out   io.Writer
	names *logNames
	in    input
}

// Write gets one line, as the daemon frames them.
func (w *logWriter) Write(line []byte) (int, error) {
	text, err := w.format(string(line))
	if err != nil {
		return 0, err
	}
	if _, err := io.WriteString(w.out, text); err != nil {
		return 0, err
	}
	return len(line), nil
}

func (w *logWriter) format(line string) (string, error) {
	var out strings.Builder
	rest := line
	if w.in.Bool("timestamps") {
		stamp, after, ok := strings.Cut(rest, " ")
		if !ok {
			return "", fmt.Errorf("invalid log line: %q has no timestamp", line)
		}
		out.WriteString(stamp + " ")
		rest = after
	}
	encoded, message, ok := strings.Cut(rest, " ")
	if !ok {
		return "", fmt.Errorf("invalid log line: %q does not say where it is from", line)
	}
	from, err := parseDetails(encoded)
	if err != nil {
		return "", fmt.Errorf("invalid log line %q: %w", line, err)
	}
	out.WriteString(w.names.prefix(from["com.docker.swarm.service.id"], from["com.docker.swarm.node.id"], from["com.docker.swarm.task.id"]))
	out.WriteString("    | ")
	if w.in.Bool("details") {
		for _, key := range []string{"com.docker.swarm.service.id", "com.docker.swarm.node.id", "com.docker.swarm.task.id"} {
			delete(from, key)
		}
		out.WriteString(details(from) + " ")
	}
	out.WriteString(message)
	return out.String(), nil
}

func parseDetails(encoded string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range strings.Split(encoded, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("bad detail %q", pair)
		}
		k, err := url.QueryUnescape(key)
		if err != nil {
			return nil, err
		}
		v, err := url.QueryUnescape(value)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, nil
}

func details(d map[string]string) string {
	var list []string
	for key, value := range d {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// logNames makes the prefix of a task's lines: web.1.abc@host, padded to the widest slot.
type logNames struct {
	*resolver
	ctx    context.Context
	in     input
	widest int
	cache  map[string]string
}

func (n *logNames) prefix(serviceID, nodeID, taskID string) string {
	if text, ok := n.cache[taskID]; ok {
		return text
	}
	slot, known := "0", false
	if task, _, err := n.s.conn.TaskInspectWithRaw(n.ctx, taskID); err == nil {
		slot, known = strconv.Itoa(task.Slot), true
		if nodeID == "" {
			nodeID = task.NodeID
		}
	}
	text := n.service(n.ctx, serviceID)
	if known {
		text += "." + slot
	}
	if !n.in.Bool("no-task-ids") {
		if n.in.Bool("no-trunc") {
			text += "." + taskID
		} else {
			text += "." + stringid.TruncateID(taskID)
		}
	}
	text += "@" + n.node(n.ctx, nodeID)
	text += strings.Repeat(" ", max(n.widest-len(slot), 0))
	if n.cache == nil {
		n.cache = map[string]string{}
	}
	n.cache[taskID] = text
	return text
}

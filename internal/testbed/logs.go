package testbed

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tail is the last n lines of a file, of those without any of the given words.
// What keeps it from being read is as good an answer for a log.
func tail(path string, n int, without ...string) string {
	const most = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(raw), "\n"), "\n"), func(line string) bool {
		return slices.ContainsFunc(without, func(word string) bool { return strings.Contains(line, word) })
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Logs returns the host's log files.
func (h *Host) Logs() ([]string, error) {
	return filepath.Glob(filepath.Join(h.LogDir(), "*.log"))
}

// TailLogs is the end of each of the host's logs, for a person to read: without
// what engines say at debug level, which is for those who open the file.
func (h *Host) TailLogs(lines int) string {
	logs, err := h.Logs()
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, l := range logs {
		fmt.Fprintf(&out, "--- %s %s\n%s\n", h.Name, filepath.Base(l), tail(l, lines, "level=debug"))
	}
	return out.String()
}

// SaveLogs copies every host's logs to dir, as HOST-DAEMON.log.
func (b *Bed) SaveLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save logs: %w", err)
	}
	for _, h := range append([]*Host{b.client}, b.hosts...) {
		logs, err := h.Logs()
		if err != nil {
			return fmt.Errorf("save logs: %w", err)
		}
		for _, l := range logs {
			if err := copyFile(l, filepath.Join(dir, h.Name+"-"+filepath.Base(l))); err != nil {
				return fmt.Errorf("save logs: %w", err)
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

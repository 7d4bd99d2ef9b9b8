package task

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// awaited tells whether connections wait, in the network of a process, for some
// server there to accept them. Where that can not be known none do.
func awaited(pid int) bool {
	if pid <= 0 {
		return false
	}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if err != nil {
			continue // not on this system, or the process has just ended
		}
		yes := anyWaits(f)
		_ = f.Close()
		if yes {
			return true
		}
	}
	return false
}

// anyWaits reads one of the kernel's tables of sockets. Listening ones come
// first, and their receive queue is the number of connections to accept.
func anyWaits(table io.Reader) bool {
	const listening = "0A"
	lines := bufio.NewScanner(table)
	lines.Scan() // the heading
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 5 || f[3] != listening {
			return false
		}
		_, queue, _ := strings.Cut(f[4], ":")
		if n, err := strconv.ParseUint(queue, 16, 32); err == nil && n > 0 {
			return true
		}
	}
	return false
}

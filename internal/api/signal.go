package api

import (
	"slices"
	"strconv"
	"strings"
)

// maxSignal is the last real-time signal of Linux.
const maxSignal = 64

// KnownSignal tells whether engines on Linux can send a signal, by number or by
// name with or without SIG. They look only when a container is made, which is too
// late for whoever made the service to hear of it.
func KnownSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= maxSignal
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, end := range []struct {
		prefix string
		most   int
	}{{"RTMIN+", 15}, {"RTMAX-", 14}} {
		if offset, ok := strings.CutPrefix(name, end.prefix); ok {
			n, err := strconv.Atoi(offset)
			return err == nil && n >= 1 && n <= end.most && strconv.Itoa(n) == offset
		}
	}
	return slices.Contains(signalNames(), name)
}

func signalNames() []string {
	return strings.Fields("ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT " +
		"RTMAX RTMIN SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ")
}

package progress

import (
	"fmt"
	"strings"
	"time"
)

// Screen draws a frame for a terminal of this size: never wider, never taller.
func Screen(f Frame, width, height int) []string {
	lines := append([]string(nil), f.Overall...)
	if f.Note != "" {
		lines = append(lines, f.Note)
	}
	tail := f.verify()

	// The last line of the terminal stays free for the cursor.
	room := max(height-len(lines)-len(tail)-1, 1)
	lines = append(lines, slotLines(f.Slots, width, room)...)
	lines = append(lines, tail...)
	for i, line := range lines {
		lines[i] = clip(line, width)
	}
	return lines
}

// slotLines gives every slot a line if there is room, and otherwise those that are not running yet, with a count of
// the rest.
func slotLines(slots []Slot, width, room int) []string {
	label := 0
	for _, s := range slots {
		label = max(label, len(s.Label))
	}
	if len(slots) <= room {
		lines := make([]string, len(slots))
		for i, s := range slots {
			lines[i] = s.line(label, width)
		}
		return lines
	}
	var lines []string
	rest := map[bool]int{} // running or not, of those that are not shown
	for _, s := range slots {
		running := s.State == "running"
		// Failures are shown first: they are what the user waits to see.
		if running || s.Err == "" || len(lines) == room-1 {
			rest[running]++
			continue
		}
		lines = append(lines, s.line(label, width))
	}
	if len(lines) < room-1 {
		for _, s := range slots {
			if s.State != "running" && s.Err == "" && len(lines) < room-1 {
				lines = append(lines, s.line(label, width))
				rest[false]--
			}
		}
	}
	hidden := fmt.Sprintf("%d tasks: %d running, %d on their way", rest[true]+rest[false], rest[true], rest[false])
	if len(lines) > 0 {
		hidden = "and " + hidden
	}
	return append(lines, hidden)
}

// bar is the width of a progress bar, and stateWidth that of the longest state a task passes on its way to running.
const (
	bar        = 50
	stateWidth = len("allocated")
)

func (s Slot) line(label, width int) string {
	text := fmt.Sprintf("%*s: %-*s", label, s.Label, stateWidth, s.State)
	switch {
	case s.Err != "":
		return text + " " + quote(s.Err)
	case s.State == "" || width < len(text)+bar+4:
		return text
	}
	filled := bar * s.Step / Steps
	drawn := strings.Repeat("=", filled)
	if filled > 0 {
		drawn = drawn[1:] + ">"
	}
	return fmt.Sprintf("%s [%-*s]", text, bar, drawn)
}

func (f Frame) verify() []string {
	switch {
	case f.Verify == "":
		return nil
	case f.job:
		return []string{f.Verify}
	case f.Remaining > 0:
		return []string{fmt.Sprintf("verify: Waiting %d seconds to verify that tasks are stable...", int(f.Remaining/time.Second))}
	}
	return []string{"verify: " + f.Verify}
}

// Changes says in plain lines what is new since the frame before, for where nothing can be repainted.
func Changes(before, now Frame) []string {
	var lines []string
	for i, line := range now.Overall {
		if i >= len(before.Overall) || before.Overall[i] != line {
			lines = append(lines, line)
		}
	}
	if now.Note != "" && now.Note != before.Note {
		lines = append(lines, now.Note)
	}
	old := map[string]Slot{}
	for _, s := range before.Slots {
		old[s.Label] = s
	}
	for _, s := range now.Slots {
		was := old[s.Label]
		switch {
		case s.Err != "" && s.Err != was.Err:
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%s: %s %s", s.Label, s.State, quote(s.Err)), " "))
		case s.State != "" && s.State != was.State:
			lines = append(lines, fmt.Sprintf("%s: %s", s.Label, s.State))
		}
	}
	if now.Verify != before.Verify {
		lines = append(lines, now.verify()...)
	}
	return lines
}

// quote makes an error one line.
func quote(s string) string { return `"` + strings.Join(strings.Fields(s), " ") + `"` }

func clip(line string, width int) string {
	runes := []rune(line)
	if width < 2 || len(runes) <= width {
		return line
	}
	return string(runes[:width-1]) + "…"
}

package progress

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moby/term"
)

// Display shows frames: repainted in place on a terminal, as lines where something changed elsewhere.
type Display struct {
	out   io.Writer
	fd    uintptr
	tty   bool
	last  Frame
	lines []string // on the screen now
	width int      // the screen's, when they were drawn
}

// NewDisplay shows frames on out.
func NewDisplay(out io.Writer) *Display {
	fd, tty := term.GetFdInfo(out)
	return &Display{out: out, fd: fd, tty: tty}
}

// Show brings the display up to date.
func (d *Display) Show(f Frame) error {
	var text string
	if d.tty {
		width, height := 80, 24
		// Asked every time: the window may have been resized.
		if size, err := term.GetWinsize(d.fd); err == nil && size.Width > 0 && size.Height > 0 {
			width, height = int(size.Width), int(size.Height)
		}
		lines := Screen(f, width, height)
		if width == d.width && slices.Equal(lines, d.lines) {
			return nil
		}
		text = repaint(d.lines, lines, width)
		d.lines, d.width = lines, width
	} else if changed := Changes(d.last, f); len(changed) > 0 {
		text = strings.Join(changed, "\n") + "\n"
	}
	d.last = f
	if text == "" {
		return nil
	}
	_, err := io.WriteString(d.out, text)
	return err
}

// repaint moves up over what was drawn and draws anew, clearing the end of every line and what is left below. Lines
// that a narrowed window has wrapped are counted as often as they now take.
func repaint(before, now []string, width int) string {
	var out strings.Builder
	up := 0
	for _, line := range before {
		up += 1 + max(len([]rune(line))-1, 0)/width
	}
	if up > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", up)
	}
	for _, line := range now {
		out.WriteString("\r" + line + "\x1b[K\n")
	}
	if len(before) > 0 {
		out.WriteString("\x1b[J")
	}
	return out.String()
}

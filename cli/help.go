package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/moby/term"
	"github.com/urfave/cli/v2"

	"shoal/cli/flags"
)

func synopsis(c *cli.Command) string {
	text := c.HelpName
	switch {
	case c.Name == "shoal":
		text += " [OPTIONS] COMMAND"
	case len(c.Subcommands) > 0:
		text += " COMMAND"
	case len(c.Flags) > 0:
		text += " [OPTIONS]"
	}
	if c.ArgsUsage != "" {
		text += " " + c.ArgsUsage
	}
	return text
}

// help prints what a command does and which flags or subcommands it has.
func (s *session) help(c *cli.Command) error {
	width := 80
	if fd, tty := term.GetFdInfo(s.out); tty {
		if size, err := term.GetWinsize(fd); err == nil {
			width = max(width, int(size.Width))
		}
	}
	w := bufio.NewWriter(s.out)
	fmt.Fprintf(w, "Usage:  %s\n\n%s\n", synopsis(c), c.Usage)
	if len(c.Aliases) > 0 {
		parent := strings.TrimSuffix(c.HelpName, " "+c.Name)
		fmt.Fprintf(w, "\nAliases:\n  %s", c.HelpName)
		for _, alias := range c.Aliases {
			fmt.Fprintf(w, ", %s %s", parent, alias)
		}
		fmt.Fprintln(w)
	}
	writeCommands(w, c)
	set := s.leaves[c].flags
	heading := "Options"
	if c.Name == "shoal" {
		set, heading = s.global, "Global Options"
	}
	if len(set) > 0 {
		fmt.Fprintf(w, "\n%s:\n", heading)
		writeFlags(w, sorted(set), width)
	}
	if len(c.Subcommands) > 0 {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", c.HelpName)
	}
	return w.Flush()
}

func writeCommands(w io.Writer, c *cli.Command) {
	if len(c.Subcommands) == 0 {
		return
	}
	column := 10
	for _, sub := range c.Subcommands {
		column = max(column, len(sub.Name))
	}
	list := func(heading string, groups bool) {
		first := true
		for _, sub := range c.Subcommands {
			if (len(sub.Subcommands) > 0) != groups {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n%s:\n", heading)
				first = false
			}
			fmt.Fprintf(w, "  %-*s  %s\n", column, sub.Name, sub.Usage)
		}
	}
	list("Management Commands", true)
	list("Commands", false)
}

func writeFlags(w io.Writer, set flags.Set, width int) {
	names := make([]string, len(set))
	column := 0
	for i, f := range set {
		short := "    "
		if f.Short != "" {
			short = "-" + f.Short + ", "
		}
		names[i] = strings.TrimRight("  "+short+"--"+f.Long+" "+f.Type, " ")
		column = max(column, len(names[i]))
	}
	column += 3
	for i, f := range set {
		usage := f.Usage
		if f.Default != "" {
			usage += " (default " + f.Default + ")"
		}
		for n, line := range wrap(usage, max(width-column, 24)) {
			name := ""
			if n == 0 {
				name = names[i]
			}
			fmt.Fprintf(w, "%-*s%s\n", column, name, line)
		}
	}
}

// wrap breaks text into lines of at most width, at blanks, keeping the line breaks it has.
func wrap(text string, width int) []string {
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		if len(paragraph) <= width {
			lines = append(lines, paragraph)
			continue
		}
		line := ""
		for i, word := range strings.Split(paragraph, " ") { // runs of blanks line something up: keep them
			switch {
			case i == 0:
				line = word
			case len(line)+1+len(word) > width:
				lines = append(lines, strings.TrimRight(line, " "))
				line = word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return lines
}

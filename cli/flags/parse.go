package flags

import (
	"fmt"
	"strings"
)

// Line is a command's arguments, sorted out.
type Line struct {
	Flags []string // every flag as --name=value
	Args  []string
	Help  bool // --help or -h was among the flags: nothing else matters
}

// Parse sorts a command's arguments into flags and positional ones. With interspersed, flags may follow arguments;
// without, everything after the first argument belongs to it (an image's command and its own flags, a subcommand's
// flags). Values are not looked at.
func (s Set) Parse(args []string, interspersed bool) (Line, error) {
	var line Line
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			line.Args = append(line.Args, args...)
			return line, nil
		case len(arg) < 2 || arg[0] != '-':
			line.Args = append(line.Args, arg)
			if !interspersed {
				line.Args = append(line.Args, args...)
				return line, nil
			}
		default:
			var err error
			if strings.HasPrefix(arg, "--") {
				args, err = s.long(&line, arg[2:], args)
			} else {
				args, err = s.shorts(&line, arg[1:], args)
			}
			if err != nil || line.Help {
				return line, err
			}
		}
	}
	return line, nil
}

// long reads one --name, --name=value or --name value, and returns the arguments left.
func (s Set) long(line *Line, text string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(text, "=")
	f := s.Lookup(name)
	switch {
	case f == nil && name == "help":
		line.Help = true
		return rest, nil
	case f == nil:
		return nil, fmt.Errorf("unknown flag: --%s", name)
	case given:
	case f.boolean:
		value = "true"
	case len(rest) == 0:
		return nil, fmt.Errorf("flag needs an argument: --%s", name)
	default:
		value, rest = rest[0], rest[1:]
	}
	line.Flags = append(line.Flags, "--"+name+"="+value)
	return rest, nil
}

// shorts reads a bundle of short flags: -qf value, -p80:80, -n=5.
func (s Set) shorts(line *Line, bundle string, rest []string) ([]string, error) {
	for i, name := range bundle {
		f := s.short(string(name))
		tail := bundle[i+len(string(name)):]
		switch {
		case f == nil && name == 'h':
			line.Help = true
			return rest, nil
		case f == nil:
			return nil, fmt.Errorf("unknown shorthand flag: %q in -%s", name, bundle)
		case strings.HasPrefix(tail, "="):
			line.Flags = append(line.Flags, "--"+f.Long+tail)
			return rest, nil
		case f.boolean:
			line.Flags = append(line.Flags, "--"+f.Long+"=true")
			continue
		case tail != "":
			line.Flags = append(line.Flags, "--"+f.Long+"="+tail)
			return rest, nil
		case len(rest) == 0:
			return nil, fmt.Errorf("flag needs an argument: %q in -%s", name, bundle)
		}
		line.Flags = append(line.Flags, "--"+f.Long+"="+rest[0])
		return rest[1:], nil
	}
	return rest, nil
}

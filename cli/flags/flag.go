// Package flags gives the command line the flag grammar that Docker's users type: long and short names, combined
// shorts, values after a blank or "=", flags after arguments, and lists that do not split on commas. It plugs into
// urfave/cli as its flags and rewrites the arguments into the stricter form that the flag package behind it parses.
package flags

import (
	"flag"
	"fmt"
)

// Flag is one flag of one command. It satisfies cli.Flag.
type Flag struct {
	Long  string
	Short string
	Type  string // shown in help: "list", "duration"; empty for booleans
	Usage string
	// Default is shown in help. It says what happens without the flag, which may be the server's doing.
	Default string

	set     func(string) error
	value   func() any
	boolean bool
	changed bool
	err     error
}

// String is the flag as error messages name it: "-p, --publish".
func (f *Flag) String() string {
	if f.Short != "" {
		return "-" + f.Short + ", --" + f.Long
	}
	return "--" + f.Long
}

// Names returns the one name known to the parser: short names are spelled out before it sees them.
func (f *Flag) Names() []string { return []string{f.Long} }

// IsSet reports whether the user gave the flag.
func (f *Flag) IsSet() bool { return f.changed }

// Apply registers the flag with the parser.
func (f *Flag) Apply(set *flag.FlagSet) error {
	set.Var((*target)(f), f.Long, f.Usage)
	return nil
}

// Err is what was wrong with the value the user gave, if anything.
func (f *Flag) Err() error { return f.err }

// WithDefault sets the default shown in help.
func (f *Flag) WithDefault(text string) *Flag {
	f.Default = text
	return f
}

// target is the side of a Flag that the standard parser writes to.
type target Flag

func (t *target) String() string   { return "" }
func (t *target) IsBoolFlag() bool { return t.boolean }

func (t *target) Set(s string) error {
	if err := t.set(s); err != nil {
		t.err = fmt.Errorf("invalid argument %q for %q flag: %w", s, (*Flag)(t).String(), err)
		return t.err
	}
	t.changed = true
	return nil
}

// Var makes a flag of one value: given twice, the last counts.
func Var[T any](long, short, kind, usage string, parse func(string) (T, error)) *Flag {
	var v T
	return &Flag{
		Long: long, Short: short, Type: kind, Usage: usage,
		set: func(s string) (err error) {
			parsed, err := parse(s)
			if err == nil {
				v = parsed
			}
			return err
		},
		value: func() any { return v },
	}
}

// Many makes a flag that may be repeated.
func Many[T any](long, short, kind, usage string, parse func(string) (T, error)) *Flag {
	var all []T
	return &Flag{
		Long: long, Short: short, Type: kind, Usage: usage,
		set: func(s string) error {
			parsed, err := parse(s)
			if err == nil {
				all = append(all, parsed)
			}
			return err
		},
		value: func() any { return all },
	}
}

// Bool makes a switch.
func Bool(long, short, usage string) *Flag {
	f := Var(long, short, "", usage, parseBool)
	f.boolean = true
	return f
}

// Text makes a flag whose value is taken as it is.
func Text(long, short, usage string) *Flag {
	return Var(long, short, "string", usage, func(s string) (string, error) { return s, nil })
}

// List makes a repeatable flag whose values are taken as they are.
func List(long, short, usage string) *Flag {
	return Many(long, short, "list", usage, func(s string) (string, error) { return s, nil })
}

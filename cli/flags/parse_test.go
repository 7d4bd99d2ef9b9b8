package flags

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func someFlags() Set {
	return Set{
		Text("name", "", "a name"),
		List("env", "e", "variables"),
		Bool("quiet", "q", "say less"),
		Filters("filter"),
		Bool("detach", "d", "do not wait"),
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		name     string
		args     string
		verbatim bool
		want     Line
		err      string
	}{
		{name: "nothing"},
		{name: "value after a blank", args: "--name web", want: Line{Flags: []string{"--name=web"}}},
		{name: "value after an equals sign", args: "--name=a=b", want: Line{Flags: []string{"--name=a=b"}}},
		{name: "value that looks like a flag", args: "--name --quiet", want: Line{Flags: []string{"--name=--quiet"}}},
		{name: "empty value", args: "--name=", want: Line{Flags: []string{"--name="}}},
		{name: "switch takes no value", args: "--quiet web", want: Line{Flags: []string{"--quiet=true"}, Args: []string{"web"}}},
		{name: "switch off", args: "--detach=false", want: Line{Flags: []string{"--detach=false"}}},
		{name: "bundle", args: "-qf name=web", want: Line{Flags: []string{"--quiet=true", "--filter=name=web"}}},
		{name: "bundle with its value", args: "-qeA=1", want: Line{Flags: []string{"--quiet=true", "--env=A=1"}}},
		{name: "short with equals sign", args: "-e=A=1", want: Line{Flags: []string{"--env=A=1"}}},
		{name: "short switch off", args: "-d=false x", want: Line{Flags: []string{"--detach=false"}, Args: []string{"x"}}},
		{name: "flags after arguments", args: "web --name x -q db", want: Line{Flags: []string{"--name=x", "--quiet=true"}, Args: []string{"web", "db"}}},
		{name: "the image's own flags", args: "-e A=1 nginx --name x -q -- y", verbatim: true, want: Line{Flags: []string{"--env=A=1"}, Args: []string{"nginx", "--name", "x", "-q", "--", "y"}}},
		{name: "end of flags", args: "-q -- --name x", want: Line{Flags: []string{"--quiet=true"}, Args: []string{"--name", "x"}}},
		{name: "a dash is an argument", args: "- -q", want: Line{Flags: []string{"--quiet=true"}, Args: []string{"-"}}},
		{name: "help", args: "web --help --nonsense", want: Line{Args: []string{"web"}, Help: true}},
		{name: "short help in a bundle", args: "-qh", want: Line{Flags: []string{"--quiet=true"}, Help: true}},
		{name: "unknown", args: "--foo", err: "unknown flag: --foo"},
		{name: "unknown with value", args: "--foo=1", err: "unknown flag: --foo"},
		{name: "unknown short", args: "-qx", err: "unknown shorthand flag: 'x' in -qx"},
		{name: "value missing", args: "--name", err: "flag needs an argument: --name"},
		{name: "short value missing", args: "-qe", err: "flag needs an argument: 'e' in -qe"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := someFlags().Parse(strings.Fields(test.args), !test.verbatim)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// read parses a flag's values the way the application does.
func read(t *testing.T, f *Flag, values ...string) error {
	t.Helper()
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(discard{})
	if err := f.Apply(set); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, v := range values {
		args = append(args, "--"+f.Long+"="+v)
	}
	if set.Parse(args) != nil {
		return f.Err()
	}
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestValues(t *testing.T) {
	tests := []struct {
		name  string
		flag  *Flag
		given []string
		want  any
		err   string
	}{
		{"last text counts", Text("x", "", ""), []string{"a", "b"}, "b", ""},
		{"lists keep commas", List("x", "", ""), []string{"a,b", "c"}, []string{"a,b", "c"}, ""},
		{"uint", Uint("x", ""), []string{"3"}, uint64(3), ""},
		{"not a uint", Uint("x", ""), []string{"-1"}, nil, `invalid argument "-1" for "--x" flag: must be a whole number, 0 or more`},
		{"no number", Uint("x", ""), []string{"foo"}, nil, `invalid argument "foo" for "--x" flag: must be a whole number, 0 or more`},
		{"huge number", Uint("x", ""), []string{"99999999999999999999"}, nil, `invalid argument "99999999999999999999" for "--x" flag: is too large a number`},
		{"not an int", Int("x", ""), []string{"1.5"}, nil, `invalid argument "1.5" for "--x" flag: must be a whole number`},
		{"not a ratio", Float("x", ""), []string{"ten"}, nil, `invalid argument "ten" for "--x" flag: must be a number, such as 0.25`},
		{"not a switch", Bool("x", "", ""), []string{"foo"}, nil, `invalid argument "foo" for "--x" flag: must be true or false`},
		{"duration without a unit", Duration("x", ""), []string{"5"}, nil, `invalid argument "5" for "--x" flag: has no unit: write 5s for five seconds, or ms, m or h`},
		{"no duration", Duration("x", ""), []string{"foo"}, nil, `invalid argument "foo" for "--x" flag: must be a time with a unit, such as 500ms, 30s or 1h30m`},
		{"negative size", Bytes("x", ""), []string{"-5m"}, nil, `invalid argument "-5m" for "--x" flag: size cannot be negative`},
		{"no size", Bytes("x", ""), []string{"3x"}, nil, `invalid argument "3x" for "--x" flag: must be a size, such as 512m or 2g (units b, k, m, g, t)`},
		{"negative cpus", CPUs("x", ""), []string{"-1"}, nil, `invalid argument "-1" for "--x" flag: number of CPUs cannot be negative`},
		{"no cpus", CPUs("x", ""), []string{"foo"}, nil, `invalid argument "foo" for "--x" flag: must be a number of CPUs, such as 0.5`},
		{"too many cpus", CPUs("x", ""), []string{"1e30"}, nil, `invalid argument "1e30" for "--x" flag: is too large a number`},
		{"duration", Duration("x", ""), []string{"1m30s"}, 90 * time.Second, ""},
		{"negative duration", Duration("x", ""), []string{"-1s"}, nil, `invalid argument "-1s" for "--x" flag: duration cannot be negative`},
		{"bytes", Bytes("x", ""), []string{"64m"}, int64(64 << 20), ""},
		{"cpus", CPUs("x", ""), []string{".5"}, int64(5e8), ""},
		{"too precise cpus", CPUs("x", ""), []string{"0.0000000001"}, nil, `invalid argument "0.0000000001" for "--x" flag: value is too precise: at most nine digits after the point`},
		{"filter", Filters(""), []string{"Name = web", "label=a=b"}, []Filter{{"name", "web"}, {"label", "a=b"}}, ""},
		{"bad filter", Filters(""), []string{"x"}, nil, `invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := read(t, test.flag, test.given...)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || !test.flag.IsSet() {
				t.Fatalf("not set: %v", err)
			}
			if diff := cmp.Diff(test.want, test.flag.value()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFlagsNobodyGaveAreZero(t *testing.T) {
	set := someFlags()
	if set.Changed("name") || set.Changed("nosuch") || set.Text("name") != "" || set.List("nosuch") != nil {
		t.Error("a flag that was not given has a value")
	}
}

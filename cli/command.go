package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"shoal/cli/flags"
	"shoal/internal/nearest"
)

// leaf is a command that does something, as opposed to one that groups others.
type leaf struct {
	name, args, usage string
	aliases           []string
	flags             flags.Set
	arity             arity
	// verbatim ends the flags at the first argument: what follows belongs to it.
	verbatim bool
	// flagged shows the help if no flag was given: there is nothing to do then.
	flagged bool
	run     func(ctx context.Context, in input) error
}

// input is what a command was called with.
type input struct {
	flags.Set
	args []string
}

// arity is how many arguments a command takes; a negative max is no limit.
type arity struct{ min, max int }

var (
	none       = arity{0, 0}
	one        = arity{1, 1}
	two        = arity{2, 2}
	anyNumber  = arity{0, -1}
	atLeastOne = arity{1, -1}
)

// check says what is wrong with n arguments, in Docker's words.
func (a arity) check(n int) string {
	switch {
	case n >= a.min && (a.max < 0 || n <= a.max):
		return ""
	case a.max == 0:
		return "accepts no arguments"
	case a.max > a.min:
		return fmt.Sprintf("requires at least %d and at most %d arguments", a.min, a.max)
	case a.max < 0:
		return fmt.Sprintf("requires at least %d %s", a.min, plural(a.min, "argument"))
	}
	return fmt.Sprintf("requires %d %s", a.min, plural(a.min, "argument"))
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// commands is the whole tree.
func (s *session) commands() *cli.Command {
	return &cli.Command{
		Name: "shoal", HelpName: "shoal", Usage: "Run services on a cluster of Docker engines",
		Subcommands: []*cli.Command{
			s.noun("swarm", "Manage Swarm", s.swarmCommands()),
			s.noun("node", "Manage Swarm nodes", s.nodeCommands()),
			s.noun("service", "Manage Swarm services", s.serviceCommands()),
			s.verb("shoal", s.execCommand()),
			s.noun("secret", "Manage Swarm secrets", s.secretCommands()),
			s.noun("config", "Manage Swarm configs", s.configCommands()),
			s.noun("registry", "Manage how all nodes log in at registries", s.registryCommands()),
			s.verb("shoal", s.explainCommand()),
			s.verb("shoal", s.rebalanceCommand()),
			s.noun("stack", "Manage Swarm stacks", s.stackCommands()),
			s.noun("network", "Manage networks", s.networkCommands()),
			s.verb("shoal", s.infoCommand()),
			s.verb("shoal", s.versionCommand()),
			s.verb("shoal", s.doctorCommand()),
			s.verb("shoal", s.clientCertCommand()),
			s.noun("system", "Manage the connection to the daemon", s.systemCommands()),
			s.verb("shoal", s.daemonCommand()),
			s.verb("shoal", s.completionCommand()),
		},
	}
}

// noun is a command that groups the verbs of one kind of object.
func (s *session) noun(name, usage string, leaves []leaf) *cli.Command {
	c := &cli.Command{Name: name, HelpName: "shoal " + name, Usage: usage, HideHelp: true}
	for _, l := range leaves {
		c.Subcommands = append(c.Subcommands, s.verb(c.HelpName, l))
	}
	return c
}

// verb makes the command that runs a leaf.
func (s *session) verb(parent string, l leaf) *cli.Command {
	c := &cli.Command{
		Name: l.name, Aliases: l.aliases, Usage: l.usage, ArgsUsage: l.args,
		HelpName: parent + " " + l.name, HideHelp: true, Flags: asFlags(l.flags),
	}
	path := c.HelpName
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
		c.HelpName = path // urfave/cli has put the program's name before it, once more
		return usageError(c, firstError(l.flags.Err(), err))
	}
	c.Action = func(cc *cli.Context) error {
		c.HelpName = path
		args := cc.Args().Slice()
		if wrong := l.arity.check(len(args)); wrong != "" {
			return exitError{1, fmt.Sprintf("shoal: '%s' %s\n\nUsage:  %s\n\nRun '%s --help' for more information", c.HelpName, wrong, synopsis(c), c.HelpName)}
		}
		if l.flagged && !l.flags.AnyChanged(l.flags.Names()...) {
			return s.help(c)
		}
		return l.run(cc.Context, input{l.flags, args})
	}
	s.leaves[c] = l
	return c
}

func usageError(c *cli.Command, err error) error {
	return exitError{exitUsage, fmt.Sprintf("%v\n\nUsage:  %s\n\nRun '%s --help' for more information", err, synopsis(c), c.HelpName)}
}

// unknownCommand suggests the nearest command there is.
func unknownCommand(parent *cli.Command, name string) error {
	var msg strings.Builder
	fmt.Fprintf(&msg, "shoal: unknown command: %s %s\n\n", parent.HelpName, name)
	var names []string
	for _, c := range parent.Subcommands {
		names = append(names, c.Name)
	}
	if best := nearest.Word(name, names); best != "" {
		fmt.Fprintf(&msg, "Did you mean '%s %s'?\n\n", parent.HelpName, best)
	}
	if parent.Name != "shoal" {
		fmt.Fprintf(&msg, "Usage:  %s\n\n", synopsis(parent))
	}
	fmt.Fprintf(&msg, "Run '%s --help' for more information", parent.HelpName)
	return exitError{1, msg.String()}
}

func asFlags(set flags.Set) []cli.Flag {
	list := make([]cli.Flag, len(set))
	for i, f := range set {
		list[i] = f
	}
	return list
}

// sorted returns the flags in the order help shows them.
func sorted(set flags.Set) flags.Set {
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b *flags.Flag) int { return strings.Compare(a.Long, b.Long) })
	return set
}

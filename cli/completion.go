package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func (s *session) completionCommand() leaf {
	return leaf{
		name: "completion", args: "(bash|zsh|fish)", usage: "Print the completion script for a shell", arity: one,
		run: func(_ context.Context, in input) error {
			write, ok := map[string]func(io.Writer, *cli.Command, func(*cli.Command) []string){
				"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion,
			}[in.args[0]]
			if !ok {
				return errors.New("unknown shell " + in.args[0] + ": bash, zsh and fish are known")
			}
			var p page
			root := s.commands()
			write(&p, root, func(c *cli.Command) []string {
				var names []string
				for _, f := range sorted(s.leaves[c].flags) {
					names = append(names, "--"+f.Long)
				}
				return append(names, "--help")
			})
			return p.flush(s.out)
		},
	}
}

// eachCommand visits all commands with the words that lead to them, without "shoal".
func eachCommand(root *cli.Command, visit func(path string, c *cli.Command)) {
	visit(strings.TrimPrefix(strings.TrimPrefix(root.HelpName, "shoal"), " "), root)
	for _, sub := range root.Subcommands {
		eachCommand(sub, visit)
	}
}

// The scripts know the commands and flags by heart and ask the daemon, through shoal itself, for the names of
// services, nodes, secrets and configs.

func bashCompletion(w io.Writer, root *cli.Command, flagsOf func(*cli.Command) []string) {
	fmt.Fprint(w, `# bash completion for shoal
_shoal() {
    local cur=${COMP_WORDS[COMP_CWORD]} path= word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            -H|--host) ((i++));;
            -*) ;;
            *) case "$path" in
`)
	eachCommand(root, func(path string, c *cli.Command) {
		if len(c.Subcommands) > 0 {
			fmt.Fprintf(w, "                \"%s\") path=\"${path:+$path }$word\";;\n", path)
		}
	})
	fmt.Fprint(w, `            esac;;
        esac
    done
    local words= names=
    case "$path" in
`)
	eachCommand(root, func(path string, c *cli.Command) {
		if len(c.Subcommands) > 0 {
			fmt.Fprintf(w, "        \"%s\") words=\"%s\";;\n", path, strings.Join(append(subcommands(c), "--help"), " "))
			return
		}
		fmt.Fprintf(w, "        \"%s\") words=\"%s\"", path, strings.Join(append(fixedArguments(path), flagsOf(c)...), " "))
		if ask := askFor(path); ask != "" {
			fmt.Fprintf(w, "; [[ $cur == -* ]] || names=$(%s)", ask)
		}
		fmt.Fprint(w, ";;\n")
	})
	fmt.Fprint(w, `    esac
    COMPREPLY=($(compgen -W "$words $names" -- "$cur"))
}
complete -F _shoal shoal
`)
}

func zshCompletion(w io.Writer, root *cli.Command, flagsOf func(*cli.Command) []string) {
	fmt.Fprint(w, "#compdef shoal\nautoload -Uz bashcompinit && bashcompinit\n")
	bashCompletion(w, root, flagsOf)
}

func fishCompletion(w io.Writer, root *cli.Command, flagsOf func(*cli.Command) []string) {
	fmt.Fprint(w, `# fish completion for shoal
function __shoal_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l named (string match -v -- '-*' $words)
    test (count $named) -ge (count $argv); or return 1
    test (count $argv) -eq 0; and test (count $named) -gt 0; and return 1
    for i in (seq (count $argv))
        test "$named[$i]" = "$argv[$i]"; or return 1
    end
end
complete -c shoal -f
`)
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }
	eachCommand(root, func(path string, c *cli.Command) {
		at := strings.TrimSpace("__shoal_at " + path)
		for _, sub := range c.Subcommands {
			others := strings.Join(subcommands(c), " ")
			fmt.Fprintf(w, "complete -c shoal -n '%s; and not __fish_seen_subcommand_from %s' -a %s -d %s\n", at, others, sub.Name, quote(sub.Usage))
		}
		if len(c.Subcommands) > 0 {
			return
		}
		for _, name := range flagsOf(c) {
			fmt.Fprintf(w, "complete -c shoal -n '%s' -l %s\n", at, strings.TrimPrefix(name, "--"))
		}
		for _, word := range fixedArguments(path) {
			fmt.Fprintf(w, "complete -c shoal -n '%s' -a %s\n", at, word)
		}
		if ask := askFor(path); ask != "" {
			fmt.Fprintf(w, "complete -c shoal -n '%s' -a '(%s)'\n", at, ask)
		}
	})
}

func subcommands(c *cli.Command) []string {
	var names []string
	for _, sub := range c.Subcommands {
		names = append(names, sub.Name)
	}
	return names
}

func fixedArguments(path string) []string {
	switch path {
	case "swarm join-token":
		return []string{"worker", "manager"}
	case "completion":
		return []string{"bash", "zsh", "fish"}
	case "node inspect", "node ps":
		return []string{"self"}
	}
	return nil
}

// askFor is the command that lists what may stand as an argument.
func askFor(path string) string {
	switch path {
	case "service inspect", "service logs", "service ps", "service rm", "service rollback", "service scale", "service update":
		return `shoal service ls --format "{{.Name}}" 2>/dev/null`
	case "node demote", "node inspect", "node promote", "node ps", "node rm", "node update":
		return `shoal node ls --format "{{.Hostname}}" 2>/dev/null`
	case "secret inspect", "secret rm", "secret update":
		return `shoal secret ls --format "{{.Name}}" 2>/dev/null`
	case "config inspect", "config rm", "config update":
		return `shoal config ls --format "{{.Name}}" 2>/dev/null`
	}
	return ""
}

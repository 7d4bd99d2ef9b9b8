package overlay

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"shoal/internal/netkit"
)

// The engine lets the FORWARD chain drop what it does not know. Chains that it
// leaves to the user to open it for others; it creates the first one.
const (
	userChain    = "DOCKER-USER"
	forwardChain = "FORWARD"
	inputChain   = "INPUT"
)

// comment marks our rules for whoever lists them.
const comment = "shoal: decided in nftables table " + tableName

var (
	iptables  = firewall{"iptables", ours4}
	ip6tables = firewall{"ip6tables", func(chain string) []string {
		if chain == inputChain {
			return insideRules()
		}
		return nil
	}}
)

// acceptRules let an interface through, in the form iptables lists them. What
// may pass was decided before, in our own table.
func acceptRules(iface string) []string {
	tail := iface + ` -m comment --comment "` + comment + `" -j ACCEPT`
	return []string{"-i " + tail, "-o " + tail}
}

// nameRules let containers ask for names where the host's own firewall lets
// nothing in.
func nameRules() []string {
	var rules []string
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules, fmt.Sprintf(`-d %s/32 -i %s+ -p %s -m %s --dport %d -m comment --comment "%s" -j ACCEPT`,
			netkit.Gateway, netkit.IfacePrefix, proto, proto, netkit.NamesPort, comment))
	}
	return rules
}

// ours4 lists every rule of ours that a chain of IPv4 may have.
func ours4(chain string) []string {
	if chain == inputChain {
		return nameRules()
	}
	return slices.Concat(acceptRules(netkit.IfacePrefix+"+"), acceptRules(netkit.Tunnel), acceptRules(netkit.EncryptedTunnel))
}

// insideRules let the encrypted tunnel's packets in, which WireGuard has taken
// for another node's.
func insideRules() []string {
	return []string{`-i ` + netkit.WireGuard + ` -p udp -m comment --comment "` + comment + `" -j ACCEPT`}
}

// openTries is how often to look for the chain: it may go between the look and
// the insertion, when the engine or somebody else rewrites the rules.
const openTries = 3

// openForward puts our rules first in the engine's chain for users, or in
// FORWARD while the engine has none, and in INPUT. The iptables command is what
// the engine itself uses, so both mean the same tables, be they legacy or
// nftables.
func openForward(ctx context.Context, tunnel, encrypted bool) error {
	open := acceptRules(netkit.IfacePrefix + "+")
	if tunnel {
		open = append(open, acceptRules(netkit.Tunnel)...)
	}
	inside := chains{}
	if encrypted {
		open = append(open, acceptRules(netkit.EncryptedTunnel)...)
		inside[inputChain] = insideRules()
	}
	// Each is tried, whatever became of the other.
	err := iptables.set(ctx, func(listing []string) chains {
		chain := forwardChain
		if slices.Contains(listing, "-N "+userChain) {
			chain = userChain
		}
		return chains{chain: open, inputChain: nameRules()}
	})
	return errors.Join(err, setInside(ctx, inside))
}

// closeForward undoes openForward.
func closeForward(ctx context.Context) error {
	return errors.Join(iptables.set(ctx, func([]string) chains { return nil }), setInside(ctx, nil))
}

// setInside sees to the rules of IPv6, which matters to encrypted networks alone.
// A host that can not even list them, such as one without IPv6, has none of ours.
func setInside(ctx context.Context, want chains) error {
	err := ip6tables.set(ctx, func([]string) chains { return want })
	if len(want) == 0 && errors.Is(err, errNoListing) {
		return nil
	}
	return err
}

var errNoListing = errors.New("can not list the host's firewall rules")

// chains is the rules of ours in each chain.
type chains map[string][]string

// firewall is one of the commands that engine and users set rules with.
type firewall struct {
	command string
	ours    func(chain string) []string // every rule of ours that a chain may have
}

// set sees to it that each chain has the rules that choose gives it, once,
// and none of ours is anywhere else. As long as it is so, it only takes one
// listing to see that.
func (f firewall) set(ctx context.Context, choose func(listing []string) chains) error {
	if _, err := exec.LookPath(f.command); err != nil {
		return nil // then nothing on this host filters with it
	}
	var err error
	for range openTries {
		if err = f.try(ctx, choose); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (f firewall) try(ctx context.Context, choose func(listing []string) chains) error {
	out, err := f.run(ctx, "-S")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoListing, err)
	}
	listing := strings.Split(out, "\n")
	open := choose(listing)
	for _, chain := range []string{userChain, forwardChain, inputChain} {
		for _, rule := range f.ours(chain) {
			have, want := count(listing, "-A "+chain+" "+rule), 0
			if slices.Contains(open[chain], rule) {
				want = 1
			}
			for ; have < want; have++ {
				if _, err := f.run(ctx, append([]string{"-I", chain}, words(rule)...)...); err != nil {
					return fmt.Errorf("accept containers' traffic: %w", err)
				}
			}
			for ; have > want; have-- {
				if _, err := f.run(ctx, append([]string{"-D", chain}, words(rule)...)...); err != nil {
					return fmt.Errorf("remove an old rule: %w", err)
				}
			}
		}
	}
	return nil
}

func count(lines []string, line string) (n int) {
	for _, l := range lines {
		if strings.TrimSpace(l) == line {
			n++
		}
	}
	return n
}

// words splits a rule as a shell would: the comment is one word.
func words(rule string) []string {
	before, rest, _ := strings.Cut(rule, `"`)
	quoted, after, _ := strings.Cut(rest, `"`)
	return append(append(strings.Fields(before), quoted), strings.Fields(after)...)
}

// run runs the command, which waits for others that hold its lock.
func (f firewall) run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, f.command, append([]string{"-w", "5"}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %s", f.command, strings.Join(args, " "), strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

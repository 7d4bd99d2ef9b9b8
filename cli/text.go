package cli

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"shoal/cli/format"
)

// naturally orders names the way people count: web.2 before web.10.
func naturally(a, b string) int {
	for a != "" && b != "" {
		x, y := leadingDigits(a), leadingDigits(b)
		if x != "" && y != "" {
			m, n := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
			a, b = a[len(x):], b[len(y):]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// shorten cuts s to width runes, the last of which then is an ellipsis.
func shorten(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width-1]) + "…"
}

// ingressPorts shows what is published on every node, with neighbouring ports as one range.
func ingressPorts(ports []swarm.PortConfig) string {
	ports = slices.DeleteFunc(slices.Clone(ports), func(p swarm.PortConfig) bool { return p.PublishMode != swarm.PortConfigPublishModeIngress })
	slices.SortFunc(ports, func(a, b swarm.PortConfig) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.PublishedPort, b.PublishedPort), cmp.Compare(a.TargetPort, b.TargetPort))
	})
	var out []string
	for i := 0; i < len(ports); {
		first, last := ports[i], ports[i]
		for i++; i < len(ports); i++ {
			next := ports[i]
			if next.Protocol != last.Protocol || next.PublishedPort != last.PublishedPort+1 || next.TargetPort != last.TargetPort+1 {
				break
			}
			last = next
		}
		out = append(out, fmt.Sprintf("*:%s->%s/%s", span(first.PublishedPort, last.PublishedPort), span(first.TargetPort, last.TargetPort), first.Protocol))
	}
	return strings.Join(out, ", ")
}

func span(first, last uint32) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// parseUint reads a count of an argument, which Docker reads as decimal.
func parseUint(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errors.New("must be a whole number, 0 or more")
	}
	return n, nil
}

func title[S ~string](s S) string { return format.Title(string(s)) }

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

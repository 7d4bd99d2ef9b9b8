package overlay

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"shoal/internal/netkit"
)

// bridgeName is how engines name the bridges of their own networks.
var bridgeName = regexp.MustCompile(`^(docker0|docker_gwbridge|br-[0-9a-f]{12})$`)

// askTime bounds how long the engine is asked: it may hang.
const askTime = 2 * time.Second

// Engine has the overlay ask for the bridges of the engine that users gave other
// names. It comes before everything else.
func (o *Overlay) Engine(bridges func(context.Context) ([]string, error)) { o.ask = bridges }

// bridges lists the bridges that lead to containers of the engine. While it does
// not answer, those that it named last count.
func (o *Overlay) bridges(ctx context.Context) ([]string, error) {
	if o.ask != nil {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		if named, err := o.ask(ctx); err == nil {
			o.named = named
		} else {
			o.log.Debug("the engine does not tell its bridges", zap.Error(err))
		}
	}
	links, err := netkit.Dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []string
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() == "bridge" && (bridgeName.MatchString(name) || slices.Contains(o.named, name)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

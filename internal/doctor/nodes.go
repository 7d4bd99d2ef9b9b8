package doctor

import (
	"fmt"
	"strings"
	"time"
)

// maxNodes bounds how many nodes are named one by one.
const maxNodes = 10

// nodes judges what the managers know of all nodes; there are none on a worker.
func (f *findings) nodes(all []Node, now time.Time) {
	if len(all) == 0 {
		return
	}
	ready, named := 0, 0
	for _, n := range all {
		if n.Ready {
			ready++
		}
		var one findings
		one.node(n, now)
		if len(one) > 0 {
			if named++; named <= maxNodes {
				*f = append(*f, one...)
			}
		}
	}
	if named > maxNodes {
		f.warn(CheckNodes, fmt.Sprintf("%d more", named-maxNodes), "have something wrong as well", `see "shoal node ls"`)
	}
	if named == 0 {
		f.ok(CheckNodes, fmt.Sprintf("%d of %d nodes", ready, len(all)), "are Ready")
	}
}

func (f *findings) node(n Node, now time.Time) {
	const startEngine = `start the engine there ("systemctl start docker"); "shoal doctor" there says more`
	switch {
	case n.Left:
		f.warn(CheckNodes, n.Name, "has left the cluster and is still listed", fmt.Sprintf(`"shoal node rm %s" forgets it`, n.Name))
	case n.Down:
		text := "is Down"
		if !n.DownSince.IsZero() {
			text += " for " + span(now.Sub(n.DownSince))
		}
		if n.Message != "" {
			text += ": " + oneLine(n.Message)
		}
		forget := fmt.Sprintf(`"shoal node rm --force %s"`, n.Name)
		if n.Manager {
			forget = fmt.Sprintf(`"shoal node demote %s", then %s`, n.Name, forget)
		}
		todo := `see that the host is up and the daemon runs there ("systemctl status shoal"), and that it reaches the managers; if it is gone for good: ` + forget
		if n.NoEngine {
			todo = startEngine
		}
		f.fail(CheckNodes, n.Name, text, todo)
	case !n.Ready:
		f.warn(CheckNodes, n.Name, "is neither Ready nor Down: the leader has not heard from it yet", "run this again in a moment")
	case n.NoEngine:
		f.warn(CheckNodes, n.Name, "is given no tasks: "+oneLine(n.Message), startEngine)
	case len(n.HoldsUp) > 0:
		f.warn(CheckNodes, n.Name, fmt.Sprintf("is %s, and could run tasks that wait for a node: of %s", n.Closed, strings.Join(n.HoldsUp, ", ")),
			fmt.Sprintf(`"shoal node update --availability active %s", or see "shoal explain %s" for what keeps the others from it`, n.Name, n.HoldsUp[0]))
	case n.Staying > 0:
		f.warn(CheckNodes, n.Name, fmt.Sprintf("is drained, and %d of its tasks are not elsewhere yet", n.Staying),
			fmt.Sprintf(`they may be about to move: run this again; "shoal node ps %s" lists them, and "shoal explain SERVICE" says what keeps other nodes from one`, n.Name))
	}
}

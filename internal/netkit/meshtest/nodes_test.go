//go:build linux

package meshtest

import (
	"fmt"
	"testing"

	"shoal/internal/api"
)

// TestNodes goes through every way into a cluster: from each place, by each
// node, to a task on each node, and wants the task to see who it was.
func TestNodes(t *testing.T) {
	t.Run("plain", func(t *testing.T) { everyWay(t, ingress) })
	t.Run("encrypted", func(t *testing.T) {
		everyWay(t, func(n *api.Network) { ingress(n); encrypted(n) })
	})
}

func everyWay(t *testing.T, kind func(*api.Network)) {
	b := newBed(t, 3)
	b.network("ing", "10.0.0.0/24", kind)
	tasks := map[*node]*task{}
	for i, n := range b.nodes {
		name := fmt.Sprintf("web%d", i+1)
		tasks[n] = b.run(n, "ing", fmt.Sprintf("10.0.0.%d/24", 11+i), name)
		b.service(fmt.Sprintf("s%d", i+1), "ing", fmt.Sprintf("10.0.0.%d", 101+i), uint16(8081+i), name)
	}
	b.sync()
	for i, home := range b.nodes {
		port, name := 8081+i, fmt.Sprintf("web%d ", i+1)
		for _, proto := range []string{"tcp", "udp"} {
			for j, hit := range b.nodes {
				at := hit.at(port)
				t.Run(fmt.Sprintf("%s task on %s by %s", proto, home.id, hit.id), func(t *testing.T) {
					hit.want(b.client, proto, at, name+clientAddr)
					hit.want(hit.ns, proto, at, name+hit.addr.String())
					hit.want(hit.ns, proto, fmt.Sprintf("127.0.0.1:%d", port), name+hit.addr.String())
					for k, from := range b.nodes {
						// From a host to another's port, and from a task, which
						// outside its host is seen as its host.
						seen := from.addr.String()
						if from == home && from != hit {
							seen = hit.addr.String() // nobody hears from himself
						}
						if from != hit {
							hit.want(from.ns, proto, at, name+seen)
							hit.want(tasks[from], proto, at, name+seen)
							continue
						}
						own := fmt.Sprintf("10.0.0.%d", 11+k)
						if i == j {
							own = "169.254.1.1" // the task itself
						}
						hit.want(tasks[from], proto, at, name+own)
					}
					from := fmt.Sprintf("10.0.0.%d", 11+j)
					direct := fmt.Sprintf("10.0.0.%d:80", 11+i)
					if i == j {
						from = "169.254.1.1"
					} else {
						hit.want(tasks[hit], proto, direct, name+from)
					}
					hit.want(tasks[hit], proto, fmt.Sprintf("10.0.0.%d:80", 101+i), name+from)
				})
			}
		}
	}
}

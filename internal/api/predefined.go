package api

import "github.com/docker/docker/api/types/swarm"

// Predefined networks are those that every engine has by itself and that a service
// may ask for: Docker Swarm's two. They are no objects of the store; nobody makes,
// changes or removes them. A spec refers to them by ID, as to any network.

// HostNetwork and BridgeNetwork are the IDs of predefined networks.
const (
	HostNetwork   = "predefinednetworkhost0000"
	BridgeNetwork = "predefinednetworkbridge00"
)

// predefinedLabel is how Docker marks them.
const predefinedLabel = "com.docker.swarm.predefined"

// Predefined finds a predefined network by its ID or name.
func Predefined(ref string) (*Network, bool) {
	var id, name string
	switch ref {
	case HostNetwork, "host":
		id, name = HostNetwork, "host"
	case BridgeNetwork, "bridge":
		id, name = BridgeNetwork, "bridge"
	default:
		return nil, false
	}
	n := &Network{Meta: Meta{ID: id}}
	n.Spec = swarm.NetworkSpec{
		Annotations:         swarm.Annotations{Name: name, Labels: map[string]string{predefinedLabel: "true"}},
		DriverConfiguration: &swarm.Driver{Name: name},
		Scope:               "swarm",
	}
	return n, true
}

// PredefinedOf lists the predefined networks that a spec asks for.
func PredefinedOf(t *swarm.TaskSpec) (out []*Network) {
	for _, a := range t.Networks {
		if n, ok := Predefined(a.Target); ok {
			out = append(out, n)
		}
	}
	return out
}

package store

import (
	"encoding/json"
	"fmt"
	"strconv"

	"shoal/internal/api"
)

// Names of the indexes.
const (
	ByName    = "name"    // nodes (hostname), services, networks, registries (host); secrets and configs that are not retired
	ByVersion = "version" // secrets and configs: all that have or had a name
	ByService = "service" // tasks, revisions
	ByNode    = "node"    // tasks, guests
	ByPort    = "port"    // services: published ingress ports, see PortKey
	ByNetwork = "network" // tasks, guests: the networks they are attached to
)

// View is the whole state at one moment. It never changes, and holding one
// costs nothing but the memory of what has been replaced since.
type View struct {
	Index uint64 // raft index of the last entry in it

	Clusters  *Table[*api.Cluster]
	Nodes     *Table[*api.Node]
	Services  *Table[*api.Service]
	Revisions *Table[*api.Revision]
	Tasks     *Table[*api.Task]
	Networks  *Table[*api.Network]
	Guests    *Table[*api.Guest]
	Secrets   *Table[*api.File]
	Configs   *Table[*api.File]
	Pieces    *Table[*api.Piece]

	Registries *Table[*api.Registry]
}

// Files gives the table of secrets or of configs.
func (v *View) Files(kind api.Kind) *Table[*api.File] {
	if kind == api.KindSecret {
		return v.Secrets
	}
	return v.Configs
}

// RegistryAuth gives the cluster's credentials for the registry of an image; "" if
// it has none.
func (v *View) RegistryAuth(image string) string {
	r, ok := v.Registries.One(ByName, api.ImageHost(image))
	if !ok {
		return ""
	}
	return r.Auth
}

// PortKey is how the port index of services names an ingress port.
func PortKey(protocol string, published uint32) string {
	return protocol + "/" + strconv.FormatUint(uint64(published), 10)
}

func newView() *View {
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	files := func(kind api.Kind) *Table[*api.File] {
		return newTable(kind,
			Index[*api.File]{Name: ByName, Unique: true, Keys: func(f *api.File) []string {
				if f.Retired {
					return nil
				}
				return one(f.Spec.Name)
			}},
			Index[*api.File]{Name: ByVersion, Keys: func(f *api.File) []string { return one(f.Spec.Name) }})
	}
	return &View{
		Clusters: newTable[*api.Cluster](api.KindCluster),
		Nodes: newTable(api.KindNode,
			Index[*api.Node]{Name: ByName, Keys: func(n *api.Node) []string { return one(n.Description.Hostname) }}),
		Services: newTable(api.KindService,
			Index[*api.Service]{Name: ByName, Unique: true, Keys: func(s *api.Service) []string { return one(s.Spec.Name) }},
			Index[*api.Service]{Name: ByPort, Unique: true, Keys: ingressPorts}),
		Revisions: newTable(api.KindRevision,
			Index[*api.Revision]{Name: ByService, Keys: func(r *api.Revision) []string { return one(r.ServiceID) }}),
		Tasks: newTable(api.KindTask,
			Index[*api.Task]{Name: ByService, Keys: func(t *api.Task) []string { return one(t.ServiceID) }},
			Index[*api.Task]{Name: ByNode, Keys: func(t *api.Task) []string { return one(t.NodeID) }},
			Index[*api.Task]{Name: ByNetwork, Keys: taskNetworks}),
		Guests: newTable(api.KindGuest,
			Index[*api.Guest]{Name: ByNode, Keys: func(g *api.Guest) []string { return one(g.NodeID) }},
			Index[*api.Guest]{Name: ByNetwork, Keys: func(g *api.Guest) []string { return one(g.NetworkID) }}),
		Networks: newTable(api.KindNetwork,
			Index[*api.Network]{Name: ByName, Unique: true, Keys: func(n *api.Network) []string { return one(n.Spec.Name) }}),
		Secrets: files(api.KindSecret),
		Configs: files(api.KindConfig),
		Pieces:  newTable[*api.Piece](api.KindPiece),
		Registries: newTable(api.KindRegistry,
			Index[*api.Registry]{Name: ByName, Unique: true, Keys: func(r *api.Registry) []string { return one(r.Host) }}),
	}
}

func ingressPorts(s *api.Service) []string {
	var keys []string
	for _, p := range s.Endpoint.Ports {
		if p.PublishMode != "host" && p.PublishedPort != 0 {
			keys = append(keys, PortKey(string(p.Protocol), p.PublishedPort))
		}
	}
	return keys
}

func taskNetworks(t *api.Task) []string {
	var keys []string
	for _, n := range t.Networks {
		keys = append(keys, n.NetworkID)
	}
	return keys
}

// Cluster gives the one cluster object, or nil before there is one.
func (v *View) Cluster() *api.Cluster {
	for c := range v.Clusters.All() {
		return c
	}
	return nil
}

// Ingress gives the ingress network, or nil if there is none.
func (v *View) Ingress() *api.Network {
	for n := range v.Networks.All() {
		if n.Spec.Ingress {
			return n
		}
	}
	return nil
}

func (v *View) copy() *View {
	return &View{
		Index:     v.Index,
		Clusters:  v.Clusters.copy(),
		Nodes:     v.Nodes.copy(),
		Services:  v.Services.copy(),
		Revisions: v.Revisions.copy(),
		Tasks:     v.Tasks.copy(),
		Networks:  v.Networks.copy(),
		Guests:    v.Guests.copy(),
		Secrets:   v.Secrets.copy(),
		Configs:   v.Configs.copy(),
		Pieces:    v.Pieces.copy(),

		Registries: v.Registries.copy(),
	}
}

// anyTable is a table when only the kind of its objects is known at run time.
type anyTable interface {
	get(id string) (api.Object, bool)
	putAny(o api.Object) error
	decode(raw json.RawMessage) (api.Object, error)
	remove(id string)
	each(f func(api.Object) error) error
}

// tables lists all tables, in the order that a snapshot writes them.
func (v *View) tables() []anyTable {
	return []anyTable{
		face(v.Clusters), face(v.Nodes), face(v.Services),
		face(v.Revisions), face(v.Tasks), face(v.Networks),
		face(v.Secrets), face(v.Configs), face(v.Pieces), face(v.Registries), face(v.Guests),
	}
}

func (v *View) table(kind api.Kind) (anyTable, error) {
	switch kind {
	case api.KindCluster:
		return face(v.Clusters), nil
	case api.KindNode:
		return face(v.Nodes), nil
	case api.KindService:
		return face(v.Services), nil
	case api.KindRevision:
		return face(v.Revisions), nil
	case api.KindTask:
		return face(v.Tasks), nil
	case api.KindNetwork:
		return face(v.Networks), nil
	case api.KindGuest:
		return face(v.Guests), nil
	case api.KindSecret:
		return face(v.Secrets), nil
	case api.KindConfig:
		return face(v.Configs), nil
	case api.KindPiece:
		return face(v.Pieces), nil
	case api.KindRegistry:
		return face(v.Registries), nil
	}
	return nil, fmt.Errorf("unknown kind of object %q: this data was written by a newer version of shoal", kind)
}

// typed gives a table its anyTable face. E is the struct behind T.
type typed[E any, T interface {
	*E
	api.Object
}] struct{ *Table[T] }

func face[E any, T interface {
	*E
	api.Object
}](t *Table[T]) anyTable {
	return typed[E, T]{t}
}

func (t typed[E, T]) get(id string) (api.Object, bool) {
	o, ok := t.Get(id)
	if !ok {
		return nil, false // not o: a nil pointer in an interface is not nil
	}
	return o, true
}

func (t typed[E, T]) putAny(o api.Object) error {
	typed, ok := o.(T)
	if !ok {
		return fmt.Errorf("a %s does not go into the table of %s objects", o.Kind(), t.kind)
	}
	return t.put(typed)
}

func (t typed[E, T]) decode(raw json.RawMessage) (api.Object, error) {
	o := T(new(E))
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, fmt.Errorf("decode %s: %w", t.kind, err)
	}
	return o, nil
}

func (t typed[E, T]) each(f func(api.Object) error) error {
	for o := range t.All() {
		if err := f(o); err != nil {
			return err
		}
	}
	return nil
}

package compose

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
)

// Labels that docker stack deploy puts on what belongs to a stack.
const (
	LabelNamespace = api.StackLabel
	// LabelImage keeps the image as the file names it, for the one in the spec is pinned to a digest.
	LabelImage = "com.docker.stack.image"
)

// Stack is everything that a project asks of a cluster. References to other objects are by name: only the cluster
// knows their IDs.
type Stack struct {
	Name     string
	Networks []Network
	// External are the networks that must exist already.
	External []string
	Secrets  []swarm.SecretSpec
	Configs  []swarm.ConfigSpec
	// Services are in the order of their names.
	Services []Service
}

// Network is a network of the stack.
type Network struct {
	Name    string
	Options network.CreateOptions
}

// Service is a service of the stack. Key is what the file calls it.
type Service struct {
	Key  string
	Spec swarm.ServiceSpec
	// After is what has to be so far before this service is created or updated.
	After []Dependency
}

// Condition is how far a service has to be for those that depend on it.
type Condition string

// The conditions of depends_on.
const (
	Started   Condition = types.ServiceConditionStarted
	Healthy   Condition = types.ServiceConditionHealthy
	Completed Condition = types.ServiceConditionCompletedSuccessfully
	// Applied is no more than order: see Precede.
	Applied Condition = "applied"
)

// Dependency is one entry of depends_on. Key is the service that has to be there first.
type Dependency struct {
	Key       string
	Condition Condition
	// Optional dependencies only order: that they do not get so far does not keep back the service.
	Optional bool
}

// ValidName reports whether a stack may have a name.
func ValidName(name string) bool {
	return strings.Trim(name, "'\" \t\n") != "" && !strings.ContainsAny(name, "'\" \t\n")
}

// scope is what something is called outside of its stack.
func scope(stack, name string) string { return stack + "_" + name }

// labelled adds the stack's label.
func labelled(stack string, labels map[string]string) map[string]string {
	all := maps.Clone(labels)
	if all == nil {
		all = map[string]string{}
	}
	all[LabelNamespace] = stack
	return all
}

// converter carries what the conversion of a part needs to know of the whole.
type converter struct {
	*Project
	stack string
}

// Stack is what the project asks for under a name. All that is wrong is told at
// once, a line each: a file is mended in one go.
func (p *Project) Stack(name string) (*Stack, error) {
	c := converter{p, name}
	out := &Stack{Name: name}
	var wrong []error
	used := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(p.model.Services)) {
		service, err := c.service(key, p.model.Services[key])
		wrong = append(wrong, err)
		out.Services = append(out.Services, service)
		for network := range networksOf(p.model.Services[key]) {
			used[network] = true
		}
	}
	if len(out.Services) == 0 {
		return nil, fmt.Errorf("no service to deploy")
	}
	_, circle := out.Order()
	out.Networks, out.External = c.networks(used)
	var noSecrets, noConfigs error
	out.Secrets, noSecrets = c.secrets()
	out.Configs, noConfigs = c.configs()
	if err := errors.Join(append(wrong, circle, noSecrets, noConfigs)...); err != nil {
		return nil, err
	}
	return out, nil
}

// Order is an order in which every service comes after those that it depends on, and otherwise by name.
func (s *Stack) Order() ([]Service, error) {
	byKey := map[string]Service{}
	for _, service := range s.Services {
		byKey[service.Key] = service
	}
	const open, done = 1, 2
	state := map[string]int{}
	var order []Service
	var add func(key string, path []string) error
	add = func(key string, path []string) error {
		service, ok := byKey[key]
		switch {
		case !ok || state[key] == done:
			return nil
		case state[key] == open:
			return fmt.Errorf("services depend on each other in a circle: %s", strings.Join(append(path, key), " > "))
		}
		state[key] = open
		for _, d := range service.After {
			if err := add(d.Key, append(path, key)); err != nil {
				return err
			}
		}
		state[key] = done
		order = append(order, service)
		return nil
	}
	for _, service := range s.Services {
		if err := add(service.Key, nil); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// Has tells whether the stack has a service of a name.
func (s *Stack) Has(name string) bool {
	return slices.ContainsFunc(s.Services, func(s Service) bool { return s.Spec.Name == name })
}

// Precede has one service applied before another, unless it comes after that itself.
func (s *Stack) Precede(first, then string) {
	i := slices.IndexFunc(s.Services, func(s Service) bool { return s.Key == then })
	if i < 0 || first == then {
		return
	}
	was := s.Services[i].After
	s.Services[i].After = append(slices.Clip(was), Dependency{Key: first, Condition: Applied})
	if _, err := s.Order(); err != nil {
		s.Services[i].After = was
	}
}

// networks are those that services use. One that the file does not describe is the stack's default network.
func (c converter) networks(used map[string]bool) (own []Network, external []string) {
	for _, key := range slices.Sorted(maps.Keys(used)) {
		n := c.model.Networks[key]
		name := c.networkName(key)
		if n.External {
			external = append(external, name)
			continue
		}
		o := network.CreateOptions{
			Driver: n.Driver, Options: n.DriverOpts, Internal: n.Internal, Attachable: n.Attachable,
			EnableIPv6: n.EnableIPv6, Labels: labelled(c.stack, n.Labels),
		}
		if o.Driver == "" {
			o.Driver = "overlay"
		}
		if n.Ipam.Driver != "" || len(n.Ipam.Config) > 0 || len(n.Ipam.Options) > 0 {
			o.IPAM = &network.IPAM{Driver: n.Ipam.Driver, Options: n.Ipam.Options}
		}
		for _, pool := range n.Ipam.Config {
			o.IPAM.Config = append(o.IPAM.Config, network.IPAMConfig{
				Subnet: pool.Subnet, Gateway: pool.Gateway, IPRange: pool.IPRange, AuxAddress: pool.AuxiliaryAddresses,
			})
		}
		own = append(own, Network{name, o})
	}
	return own, external
}

// networkName is what the cluster calls a network of the file.
func (c converter) networkName(key string) string {
	n := c.model.Networks[key]
	switch {
	case n.Name != "":
		return n.Name
	case bool(n.External):
		return key
	}
	return scope(c.stack, key)
}

// networksOf are the networks of a service, by what the file calls them.
func networksOf(s types.ServiceConfig) map[string]*types.ServiceNetworkConfig {
	if len(s.Networks) == 0 {
		return map[string]*types.ServiceNetworkConfig{"default": nil}
	}
	return s.Networks
}

func (c converter) secrets() (list []swarm.SecretSpec, wrong error) {
	for _, key := range slices.Sorted(maps.Keys(c.model.Secrets)) {
		object := types.FileObjectConfig(c.model.Secrets[key])
		if object.External {
			continue
		}
		spec := swarm.SecretSpec{
			Annotations: swarm.Annotations{Name: c.objectName(key, object), Labels: labelled(c.stack, object.Labels)},
			Templating:  templating(object),
		}
		if object.Driver != "" {
			spec.Driver = &swarm.Driver{Name: object.Driver, Options: object.DriverOpts}
		} else {
			var err error
			spec.Data, err = c.data("secrets."+key, object)
			wrong = errors.Join(wrong, err)
		}
		list = append(list, spec)
	}
	return list, wrong
}

func (c converter) configs() (list []swarm.ConfigSpec, wrong error) {
	for _, key := range slices.Sorted(maps.Keys(c.model.Configs)) {
		object := types.FileObjectConfig(c.model.Configs[key])
		if object.External {
			continue
		}
		spec := swarm.ConfigSpec{
			Annotations: swarm.Annotations{Name: c.objectName(key, object), Labels: labelled(c.stack, object.Labels)},
			Templating:  templating(object),
		}
		var err error
		spec.Data, err = c.data("configs."+key, object)
		wrong = errors.Join(wrong, err)
		list = append(list, spec)
	}
	return list, wrong
}

func templating(o types.FileObjectConfig) *swarm.Driver {
	if o.TemplateDriver == "" {
		return nil
	}
	return &swarm.Driver{Name: o.TemplateDriver}
}

// objectName is what the cluster calls a secret or a config of the file.
func (c converter) objectName(key string, o types.FileObjectConfig) string {
	switch {
	case o.Name != "":
		return o.Name
	case bool(o.External):
		return key
	}
	return scope(c.stack, key)
}

// data is what a secret or config holds.
func (c converter) data(path string, o types.FileObjectConfig) ([]byte, error) {
	switch {
	case o.File != "":
		data, err := os.ReadFile(o.File)
		if err != nil {
			return nil, c.checker.errorAt(path+".file", "%v", err)
		}
		return data, nil
	case o.Environment != "":
		value, ok := c.env[o.Environment]
		if !ok {
			return nil, c.checker.errorAt(path+".environment", "the variable %s is not set", o.Environment)
		}
		return []byte(value), nil
	}
	return []byte(o.Content), nil
}

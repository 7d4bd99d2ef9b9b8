package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/control"
)

// who says who may call an endpoint. The zero value lets nobody in.
type who int

const (
	anybody who = iota + 1
	administrators
	owners // administrators on the machine itself
)

// where says which nodes an endpoint works on. The zero value is none.
type where int

const (
	anyNode where = iota + 1
	managers
	managersNear // by the one that was asked, where the answer goes on for long
	managersLive // as managers, and its body is a stream that goes on during the answer
)

// route is one endpoint. Its literals name no fields, so that one without a
// rule does not compile.
type route struct {
	method  string
	pattern string // {name} stands for one segment of the path, {name...} for the rest
	who     who
	where   where
	serve   func(w http.ResponseWriter, r *request) error
}

// request is a request with what dispatch found out about it.
type request struct {
	*http.Request
	version  version
	explicit bool // the path named the version
	vars     map[string]string
	control  *control.Control // set where the route is for managers
}

// table lists all endpoints that are ours.
func (s *server) table() []route {
	return []route{
		{"GET", "/_ping", anybody, anyNode, s.ping},
		{"HEAD", "/_ping", anybody, anyNode, s.ping},
		{"GET", "/version", administrators, anyNode, s.getVersion},
		{"GET", "/info", administrators, anyNode, s.getInfo},
		{"GET", "/events", administrators, anyNode, s.getEvents},
		{"GET", "/distribution/{name...}", administrators, anyNode, s.distribution},

		{"POST", "/swarm/init", administrators, anyNode, s.swarmInit},
		{"POST", "/swarm/join", administrators, anyNode, s.swarmJoin},
		{"POST", "/swarm/leave", administrators, anyNode, s.swarmLeave},
		{"POST", "/swarm/unlock", administrators, anyNode, s.swarmUnlock},
		{"GET", "/swarm", administrators, managers, s.swarmInspect},
		{"POST", "/swarm/update", administrators, managers, s.swarmUpdate},
		{"GET", "/swarm/unlockkey", administrators, managers, s.swarmUnlockKey},

		{"GET", "/nodes", administrators, managers, s.nodeList},
		{"GET", "/nodes/{id}", administrators, managers, s.nodeInspect},
		{"POST", "/nodes/{id}/update", administrators, managers, s.nodeUpdate},
		{"DELETE", "/nodes/{id}", administrators, managers, s.nodeRemove},

		{"GET", "/services", administrators, managers, s.serviceList},
		{"POST", "/services/create", administrators, managers, s.serviceCreate},
		{"GET", "/services/{id}", administrators, managers, s.serviceInspect},
		{"POST", "/services/{id}/update", administrators, managers, s.serviceUpdate},
		{"DELETE", "/services/{id}", administrators, managers, s.serviceRemove},
		{"GET", "/services/{id}/logs", administrators, managersNear, s.serviceLogs},

		{"GET", "/tasks", administrators, managers, s.taskList},
		{"GET", "/tasks/{id}", administrators, managers, s.taskInspect},
		{"GET", "/tasks/{id}/logs", administrators, managersNear, s.taskLogs},

		{"GET", "/secrets", administrators, managers, s.secretList},
		{"POST", "/secrets/create", administrators, managers, s.secretCreate},
		{"GET", "/secrets/{id}", administrators, managers, s.secretInspect},
		{"POST", "/secrets/{id}/update", administrators, managers, s.fileUpdate(api.KindSecret)},
		{"DELETE", "/secrets/{id}", administrators, managers, s.fileRemove(api.KindSecret)},

		{"GET", "/configs", administrators, managers, s.configList},
		{"POST", "/configs/create", administrators, managers, s.configCreate},
		{"GET", "/configs/{id}", administrators, managers, s.configInspect},
		{"POST", "/configs/{id}/update", administrators, managers, s.fileUpdate(api.KindConfig)},
		{"DELETE", "/configs/{id}", administrators, managers, s.fileRemove(api.KindConfig)},

		{"POST", "/shoal/secrets/{id}/replace", administrators, managers, s.fileReplace(api.KindSecret)},
		{"POST", "/shoal/configs/{id}/replace", administrators, managers, s.fileReplace(api.KindConfig)},
		{"GET", "/shoal/registries", administrators, managers, s.registryList},
		{"POST", "/shoal/registries", administrators, managers, s.registryLogin},
		{"DELETE", "/shoal/registries/{host}", administrators, managers, s.registryLogout},
		{"POST", "/shoal/client-cert", owners, managers, s.clientCert},
		{"GET", "/shoal/doctor", administrators, anyNode, s.diagnose},
		{"GET", "/shoal/explain/{ref}", administrators, managers, s.explain},
		{"GET", "/shoal/rebalance", administrators, managers, s.moving},
		{"POST", "/shoal/rebalance", administrators, managers, s.rebalance},
		{"POST", "/shoal/networks/rotate-keys", administrators, managers, s.rotateKeys},
		{"GET", "/shoal/services/{id}/history", administrators, managers, s.serviceHistory},
		{"POST", "/shoal/services/{id}/rollback", administrators, managers, s.serviceRollback},
		{"GET", "/shoal/tasks/{id}/output", administrators, managers, s.taskOutput},
		{"POST", "/shoal/tasks/{id}/exec", administrators, managersLive, s.taskExec},
		{"POST", "/shoal/preview", administrators, managers, s.preview},
		{"GET", "/shoal/stacks/{name}", administrators, managers, s.stackIndex},

		// The engine must never hear of these: it would make a swarm of its own.
		{"", "/swarm/{rest...}", administrators, anyNode, pageNotFound},
		{"", "/nodes/{rest...}", administrators, anyNode, pageNotFound},
		{"", "/services/{rest...}", administrators, anyNode, pageNotFound},
		{"", "/tasks/{rest...}", administrators, anyNode, pageNotFound},
		{"", "/secrets/{rest...}", administrators, anyNode, pageNotFound},
		{"", "/configs/{rest...}", administrators, anyNode, pageNotFound},

		// The cluster's part in lists that the engine has a part in, too.
		{"GET", "/shoal/networks", administrators, managers, s.clusterNetworkList},
		{"GET", "/shoal/networks/{id}", administrators, managers, s.clusterNetworkInspect},
		{"POST", "/shoal/networks/create", administrators, managers, s.clusterNetworkCreate},
		{"POST", "/shoal/networks/prune", administrators, managers, s.clusterNetworkPrune},
		{"DELETE", "/shoal/networks/{id}", administrators, managers, s.clusterNetworkRemove},

		{"", "/shoal/{rest...}", administrators, anyNode, pageNotFound},

		{"GET", "/networks", administrators, anyNode, s.networkList},
		{"GET", "/networks/{id}", administrators, anyNode, s.networkInspect},
		{"POST", "/networks/create", administrators, anyNode, s.networkCreate},
		{"POST", "/volumes/create", administrators, anyNode, s.volumeCreate},
		{"PUT", "/volumes/{name}", administrators, anyNode, s.refuse("cluster volumes are")},
		{"POST", "/networks/prune", administrators, anyNode, s.networkPrune},
		{"DELETE", "/networks/{id}", administrators, anyNode, s.networkRemove},
		{"POST", "/networks/{id}/connect", administrators, anyNode, s.networkConnect},
		{"POST", "/networks/{id}/disconnect", administrators, anyNode, s.networkDisconnect},
		{"GET", "/containers/json", administrators, anyNode, s.containerList},
		{"POST", "/containers/create", administrators, anyNode, s.containerCreate},
		{"", "/{rest...}", administrators, anyNode, s.passToEngine},
	}
}

func (r *route) check() error {
	if r.who == 0 || r.where == 0 || r.serve == nil {
		return fmt.Errorf("route %s %s: no rule says who may call it, and where", r.method, r.pattern)
	}
	return nil
}

// match compares segment by segment. A pattern of a method "" takes all.
func (r *route) match(method string, segments []string) (map[string]string, bool) {
	if r.method != "" && r.method != method {
		return nil, false
	}
	vars := map[string]string{}
	want := strings.Split(r.pattern[1:], "/")
	for i, w := range want {
		name, variable := strings.CutPrefix(w, "{")
		name, rest := strings.CutSuffix(strings.TrimSuffix(name, "}"), "...")
		switch {
		case rest:
			return vars, true
		case i >= len(segments):
			return nil, false
		case variable && segments[i] != "":
			vars[name] = segments[i]
		case variable, w != segments[i]:
			return nil, false
		}
	}
	return vars, len(want) == len(segments)
}

// dispatch finds the endpoint and holds the request against its rule. It looks
// at the path as the engine would, decoded: /swarm%2Finit is /swarm/init.
func (s *server) dispatch(w http.ResponseWriter, hr *http.Request) error {
	r := &request{Request: hr}
	var path string
	r.version, path, r.explicit = splitVersion(hr.URL.Path)
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, segment := range segments {
		if segment == "." || segment == ".." || segment == "" && i < len(segments)-1 {
			return pageNotFound(w, r) // the engine would read it as another path
		}
	}
	for i := range s.routes {
		route := &s.routes[i]
		vars, ok := route.match(hr.Method, segments)
		if !ok {
			continue
		}
		if route.where == managersLive {
			if err := duplex(w); err != nil {
				return err
			}
		}
		if err := s.admit(route, r); err != nil {
			return err
		}
		r.vars = vars
		switch route.where {
		case managers:
			return s.byLeader(w, r, route)
		case managersNear:
			return s.near(w, r, route)
		case managersLive:
			return s.carry(w, r, route)
		}
		return route.serve(w, r)
	}
	return pageNotFound(w, r)
}

// admits tells who may use an endpoint.
func (r *route) admits(c caller) error {
	switch {
	case r.who == anybody, c == administrator, c == forwarded && r.where != anyNode, c == remote && r.who == administrators:
		return nil
	case c == remote:
		return errdefs.ErrPermissionDenied.WithMessage("this works on the machine of a manager alone, not over the network")
	}
	return errdefs.ErrPermissionDenied.WithMessage("this connection is not allowed to use the API")
}

func (s *server) admit(route *route, r *request) error {
	if err := route.admits(callerOf(r.Context())); err != nil {
		return err
	}
	if err := r.version.check(); err != nil {
		return err
	}
	if route.where == anyNode {
		return nil
	}
	if r.control = s.node.Control(); r.control != nil {
		return nil
	}
	if st := s.node.Status(); st.State != swarm.LocalNodeStateActive || !st.ControlAvailable {
		return notManager(st)
	}
	return nil
}

// Texts that clients and their users look for: Docker's, to the letter. The
// command line says them with the commands that are its own.
const (
	msgNoSwarm     = `This node is not part of a swarm`
	msgSwarmExists = `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`
	msgNotManager  = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	msgWorker      = `This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.`
	msgNotReady    = `This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.`
	msgLocked      = `Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`
)

func notManager(st NodeStatus) error {
	switch {
	case st.State == swarm.LocalNodeStateLocked:
		return unavailable(msgLocked)
	case st.State == swarm.LocalNodeStateInactive || st.State == "":
		return unavailable(msgNotManager)
	case st.State == swarm.LocalNodeStateError && st.Err != "":
		return unavailable("%s", st.Err)
	case st.ControlAvailable || st.State == swarm.LocalNodeStatePending:
		return unavailable(msgNotReady)
	}
	return unavailable(msgWorker)
}

func pageNotFound(http.ResponseWriter, *request) error {
	return errdefs.ErrNotFound.WithMessage("page not found")
}

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
)

func (s *server) swarmInit(w http.ResponseWriter, r *request) error {
	var req swarm.InitRequest
	if err := readJSON(w, r.Request, &req); err != nil {
		return err
	}
	if err := checkListenAddr(req.ListenAddr); err != nil {
		return err
	}
	if req.Spec.Name != "" && req.Spec.Name != "default" {
		return invalid(`swarm spec must be named "default"`)
	}
	if s.inSwarm() && !req.ForceNewCluster {
		return unavailable(msgSwarmExists)
	}
	id, err := s.node.Init(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, id)
}

func (s *server) swarmJoin(w http.ResponseWriter, r *request) error {
	var req swarm.JoinRequest
	if err := readJSON(w, r.Request, &req); err != nil {
		return err
	}
	if s.inSwarm() { // whatever else may be wrong with it
		return unavailable(msgSwarmExists)
	}
	if err := checkListenAddr(req.ListenAddr); err != nil {
		return err
	}
	if len(req.RemoteAddrs) == 0 {
		return invalid("at least 1 RemoteAddr is required to join")
	}
	return s.node.Join(r.Context(), req)
}

func checkListenAddr(addr string) error {
	if addr == "" {
		return invalid("invalid ListenAddr %q: invalid empty address", addr)
	}
	return nil
}

func (s *server) inSwarm() bool {
	state := s.node.Status().State
	return state != swarm.LocalNodeStateInactive && state != ""
}

func (s *server) swarmLeave(_ http.ResponseWriter, r *request) error {
	force, err := r.flag("force")
	if err != nil {
		return err
	}
	if !s.inSwarm() {
		return unavailable(msgNoSwarm)
	}
	if st := s.node.Status(); st.State == swarm.LocalNodeStateLocked && !force {
		return notManager(st)
	}
	return s.node.Leave(r.Context(), force)
}

func (s *server) swarmUnlock(w http.ResponseWriter, r *request) error {
	var req swarm.UnlockRequest
	if err := readJSON(w, r.Request, &req); err != nil {
		return err
	}
	st := s.node.Status()
	if st.State == swarm.LocalNodeStateActive && st.ControlAvailable {
		return errdefs.ErrConflict.WithMessage("swarm is not locked")
	}
	if st.State != swarm.LocalNodeStateLocked {
		return notManager(st)
	}
	return s.node.Unlock(r.Context(), req)
}

func (s *server) swarmInspect(w http.ResponseWriter, r *request) error {
	cl, err := r.control.Cluster()
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, cl)
}

func (s *server) swarmUpdate(w http.ResponseWriter, r *request) error {
	var spec swarm.Spec
	if err := readJSON(w, r.Request, &spec); err != nil {
		return err
	}
	version, err := r.objectVersion("swarm")
	if err != nil {
		return err
	}
	var flags swarm.UpdateFlags
	for name, into := range map[string]*bool{
		"rotateWorkerToken":      &flags.RotateWorkerToken,
		"rotateManagerToken":     &flags.RotateManagerToken,
		"rotateManagerUnlockKey": &flags.RotateManagerUnlockKey,
	} {
		if *into, err = r.strictFlag(name); err != nil {
			return err
		}
	}
	return r.control.UpdateCluster(r.Context(), version, spec, flags)
}

func (s *server) swarmUnlockKey(w http.ResponseWriter, r *request) error {
	keys, err := r.control.UnlockKey()
	if err != nil {
		return err
	}
	if err := writeJSON(w, http.StatusOK, keys); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	// A new key comes into force now that it has left for whoever asked, who may
	// be gone already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), keyTime)
	defer cancel()
	return r.control.UnlockKeyShown(ctx, keys.UnlockKey)
}

// keyTime bounds how long an unlock key takes to come into force.
const keyTime = 10 * time.Second

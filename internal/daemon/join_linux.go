package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/swarm"
	"go.uber.org/zap"

	"shoal/cluster"
	"shoal/cluster/ca"
	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/httpapi"
)

// Join makes this machine a node of a cluster that exists.
func (n *node) Join(ctx context.Context, req swarm.JoinRequest) error {
	n.life.Lock()
	defer n.life.Unlock()
	if n.current() != nil {
		return errAlreadyIn
	}
	token, err := ca.ParseToken(req.JoinToken)
	if err != nil {
		return err
	}
	if len(req.RemoteAddrs) == 0 {
		return invalid("at least one RemoteAddr is required to join")
	}
	for i, a := range req.RemoteAddrs {
		req.RemoteAddrs[i] = withPort(a)
	}
	desc, err := n.engine.Describe(ctx)
	if err != nil {
		return err
	}
	id, err := joinAddresses(req)
	if err != nil {
		return err
	}
	if err := portFree(id.ListenAddr); err != nil {
		return err // before the managers know of a node that could never listen
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return err
	}
	adm, err := apply(ctx, req.RemoteAddrs, token, control.Applicant{
		Token: req.JoinToken, Request: csr, Addr: id.AdvertiseAddr, DataPath: id.DataPathAddr,
		Availability: req.Availability, Description: desc,
	})
	if err != nil {
		return err
	}
	id.NodeID, id.ClusterID, id.DataPathPort, id.Managers = adm.NodeID, adm.ClusterID, adm.DataPathPort, adm.Managers
	id.Joining = adm.Role == swarm.NodeRoleManager
	bundle := ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key}
	r, err := n.create(id, bundle, adm.Lock, cluster.Join)
	if err != nil {
		return errors.Join(err, n.abandon())
	}
	if err := r.remember(); err != nil {
		return errors.Join(err, n.abandon())
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = r.await(ctx, "hear from the managers", r.welcomed)
	select {
	case <-r.done: // it does not go on by itself
		return errors.Join(r.err, n.abandon())
	default:
	}
	n.rely(r)
	if err != nil {
		return errdefs.ErrUnavailable.WithMessage(`Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.`)
	}
	return nil
}

// withPort gives a manager's address the usual port, if it names none.
func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	_, port, _ := net.SplitHostPort(cluster.DefaultListenAddr)
	return net.JoinHostPort(strings.Trim(addr, "[]"), port)
}

var errAlreadyIn = errdefs.ErrUnavailable.WithMessage(`This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`)

// joinAddresses are this node's own. Where several could be meant, the one that
// the kernel takes to reach the manager is what the manager can answer.
func joinAddresses(req swarm.JoinRequest) (identity, error) {
	system, err := systemAddresses()
	if err != nil {
		return identity{}, err
	}
	if req.AdvertiseAddr == "" {
		conn, err := net.Dial("udp", req.RemoteAddrs[0]) // sends nothing
		if err != nil {
			return identity{}, invalid("remote address %q: %v", req.RemoteAddrs[0], err)
		}
		req.AdvertiseAddr = conn.LocalAddr().(*net.UDPAddr).IP.String()
		if err := conn.Close(); err != nil {
			return identity{}, err
		}
	}
	return addresses(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr, system)
}

// apply asks the managers to be let in. One that does not lead names the leader.
func apply(ctx context.Context, remotes []string, token ca.Token, a control.Applicant) (*control.Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var errs []error
	asked := map[string]bool{}
	for len(remotes) > 0 {
		addr := remotes[0]
		remotes = remotes[1:]
		if asked[addr] {
			continue
		}
		asked[addr] = true
		t := cluster.NewTransport(func(ctx context.Context) (conn *tls.Conn, err error) {
			conn, _, err = cluster.DialJoin(ctx, addr, token)
			return conn, err
		})
		var adm control.Admission
		err := ask(ctx, t, http.MethodPost, "https://"+addr+pathJoin, a, &adm)
		t.CloseIdleConnections()
		if err == nil {
			return &adm, nil
		}
		var moved *notLeader
		if errors.As(err, &moved) {
			remotes = append([]string{moved.addr}, remotes...)
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
	}
	err := errors.Join(errs...)
	if errdefs.IsPermissionDenied(err) || errdefs.IsInvalidArgument(err) || errdefs.IsUnauthorized(err) {
		return nil, err
	}
	return nil, fmt.Errorf("no manager let this node in: %w: %w", err, errdefs.ErrUnavailable)
}

// welcomed is a condition for await: the managers have told this node its state.
func (m *member) welcomed() (bool, <-chan struct{}) {
	select {
	case <-m.heard:
		return true, nil
	default:
		return false, m.heard
	}
}

// changeRole gives the node a certificate for another role and starts it again
// in that. Containers and the mesh are not touched.
func (n *node) changeRole(ctx context.Context, role swarm.NodeRole) error {
	n.life.Lock()
	defer n.life.Unlock()
	cur := n.current()
	if cur == nil || cur.role == role {
		return nil
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return err
	}
	var adm control.Admission
	if err := cur.askLeader(ctx, pathRenew, csr, &adm); err != nil {
		return err
	}
	if adm.Role != role {
		return nil // the managers have changed their mind; the next state says so
	}
	old := n.pause()
	if err := n.startAs(old, role, &adm, key); err != nil {
		n.give(err) // it is neither what it was nor what it is to be: the next start decides from the files
		return err
	}
	return nil
}

// startAs starts a node that has stopped again, in the role that it was admitted
// to.
func (n *node) startAs(old *member, role swarm.NodeRole, adm *control.Admission, key []byte) error {
	id := old.identity()
	id.Managers, id.Joining = adm.Managers, role == swarm.NodeRoleManager
	if err := id.save(n.cfg.DataDir); err != nil {
		return err
	}
	bundle := ca.Bundle{CAPEM: adm.Roots, CertPEM: adm.Cert, KeyPEM: key}
	creds, v, err := n.exchange(id, bundle, adm.Lock)
	if err != nil {
		return err
	}
	n.log.Info("this node changes its role", zap.String("role", string(role)))
	r, err := n.start(n.newMember(id, creds, v, cluster.Join))
	if err != nil {
		return err
	}
	n.rely(r)
	return nil
}

// exchange replaces a node's key material by that of another role. What a
// worker left of a former life as a manager goes before it becomes one again; a
// manager's data key goes after the key material that is sealed with it.
func (n *node) exchange(id identity, bundle ca.Bundle, lock api.Lock) (*ca.Credentials, *vault, error) {
	forget := func() error {
		if err := os.RemoveAll(cluster.RaftDir(n.cfg.DataDir)); err != nil {
			return fmt.Errorf("remove the old raft state: %w", err)
		}
		return nil
	}
	if id.Joining {
		if err := forget(); err != nil {
			return nil, nil, err
		}
		return n.keep(id, bundle, lock)
	}
	creds, v, err := n.keep(id, bundle, lock)
	if err != nil {
		return nil, nil, err
	}
	return creds, v, forget()
}

// sayGoodbye tells the managers that this node goes. A leader hands over first:
// it can not remove itself and answer for it.
func (m *member) sayGoodbye(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	if m.locked != nil {
		return errdefs.ErrUnavailable.WithMessage("this manager is locked and can not speak to the others")
	}
	if m.manager != nil {
		if m.manager.others() == 0 {
			return nil // nobody is left to know
		}
		if m.manager.leading.Load() {
			if err := m.cluster.Raft.TransferLeadership(ctx, ""); err != nil {
				return err
			}
		}
	}
	return m.askLeader(ctx, pathLeave, nil, new(struct{}))
}

// goodbyeTimeout bounds how long a node that leaves waits for the managers.
const goodbyeTimeout = 10 * time.Second

// forward answers API requests by the manager that leads; nil while none does.
func (m *member) forward() http.Handler {
	if m.manager == nil {
		return nil
	}
	nodeID, addr, ok := m.manager.leader()
	if !ok || nodeID == m.id.NodeID {
		return nil
	}
	return httpapi.Proxy(m.manager.forwarding.to(nodeID, addr), "https://"+addr+pathAPI)
}

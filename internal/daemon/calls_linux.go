package daemon

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"shoal/internal/api"
	"shoal/internal/control"
	"shoal/internal/netkit"
	"shoal/internal/session"
	"shoal/lb/proxy"
)

// The methods that the leader calls on a node.
const (
	methodLogs  = "logs"
	methodPorts = "ports"
	methodExec  = "exec"
)

// portsTimeout bounds how long a request with new published ports waits for the
// nodes. One that does not answer holds nobody up.
const portsTimeout = time.Second

type logsArgs struct {
	TaskID  string
	Options api.LogOptions
}

// logs writes a task's output as its engine frames it.
func (m *member) logs(ctx context.Context, args json.RawMessage, w io.Writer) error {
	var a logsArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return err
	}
	logs, _, err := m.engine.Logs(ctx, a.TaskID, a.Options)
	if err != nil {
		return err
	}
	defer logs.Close()
	if _, err := w.Write(nil); err != nil { // the first line may be long in coming
		return err
	}
	_, err = io.Copy(w, logs)
	return err
}

// portOwners says who holds which of the ports on this machine.
func (m *member) portOwners(ctx context.Context, args json.RawMessage, w io.Writer) error {
	var ports []api.Port
	if err := json.Unmarshal(args, &ports); err != nil {
		return err
	}
	owners := []api.PortOwner{}
	for _, p := range ports {
		owner, err := m.portOwner(ctx, p)
		if err != nil {
			return err
		}
		if owner != "" {
			owners = append(owners, api.PortOwner{Protocol: p.Protocol, Port: p.Published, Owner: owner})
		}
	}
	return json.NewEncoder(w).Encode(owners)
}

// portOwner names who holds a port and is not the mesh, or gives "". A container's
// port is held by a helper of the engine, or by nobody where the engine uses
// firewall rules alone.
func (m *member) portOwner(ctx context.Context, p api.Port) (string, error) {
	name, err := m.engine.PublishedBy(ctx, p.Protocol, p.Published)
	if err != nil {
		m.log.Warn("can not ask the engine which container publishes a port", zap.Error(err))
	}
	if name != "" {
		return "container " + name, nil
	}
	return strangerOn(m.mesh.user)(p.Protocol, p.Published)
}

// listenerOn names the process of this host that listens on a port, or gives "".
func listenerOn(protocol string, port uint16) (string, error) {
	owner, taken, err := netkit.PortOwner(protocol, port)
	if err != nil || !taken {
		return "", err
	}
	return owner.String(), nil
}

// strangerOn names who listens on a port and is not the mesh: among tasks, the
// managers see to it that a port has one owner.
func strangerOn(user *proxy.Plane) func(string, uint16) (string, error) {
	return func(protocol string, port uint16) (string, error) {
		if user.Holds(protocol, port) {
			return "", nil
		}
		return listenerOn(protocol, port)
	}
}

// InUse implements control.PortChecker: it asks every connected node at once.
func (m *manager) InUse(ctx context.Context, ports []api.Port) ([]control.NodePortOwner, error) {
	ctx, cancel := context.WithTimeout(ctx, portsTimeout)
	defer cancel()
	var (
		mu    sync.Mutex
		found []control.NodePortOwner
		wg    sync.WaitGroup
	)
	for _, nodeID := range m.server.Connected() {
		wg.Go(func() {
			owners, err := askPorts(ctx, m.server, nodeID, ports)
			if err != nil {
				m.log.Warn("can not ask a node which ports are in use", zap.String("node", nodeID), zap.Error(err))
				return
			}
			name := nodeID
			if n, ok := m.store.View().Nodes.Get(nodeID); ok {
				name = n.Description.Hostname
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range owners {
				found = append(found, control.NodePortOwner{Node: name, PortOwner: o})
			}
		})
	}
	wg.Wait()
	return found, nil
}

func askPorts(ctx context.Context, s *session.Server, nodeID string, ports []api.Port) (owners []api.PortOwner, err error) {
	out, err := s.Call(ctx, nodeID, methodPorts, ports)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	return owners, json.NewDecoder(out).Decode(&owners)
}

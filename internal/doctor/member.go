package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// overdue is how long after its moment a renewal is late: managers may have
	// been busy.
	overdue = 10 * time.Minute
	// rootNotice is when the end of a root is worth a word.
	rootNotice = 30 * 24 * time.Hour
)

func (f *findings) certificate(c Certificate, now time.Time) {
	const subject = "node certificate"
	left := func(t time.Time) string { return span(t.Sub(now)) }
	switch {
	case now.After(c.To):
		f.fail(CheckCertificate, subject, "expired "+span(now.Sub(c.To))+" ago: no other node listens to this one",
			"see that the clock is right and a manager is reachable: the node then renews by itself; the daemon's log says why it could not")
	case now.Before(c.From):
		f.fail(CheckCertificate, subject, "begins only in "+left(c.From)+": this node's clock is behind", "set the clock (chrony, systemd-timesyncd)")
	case now.After(c.Renew.Add(overdue)):
		f.warn(CheckCertificate, subject, fmt.Sprintf("ends in %s and should have been renewed %s ago", left(c.To), span(now.Sub(c.Renew))),
			"see that a manager leads and is reachable; the daemon's log says why the renewal failed")
	default:
		text := "ends in " + left(c.To)
		if c.Renew.After(now) {
			text += ", is renewed in " + left(c.Renew)
		}
		f.ok(CheckCertificate, subject, text)
	}
	if !c.RootsUntil.IsZero() && c.RootsUntil.Sub(now) < rootNotice {
		f.warn(CheckCertificate, "root certificate", "ends "+c.RootsUntil.Format(time.DateOnly), `run "shoal swarm ca --rotate" on a manager`)
	}
}

// span says a duration in the two units that matter.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return d.Round(time.Millisecond).String()
}

func (f *findings) reach(self string, peers []Peer) {
	gone := func(p Peer) bool { return p.There.TCP.Error != "" && p.Gossip == "gone" }
	if len(peers) > 1 && !slices.ContainsFunc(peers, func(p Peer) bool { return !gone(p) }) {
		f.fail(CheckReach, self, fmt.Sprintf("reaches none of the other %d nodes, which hardly all went at once", len(peers)),
			"see to the network of this host first: its cable or interface, routes and firewall; remove no node, and do not force a new cluster, before that is settled")
		return
	}
	for _, p := range peers {
		f.peer(self, p)
	}
}

// peer judges every port in both directions.
func (f *findings) peer(self string, p Peer) {
	before := len(*f)
	there, back := self+" -> "+p.Name(), p.Name()+" -> "+self
	todo := fmt.Sprintf("let TCP %s in on %s, and out here: firewalls and security groups in between; see that the host is up", port(p.Addr), p.Name())
	if strings.HasSuffix(p.There.TCP.Error, "refused") {
		todo = fmt.Sprintf(`the host answers and nothing listens: start the daemon on %s ("systemctl start shoal"), or see whether a firewall rejects TCP %s`, p.Name(), port(p.Addr))
		if p.Manager {
			todo += `; a manager may be locked after a restart: "shoal swarm unlock" there`
		}
	}
	f.probe(there, "TCP "+p.Addr, p.There.TCP, todo)
	if p.There.TCP.Error != "" {
		f.alone(self, p)
		return
	}
	f.probe(back, "TCP port", p.Back.TCP, fmt.Sprintf("let TCP from %s in on this host: its firewall, and security groups in between", p.Name()))
	f.probe(there, "UDP "+p.Addr+" (gossip)", p.There.UDP, fmt.Sprintf("let UDP %s in on %s, and out here", port(p.Addr), p.Name()))
	f.probe(back, "UDP port of gossip", p.Back.UDP, fmt.Sprintf("let UDP from %s in on this host", p.Name()))
	f.probe(there, "UDP "+p.DataPath+" (tunnel)", p.There.Tun, fmt.Sprintf("let UDP %s in on %s, and out here: tasks of the two nodes can not reach each other", port(p.DataPath), p.Name()))
	f.probe(back, "UDP port of the tunnel", p.Back.Tun, fmt.Sprintf("let UDP %s from %s in on this host: tasks of the two nodes can not reach each other", port(p.DataPath), p.Name()))
	wire := fmt.Sprintf("UDP port %d (WireGuard)", p.WirePort)
	f.probe(there, wire, p.There.Wire, fmt.Sprintf("let UDP %d in on %s, and out here: tasks of the two nodes can not reach each other on encrypted networks", p.WirePort, p.Name()))
	f.probe(back, wire, p.Back.Wire, fmt.Sprintf("let UDP %d from %s in on this host: tasks of the two nodes can not reach each other on encrypted networks", p.WirePort, p.Name()))
	if len(*f) > before {
		return
	}
	tried := 0
	for _, probe := range []Probe{p.There.UDP, p.Back.UDP, p.There.Tun, p.Back.Tun} {
		if probe.Tried {
			tried++
		}
	}
	switch {
	case tried < 4:
		f.warn(CheckReach, p.Name(), "TCP works both ways; UDP could not be checked on every port (gossip says: "+p.Gossip+")", "see that the daemons have CAP_NET_RAW and the nodes IPv4 addresses")
	case p.Gossip != "alive" && p.Gossip != "":
		f.warn(CheckReach, p.Name(), "every port is open both ways, and gossip says: "+p.Gossip, "run this again in a moment; if it stays, see the daemon's log on "+p.Name())
	default:
		ports := fmt.Sprintf("TCP and UDP %s and UDP %s", port(p.Addr), port(p.DataPath))
		if p.There.Wire.Tried && p.Back.Wire.Tried {
			ports += fmt.Sprintf(" and UDP %d", p.WirePort)
		}
		f.ok(CheckReach, p.Name(), ports+" both ways")
	}
}

func (f *findings) probe(way, what string, p Probe, todo string) {
	if p.Tried && p.Error != "" {
		f.fail(CheckReach, way, what+": "+oneLine(p.Error), todo)
	}
}

// alone is what is known of a peer that can not be asked for its side.
func (f *findings) alone(self string, p Peer) {
	switch p.Gossip {
	case "alive":
		f.ok(CheckReach, p.Name(), "its daemon answers gossip: UDP works both ways")
	case "gone":
		f.warn(CheckReach, p.Name(), "gossip has no sign of life from this host either", `if it is gone for good: "shoal node rm --force `+p.Name()+`" on a manager`)
	}
	f.warn(CheckReach, p.Name()+" -> "+self, "could not be checked, because "+p.Name()+" can not be asked", `run "shoal doctor" there`)
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

const (
	// skewNotice is seen in logs; skewTrouble is where certificates begin in the
	// future, and time-outs of services look wrong.
	skewNotice  = time.Second
	skewTrouble = time.Minute
)

func (f *findings) clocks(peers []Peer) {
	agree := 0
	for _, p := range peers {
		if p.Within == 0 {
			continue
		}
		// What the way there may have cost is no skew.
		skew := max(0, p.Skew.Abs()-p.Within)
		if skew < skewNotice {
			agree++
			continue
		}
		direction := "ahead of"
		if p.Skew < 0 {
			direction = "behind"
		}
		text := fmt.Sprintf("its clock is %s %s this node's", span(p.Skew), direction)
		todo := `run a time service on both (chrony, systemd-timesyncd) and compare with "date"`
		if skew >= skewTrouble {
			f.fail(CheckClock, p.Name(), text+": certificates may not be valid yet, or any more", todo)
		} else {
			f.warn(CheckClock, p.Name(), text, todo)
		}
	}
	if agree > 0 {
		f.ok(CheckClock, fmt.Sprintf("%d of %d nodes", agree, len(peers)), "agree with this node's clock to within "+skewNotice.String())
	}
}

// behindNotice is how many entries of raft's log may be on their way.
const behindNotice = 1000

func (f *findings) raft(m *Member) {
	leader, name := "", ""
	var at uint64
	if m.Raft != nil {
		leader = m.Raft.Leader
	}
	for _, p := range m.Peers {
		if leader == "" {
			leader = p.Leader
		}
	}
	for _, p := range m.Peers {
		if p.ID == leader {
			name, at = p.Name(), p.Applied
		}
	}
	if leader == "" {
		f.fail(CheckRaft, "leader", "no manager that could be asked knows a leader: tasks run on, and nothing can be changed",
			`start the managers that are down until more than half of them run; if they are lost for good, "shoal swarm init --force-new-cluster" on one that is left`)
		return
	}
	self := m.Raft != nil && m.Raft.State == "Leader"
	switch {
	case self:
		f.ok(CheckRaft, "leader", "this node leads")
	case name == "":
		f.ok(CheckRaft, "leader", leader+" leads")
	default:
		f.ok(CheckRaft, "leader", name+" leads")
	}
	if at > 0 && !m.Session && !self {
		f.fail(CheckCluster, "session", "the leader has no session with this node: it takes this node for down",
			"see reachability above and the daemon's log here, which says why the managers are not reached")
	}
	if m.Raft == nil {
		return
	}
	switch applied := m.Raft.Applied; {
	case !self && at > applied+behindNotice:
		f.warn(CheckRaft, "log", fmt.Sprintf("this manager is %d entries behind the leader (%d of %d)", at-applied, applied, at),
			"if that does not shrink: look at the disk's time for a write above, and at the way to the leader")
	default:
		f.ok(CheckRaft, "log", fmt.Sprintf("applied up to %d of %d; %d managers vote", applied, max(m.Raft.Last, at), m.Raft.Voters))
	}
	if m.Raft.Voters == 2 {
		f.warn(CheckRaft, "managers", "two managers: when either is lost, nothing can be changed", "promote a third one, or demote one")
	}
}

func (f *findings) drift(d Drift) {
	if !d.Known {
		f.warn(CheckDrift, "state", "the managers have not said yet what they want of this node", "see reachability above")
		return
	}
	before := len(*f)
	const restored = "shoal restores it by itself within seconds: if this stays, the daemon's log says why; look for another program that writes the host's firewall or routes"
	for _, n := range d.Network {
		f.fail(CheckDrift, "network", n, restored)
	}
	for _, n := range d.Mesh {
		f.fail(CheckDrift, "routing mesh", n, restored)
	}
	if d.Error != "" {
		f.warn(CheckDrift, "containers", "could not be compared: "+oneLine(d.Error), "see the engine above")
	}
	for _, t := range d.Missing {
		f.warn(CheckDrift, t, "the task should run here and has no running container", `it may be about to be replaced: run this again, then see "shoal node ps" on a manager`)
	}
	for _, c := range d.Superseded {
		f.warn(CheckDrift, c, "the container runs and no task of this node wants it", `it may be about to be stopped: run this again; if it stays, "docker rm -f `+c+`"`)
	}
	if len(*f) == before {
		f.ok(CheckDrift, "state", "kernel and engine have what the managers want")
	}
}

func (f *findings) ports(held []HeldPort) {
	for _, p := range held {
		f.warn(CheckPorts, p.Port, "is published by a service, and held by "+p.Owner+" on this host: from outside, the service answers",
			"stop that program, bind it to another port, or publish the service elsewhere")
	}
}

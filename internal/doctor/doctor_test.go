package doctor

import (
	"strings"
	"testing"
	"time"
)

var (
	now    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	works  = Probe{Tried: true}
	silent = Probe{Tried: true, Error: "no packet arrives"}
)

// healthy is a manager with two others, and nothing wrong.
func healthy() Facts {
	open := Way{TCP: works, UDP: works, Tun: works}
	peer := func(id, name, addr string) Peer {
		return Peer{
			ID: id, Hostname: name, Addr: addr + ":2377", DataPath: addr + ":4789", Manager: true, Gossip: "alive",
			There: open, Back: open, Skew: 3 * time.Millisecond, Within: time.Millisecond, Leader: "b", Applied: 500, Session: id == "b",
		}
	}
	return Facts{
		Now: now, Name: "n1", State: Active, NodeID: "a",
		Engine: Engine{Version: "20.10.24+dfsg1", Swarm: "inactive", Driver: "overlay2", CgroupDriver: "systemd", CgroupVersion: "2"},
		Kernel: Kernel{Release: "6.1", NetAdmin: true, NetRaw: true, Forwarding: true, Conntrack: 10, ConntrackMax: 1000},
		Disk:   Disk{Dir: "/var/lib/shoal", Free: 10 << 30, Total: 20 << 30, FilesFree: 900, FilesTotal: 1000, Sync: time.Millisecond},
		Member: &Member{
			Certificate: Certificate{From: now.Add(-time.Hour), To: now.Add(90 * 24 * time.Hour), Renew: now.Add(50 * 24 * time.Hour), RootsUntil: now.AddDate(10, 0, 0)},
			Peers:       []Peer{peer("b", "n2", "10.0.0.2"), peer("c", "n3", "10.0.0.3")},
			Raft:        &Raft{State: "Follower", Leader: "b", Applied: 499, Last: 500, Voters: 3},
			Session:     true,
			Nodes:       []Node{{Name: "n1", Manager: true, Ready: true}, {Name: "n2", Manager: true, Ready: true}, {Name: "n3", Ready: true, Closed: "drained"}},
			Drift:       Drift{Known: true},
		},
	}
}

// encryption is in order, but for what change does.
func encryption(change func(*Encryption)) *Encryption {
	e := &Encryption{KeySince: now.Add(-2 * time.Hour), Others: []Encrypted{{Name: "n2", Last: now.Add(-time.Minute)}, {Name: "n3"}}}
	if change != nil {
		change(e)
	}
	return e
}

func TestHealthy(t *testing.T) {
	checks := map[string]bool{}
	for _, f := range Diagnose(healthy()) {
		checks[f.Check] = true
		if f.Level != OK || f.Todo != "" {
			t.Errorf("a healthy node: %+v", f)
		}
	}
	for _, c := range []string{CheckCluster, CheckEngine, CheckKernel, CheckDisk, CheckCertificate, CheckReach, CheckClock, CheckRaft, CheckNodes, CheckDrift} {
		if !checks[c] {
			t.Errorf("check %q says nothing: it may not have been made", c)
		}
	}
}

func TestFindings(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(f *Facts)
		check string
		level Level
		says  string // in subject, text and what to do
	}{
		"apart":   {func(f *Facts) { f.State, f.Member = Apart, nil }, CheckCluster, OK, "in no cluster"},
		"pending": {func(f *Facts) { f.State = Pending }, CheckCluster, Fail, "has not heard from the managers"},
		"begins":  {func(f *Facts) { f.State, f.Since = Pending, f.Now.Add(-time.Second) }, CheckCluster, Warn, "just begun"},
		"locked":  {func(f *Facts) { f.State, f.Member = Locked, nil }, CheckCluster, Fail, "shoal swarm unlock"},

		"engine gone":    {func(f *Facts) { f.Engine = Engine{Error: "dial:\n refused"} }, CheckEngine, Fail, "does not answer: dial: refused"},
		"engine old":     {func(f *Facts) { f.Engine.Version = "19.03.15" }, CheckEngine, Fail, "19.03.15 is too old"},
		"engine older":   {func(f *Facts) { f.Engine.Version = "20.9.1-ce" }, CheckEngine, Fail, "too old"},
		"engine odd":     {func(f *Facts) { f.Engine.Version = "dev" }, CheckEngine, Warn, `"dev"`},
		"engine new":     {func(f *Facts) { f.Engine.Version = "29.0-rc.1" }, CheckEngine, OK, "29.0-rc.1"},
		"swarm mode":     {func(f *Facts) { f.Engine.Swarm = "active" }, CheckEngine, Fail, "docker swarm leave"},
		"slow storage":   {func(f *Facts) { f.Engine.Driver = "vfs" }, CheckEngine, Warn, "overlay2"},
		"no cgroups":     {func(f *Facts) { f.Engine.CgroupDriver = "none" }, CheckEngine, Warn, "limits"},
		"engine warning": {func(f *Facts) { f.Engine.Warnings = []string{"WARNING: No swap limit support"} }, CheckEngine, Warn, "docker: No swap limit"},

		"no capability":  {func(f *Facts) { f.Kernel.NetAdmin = false }, CheckKernel, Warn, "CAP_NET_ADMIN"},
		"no raw sockets": {func(f *Facts) { f.Kernel.NetRaw = false }, CheckKernel, Warn, "CAP_NET_RAW"},
		"no vxlan":       {func(f *Facts) { f.Kernel.Missing = map[string]string{"vxlan": "not supported"} }, CheckKernel, Fail, "modprobe vxlan"},
		"no nftables":    {func(f *Facts) { f.Kernel.Missing = map[string]string{"nftables": "x"} }, CheckKernel, Fail, "modprobe nf_tables"},
		"no forwarding":  {func(f *Facts) { f.Kernel.Forwarding = false }, CheckKernel, Fail, "sysctl -w net.ipv4.ip_forward=1"},
		"conntrack full": {func(f *Facts) { f.Kernel.Conntrack = 950 }, CheckKernel, Fail, "nf_conntrack_max=2000"},
		"bridge filter":  {func(f *Facts) { f.Kernel.BridgeNF = true }, CheckKernel, OK, "br_netfilter"},

		"nodes": {func(*Facts) {}, CheckNodes, OK, "3 of 3 nodes: are Ready"},
		"node down": {func(f *Facts) {
			f.Member.Nodes[2] = Node{Name: "n3", Down: true, DownSince: now.Add(-3 * time.Minute), Message: "no heartbeat for 15s", Closed: "drained"}
		}, CheckNodes, Fail, `if it is gone for good: "shoal node rm --force n3"`},
		"since when": {func(f *Facts) {
			f.Member.Nodes[2] = Node{Name: "n3", Down: true, DownSince: now.Add(-3 * time.Minute), Message: "no heartbeat for 15s"}
		}, CheckNodes, Fail, "n3: is Down for 3 minutes: no heartbeat for 15s"},
		"manager down": {func(f *Facts) { f.Member.Nodes[1] = Node{Name: "n2", Manager: true, Down: true} }, CheckNodes, Fail, `"shoal node demote n2", then "shoal node rm --force n2"`},
		"node without engine": {func(f *Facts) {
			f.Member.Nodes[2] = Node{Name: "n3", Down: true, NoEngine: true, Message: "Docker engine: refused"}
		}, CheckNodes, Fail, "systemctl start docker"},
		"engine silent": {func(f *Facts) {
			f.Member.Nodes[2].NoEngine, f.Member.Nodes[2].Message = true, "Docker engine does not answer"
		}, CheckNodes, Warn, "n3: is given no tasks: Docker engine does not answer"},
		"node left": {func(f *Facts) { f.Member.Nodes[2] = Node{Name: "n3", Down: true, Left: true} }, CheckNodes, Warn, `"shoal node rm n3"`},
		"drained for nothing": {
			func(f *Facts) { f.Member.Nodes[2].HoldsUp = []string{"web", "api"} }, CheckNodes, Warn,
			`n3: is drained, and could run tasks that wait for a node: of web, api`,
		},
		"and what to do":   {func(f *Facts) { f.Member.Nodes[2].HoldsUp = []string{"web", "api"} }, CheckNodes, Warn, `"shoal node update --availability active n3"`},
		"drain in the way": {func(f *Facts) { f.Member.Nodes[2].Staying = 2 }, CheckNodes, Warn, `"shoal node ps n3"`},
		"many down": {func(f *Facts) {
			for range 20 {
				f.Member.Nodes = append(f.Member.Nodes, Node{Name: "x", Down: true})
			}
		}, CheckNodes, Warn, "10 more: have something wrong"},

		"encrypted":       {func(f *Facts) { f.Member.Encryption = encryption(nil) }, CheckEncryption, OK, "this node's key: is 2 hours old"},
		"spoke with":      {func(f *Facts) { f.Member.Encryption = encryption(nil) }, CheckEncryption, OK, "n2: last agreed on a key"},
		"nothing to tell": {func(f *Facts) { f.Member.Encryption = encryption(nil) }, CheckEncryption, OK, "1 of 2 nodes: there was nothing"},
		"not possible":    {func(f *Facts) { f.Member.Encryption = &Encryption{Error: "no tun"} }, CheckEncryption, Fail, "cut off from other nodes: no tun"},
		"key not known":   {func(f *Facts) { f.Member.Encryption = encryption(func(e *Encryption) { e.KeySince = time.Time{} }) }, CheckEncryption, Warn, "do not know it yet"},
		"key too old": {func(f *Facts) {
			f.Member.Encryption = encryption(func(e *Encryption) { e.KeySince = now.Add(-72 * time.Hour) })
		}, CheckEncryption, Warn, "3 days old"},
		"other has none": {func(f *Facts) {
			f.Member.Encryption = encryption(func(e *Encryption) { e.Others[0].NoKey = "no IPv6" })
		}, CheckEncryption, Warn, "n2: can not encrypt: no IPv6"},
		"other is deaf": {func(f *Facts) { f.Member.Encryption = encryption(func(e *Encryption) { e.Others[1].Unsaid = true }) }, CheckEncryption, Fail, "n3: was sent something"},
		"wire closed": {func(f *Facts) {
			p := &f.Member.Peers[0]
			p.WirePort, p.There.Wire, p.Back.Wire = 4790, silent, works
		}, CheckReach, Fail, "let UDP 4790 in on n2"},

		"wire open": {func(f *Facts) {
			p := &f.Member.Peers[0]
			p.WirePort, p.There.Wire, p.Back.Wire = 4790, works, works
		}, CheckReach, OK, "UDP 4789 and UDP 4790 both ways"},

		"disk broken":               {func(f *Facts) { f.Disk.Error = "read-only" }, CheckDisk, Fail, "read-only"},
		"disk full":                 {func(f *Facts) { f.Disk.Free = 1 << 20 }, CheckDisk, Fail, "1MiB of 20GiB"},
		"disk filling":              {func(f *Facts) { f.Disk.Free = 500 << 20 }, CheckDisk, Warn, "500MiB"},
		"no inodes":                 {func(f *Facts) { f.Disk.FilesFree = 1 }, CheckDisk, Fail, "1 of 1000 inodes"},
		"disk slow":                 {func(f *Facts) { f.Disk.Sync = 80 * time.Millisecond }, CheckDisk, Warn, "80ms"},
		"disk stuck":                {func(f *Facts) { f.Disk.Sync = 2 * time.Second }, CheckDisk, Fail, "2s"},
		"worker's disk may be slow": {func(f *Facts) { f.Disk.Sync, f.Member.Raft = 2*time.Second, nil }, CheckDisk, OK, "2s"},

		"expired":          {func(f *Facts) { f.Member.Certificate.To = now.Add(-3 * time.Hour) }, CheckCertificate, Fail, "expired 3 hours ago"},
		"not valid yet":    {func(f *Facts) { f.Member.Certificate.From = now.Add(5 * time.Minute) }, CheckCertificate, Fail, "in 5 minutes"},
		"renewal overdue":  {func(f *Facts) { f.Member.Certificate.Renew = now.Add(-4 * time.Hour) }, CheckCertificate, Warn, "renewed 4 hours ago"},
		"renewal just due": {func(f *Facts) { f.Member.Certificate.Renew = now.Add(-time.Minute) }, CheckCertificate, OK, "ends in 90 days"},
		"root ends":        {func(f *Facts) { f.Member.Certificate.RootsUntil = now.AddDate(0, 0, 9) }, CheckCertificate, Warn, "shoal swarm ca --rotate"},

		"TCP there":   {func(f *Facts) { f.Member.Peers[0].There.TCP.Error = "i/o timeout" }, CheckReach, Fail, "n1 -> n2: TCP 10.0.0.2:2377: i/o timeout"},
		"daemon down": {func(f *Facts) { f.Member.Peers[0].There.TCP.Error = "connection refused" }, CheckReach, Fail, "start the daemon on n2"},
		"peer mute":   {func(f *Facts) { f.Member.Peers[0].There.TCP.Error = "x" }, CheckReach, Warn, "shoal doctor"},
		"peer gone":   {func(f *Facts) { p := &f.Member.Peers[0]; p.There.TCP.Error, p.Gossip = "x", "gone" }, CheckReach, Warn, "no sign of life"},
		"all peers gone": {func(f *Facts) {
			for i := range f.Member.Peers {
				p := &f.Member.Peers[i]
				p.There.TCP.Error, p.Gossip = "x", "gone"
			}
		}, CheckReach, Fail, "n1: reaches none of the other 2 nodes"},
		"peer gossips":   {func(f *Facts) { f.Member.Peers[0].There.TCP.Error = "x" }, CheckReach, OK, "UDP works both ways"},
		"locked, maybe":  {func(f *Facts) { f.Member.Peers[0].There.TCP.Error = "connection refused" }, CheckReach, Fail, `"shoal swarm unlock" there`},
		"TCP back":       {func(f *Facts) { f.Member.Peers[1].Back.TCP.Error = "refused" }, CheckReach, Fail, "n3 -> n1: TCP port: refused"},
		"gossip there":   {func(f *Facts) { f.Member.Peers[0].There.UDP = silent }, CheckReach, Fail, "n1 -> n2: UDP 10.0.0.2:2377 (gossip): no packet arrives"},
		"gossip back":    {func(f *Facts) { f.Member.Peers[0].Back.UDP = silent }, CheckReach, Fail, "n2 -> n1: UDP port of gossip"},
		"tunnel there":   {func(f *Facts) { f.Member.Peers[0].There.Tun = silent }, CheckReach, Fail, "let UDP 4789 in on n2"},
		"tunnel back":    {func(f *Facts) { f.Member.Peers[0].Back.Tun = silent }, CheckReach, Fail, "let UDP 4789 from n2 in on this host"},
		"others open":    {func(f *Facts) { f.Member.Peers[0].Back.Tun = silent }, CheckReach, OK, "n3: TCP and UDP 2377 and UDP 4789 both ways"},
		"UDP untried":    {func(f *Facts) { f.Member.Peers[0].There.Tun = Probe{} }, CheckReach, Warn, "could not be checked on every port"},
		"gossip differs": {func(f *Facts) { f.Member.Peers[0].Gossip = "daemon down" }, CheckReach, Warn, "gossip says: daemon down"},

		"clock ahead":      {func(f *Facts) { f.Member.Peers[0].Skew = 3 * time.Second }, CheckClock, Warn, "3s ahead of"},
		"clock behind":     {func(f *Facts) { f.Member.Peers[1].Skew = -time.Hour }, CheckClock, Fail, "60 minutes behind"},
		"others agree":     {func(f *Facts) { f.Member.Peers[1].Skew = -time.Hour }, CheckClock, OK, "1 of 2 nodes"},
		"way, not clock":   {func(f *Facts) { p := &f.Member.Peers[0]; p.Skew, p.Within = 2*time.Second, 1500*time.Millisecond }, CheckClock, OK, "2 of 2"},
		"clock not asked":  {func(f *Facts) { f.Member.Peers[0].Within = 0 }, CheckClock, OK, "1 of 2"},
		"no leader":        {func(f *Facts) { noLeader(f) }, CheckRaft, Fail, "--force-new-cluster"},
		"leads":            {func(f *Facts) { f.Member.Raft.State, f.Member.Raft.Leader = "Leader", "a" }, CheckRaft, OK, "this node leads"},
		"worker's leader":  {func(f *Facts) { f.Member.Raft = nil }, CheckRaft, OK, "n2 leads"},
		"behind":           {func(f *Facts) { f.Member.Peers[0].Applied = 99_999 }, CheckRaft, Warn, "99500 entries behind"},
		"two managers":     {func(f *Facts) { f.Member.Raft.Voters = 2 }, CheckRaft, Warn, "two managers"},
		"no session":       {func(f *Facts) { f.Member.Session = false }, CheckCluster, Fail, "no session"},
		"state unknown":    {func(f *Facts) { f.Member.Drift = Drift{} }, CheckDrift, Warn, "have not said yet"},
		"table deleted":    {func(f *Facts) { f.Member.Drift.Mesh = []string{"table is missing"} }, CheckDrift, Fail, "routing mesh: table is missing"},
		"tunnel deleted":   {func(f *Facts) { f.Member.Drift.Network = []string{"tunnel is missing"} }, CheckDrift, Fail, "network: tunnel is missing"},
		"task missing":     {func(f *Facts) { f.Member.Drift.Missing = []string{"t1"} }, CheckDrift, Warn, "t1"},
		"container orphan": {func(f *Facts) { f.Member.Drift.Superseded = []string{"c1"} }, CheckDrift, Warn, "docker rm -f c1"},
		"no list":          {func(f *Facts) { f.Member.Drift.Error = "gone" }, CheckDrift, Warn, "gone"},
		"port held":        {func(f *Facts) { f.Member.Ports = []HeldPort{{"8080/tcp", "nginx (pid 7)"}} }, CheckPorts, Warn, "8080/tcp: is published by a service, and held by nginx (pid 7)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			tt.spoil(&f)
			all := Diagnose(f)
			found := false
			for _, got := range all {
				if (got.Level == OK) != (got.Todo == "") {
					t.Errorf("what is wrong, and nothing else, says what to do: %+v", got)
				}
				found = found || got.Check == tt.check && got.Level == tt.level && strings.Contains(got.Subject+": "+got.Text+"; "+got.Todo, tt.says)
			}
			if !found {
				t.Errorf("no %s of %s says %q: %+v", tt.level, tt.check, tt.says, all)
			}
			if tt.level == Fail && !Failed(all) {
				t.Error("a failure does not count as one")
			}
		})
	}
}

func noLeader(f *Facts) {
	f.Member.Raft.Leader = ""
	for i := range f.Member.Peers {
		f.Member.Peers[i].Leader = ""
	}
}

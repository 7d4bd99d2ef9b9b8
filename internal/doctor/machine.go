package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// settling is how long a node that begins may take to hear from the managers.
const settling = 10 * time.Second

func (f *findings) cluster(facts Facts) {
	switch facts.State {
	case Apart:
		f.ok(CheckCluster, facts.Name, "in no cluster")
	case Pending:
		if facts.Now.Sub(facts.Since) < settling {
			f.warn(CheckCluster, facts.Name, "this node has just begun, and waits for word from the managers", "look again in a few seconds")
			return
		}
		f.fail(CheckCluster, facts.Name, "this node has not heard from the managers since its daemon started: what it runs is what it last knew",
			"see that a manager is up and that its port is reached (below), then the daemon's log here")
	case Locked:
		f.fail(CheckCluster, facts.Name, "this manager is locked: its tasks run, and it takes no part in the cluster", `run "shoal swarm unlock" here`)
	default:
		role := "worker"
		if facts.Member != nil && facts.Member.Raft != nil {
			role = "manager"
		}
		f.ok(CheckCluster, facts.Name, role+" "+facts.NodeID)
	}
}

// Engines before oldestEngine lack calls that tasks need.
const oldestMajor, oldestMinor = 20, 10

func (f *findings) engine(e Engine) {
	const subject = "docker"
	if e.Error != "" {
		f.fail(CheckEngine, subject, "the Docker engine does not answer: "+oneLine(e.Error),
			`start it ("systemctl start docker"), or name its address with --docker-host`)
		return
	}
	switch major, minor, known := version(e.Version); {
	case !known:
		f.warn(CheckEngine, subject, fmt.Sprintf("engine of unknown version %q", e.Version), "use Docker 20.10 or newer")
	case major < oldestMajor || major == oldestMajor && minor < oldestMinor:
		f.fail(CheckEngine, subject, "engine "+e.Version+" is too old", "upgrade it to 20.10 or newer")
	default:
		f.ok(CheckEngine, subject, "version "+e.Version)
	}
	if e.Swarm != "" && e.Swarm != "inactive" {
		f.fail(CheckEngine, subject, "the engine is in swarm mode itself ("+e.Swarm+"): two orchestrators would fight over it",
			`run "docker swarm leave" on the engine's own socket`)
	}
	if slices.Contains([]string{"vfs", "devicemapper", "aufs"}, e.Driver) {
		f.warn(CheckEngine, "storage driver", e.Driver+" is slow or given up by Docker",
			`set "storage-driver": "overlay2" in /etc/docker/daemon.json; images have to be pulled again`)
	}
	if e.CgroupDriver == "none" {
		f.warn(CheckEngine, "cgroups", "the engine does not use cgroups: limits of tasks have no effect", "run the engine as root, or give it delegated cgroups")
	}
	for _, w := range e.Warnings {
		f.warn(CheckEngine, subject, strings.TrimPrefix(oneLine(w), "WARNING: "), "see Docker's documentation of this warning; limits it names have no effect")
	}
}

// version reads the beginning of 20.10.24+dfsg1.
func version(s string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(s, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(strings.TrimRight(second, "-+abcdefghijklmnopqrstuvwxyz"))
	return major, minor, err == nil
}

// fullTable is the share of conntrack's table from which on it is called full:
// a burst of connections takes the rest in no time.
const fullTable = 0.9

func (f *findings) kernel(facts Facts) {
	k := facts.Kernel
	if !k.NetAdmin {
		f.warn(CheckKernel, "CAP_NET_ADMIN", "the daemon may not change the host's network: no task on a network of the cluster runs here, and published ports are passed on to other nodes",
			"if that is not meant, run it as root, with CAP_NET_ADMIN")
	}
	if !k.NetRaw {
		f.warn(CheckKernel, "CAP_NET_RAW", "the daemon may not watch for probes: UDP ports can not be checked one by one", "run it as root, with CAP_NET_RAW")
	}
	for _, name := range slices.Sorted(maps.Keys(k.Missing)) {
		f.fail(CheckKernel, name, "the kernel can not do it: "+oneLine(k.Missing[name]),
			fmt.Sprintf("load the module (modprobe %s) or use a kernel that has it; linux-modules-extra has it on some distributions", module(name)))
	}
	if k.NetAdmin && len(k.Missing) == 0 {
		f.ok(CheckKernel, k.Release, "nftables, conntrack, veth and VXLAN work")
	}
	if facts.Member != nil && k.NetAdmin && !k.Forwarding {
		f.fail(CheckKernel, "net.ipv4.ip_forward", "is 0: no task can be reached from outside or reach another network",
			`"sysctl -w net.ipv4.ip_forward=1", and look in /etc/sysctl.d for what set it to 0`)
	}
	if k.ConntrackMax > 0 {
		subject, text := "conntrack", fmt.Sprintf("%d of %d connections", k.Conntrack, k.ConntrackMax)
		if float64(k.Conntrack) >= fullTable*float64(k.ConntrackMax) {
			f.fail(CheckKernel, subject, text+": new connections are dropped when the table is full", fmt.Sprintf(`"sysctl -w net.netfilter.nf_conntrack_max=%d"`, 2*k.ConntrackMax))
		} else {
			f.ok(CheckKernel, subject, text)
		}
	}
	if k.BridgeNF {
		f.ok(CheckKernel, "br_netfilter", "is on: packets inside the host's bridges pass its firewall, too; the mesh does not depend on it")
	}
}

func module(feature string) string {
	if feature == "nftables" {
		return "nf_tables"
	}
	if feature == "conntrack" {
		return "nf_conntrack"
	}
	return feature
}

const (
	// leastFree is what raft's log and snapshots may need in a burst; enough is
	// when there is no need to speak of it.
	leastFree  = 256 << 20
	enoughFree = 1 << 30
	// fewFiles is the share of free inodes that is too small.
	fewFiles = 0.02
	// A write waits for the disks of a majority. From slowSync on it is felt;
	// from stuckSync on managers lose patience with each other.
	slowSync  = 50 * time.Millisecond
	stuckSync = time.Second
)

func (f *findings) disk(d Disk, manager bool) {
	if d.Error != "" {
		f.fail(CheckDisk, d.Dir, "the data directory can not be written: "+oneLine(d.Error), "see that it is mounted, not read-only, and on a disk that works (dmesg)")
		return
	}
	text := fmt.Sprintf("%s of %s free", units.BytesSize(float64(d.Free)), units.BytesSize(float64(d.Total)))
	todo := "make room: images and containers (docker system prune), logs, or a larger disk"
	switch {
	case d.Free < leastFree:
		f.fail(CheckDisk, d.Dir, text+": the daemon stops when it can not write", todo)
	case d.Free < enoughFree:
		f.warn(CheckDisk, d.Dir, text, todo)
	default:
		f.ok(CheckDisk, d.Dir, text)
	}
	if d.FilesTotal > 0 && float64(d.FilesFree) < fewFiles*float64(d.FilesTotal) {
		f.fail(CheckDisk, d.Dir, fmt.Sprintf("%d of %d inodes are free: no new files can be made", d.FilesFree, d.FilesTotal), "remove small files, or make the file system anew with more inodes")
	}
	text = "a durable write takes " + d.Sync.Round(10*time.Microsecond).String()
	switch {
	case manager && d.Sync >= stuckSync:
		f.fail(CheckDisk, d.Dir, text+": managers take this one for dead", "put the data directory on an SSD, or find what keeps the disk busy (iostat -x 1)")
	case manager && d.Sync >= slowSync:
		f.warn(CheckDisk, d.Dir, text+": every change of the cluster may wait for it", "put the data directory on an SSD, or find what keeps the disk busy (iostat -x 1)")
	default:
		f.ok(CheckDisk, d.Dir, text)
	}
}

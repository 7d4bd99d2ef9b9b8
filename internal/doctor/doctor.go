// Package doctor says what is wrong with a node, and what to do about it. It is
// pure: the daemon gathers the facts, which takes seconds and touches nothing,
// and Diagnose turns them into findings.
//
// A finding is a failure where something does not work now, a warning where it
// works and will not last or may be passing, and else it says what was found in
// order: a check that was made is never silent. Every finding that is not in
// order says what to do.
package doctor

import (
	"slices"
	"strings"
)

// Level is how bad a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// The checks, in the order in which they are listed.
const (
	CheckCluster     = "cluster"
	CheckEngine      = "engine"
	CheckKernel      = "kernel"
	CheckDisk        = "disk"
	CheckCertificate = "certificate"
	CheckReach       = "reachability"
	CheckClock       = "clock"
	CheckRaft        = "raft"
	CheckNodes       = "nodes"
	CheckEncryption  = "encryption"
	CheckDrift       = "drift"
	CheckPorts       = "ports"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check   string
	Level   Level
	Subject string // the peer, port, file or the like that it is about
	Text    string
	Todo    string `json:",omitempty"` // unless in order
}

// findings collects them.
type findings []Finding

func (f *findings) ok(check, subject, text string) {
	*f = append(*f, Finding{Check: check, Level: OK, Subject: subject, Text: text})
}

func (f *findings) warn(check, subject, text, todo string) {
	*f = append(*f, Finding{check, Warn, subject, text, todo})
}

func (f *findings) fail(check, subject, text, todo string) {
	*f = append(*f, Finding{check, Fail, subject, text, todo})
}

// Diagnose says what the facts mean.
func Diagnose(f Facts) []Finding {
	var out findings
	out.cluster(f)
	out.engine(f.Engine)
	out.kernel(f)
	out.disk(f.Disk, f.Member != nil && f.Member.Raft != nil)
	if m := f.Member; m != nil {
		out.certificate(m.Certificate, f.Now)
		out.reach(f.Name, m.Peers)
		out.clocks(m.Peers)
		out.raft(m)
		out.nodes(m.Nodes, f.Now)
		out.encryption(m.Encryption, f.Now)
		out.drift(m.Drift)
		out.ports(m.Ports)
	}
	return out
}

// Failed tells whether anything does not work.
func Failed(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Level == Fail })
}

// oneLine keeps an error of several lines in one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

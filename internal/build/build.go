// Package build says what this program was built from.
package build

import (
	"cmp"
	"runtime/debug"
)

// Info is what is known of a build. What is not known for certain is empty: a wrong
// commit is worse than none.
type Info struct {
	Version string
	Commit  string // short
	Time    string // of the commit, so that to build it again gives the same program; RFC 3339
}

// Of is what the linker was told, filled up with what the go command noted.
func Of(version, commit, time string) Info {
	noted, _ := debug.ReadBuildInfo()
	return Info{version, commit, time}.with(noted)
}

// with fills in from what the go command noted, which is nothing with
// -buildvcs=false or outside of a repository.
func (i Info) with(noted *debug.BuildInfo) Info {
	i.Version = cmp.Or(i.Version, "dev")
	if i.Commit != "" || noted == nil {
		return i
	}
	said := map[string]string{}
	for _, s := range noted.Settings {
		said[s.Key] = s.Value
	}
	// A changed tree is not the commit; nor is a source archive that was unpacked in
	// somebody else's repository, which looks like one.
	if said["vcs.modified"] == "false" {
		i.Commit, i.Time = short(said["vcs.revision"]), said["vcs.time"]
	}
	return i
}

// short is a commit as Docker shows it.
func short(commit string) string { return commit[:min(len(commit), 7)] }

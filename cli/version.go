package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/docker/docker/api"
	"github.com/docker/docker/api/types"

	"shoal/cli/flags"
	"shoal/cli/format"
)

// versions is what version shows, with Docker's field names for templates.
type versions struct {
	Client clientVersion
	Server *types.Version
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:",omitempty"`
}

func (s *session) versionCommand() leaf {
	return leaf{
		name: "version", usage: "Show the shoal version information", arity: none, run: s.version,
		flags: flags.Set{flags.Text("format", "f", format.InspectUsage)},
	}
}

func (s *session) version(ctx context.Context, in input) error {
	client, err := s.api()
	if err != nil {
		return err
	}
	v := versions{Client: s.clientVersion()}
	// The client's part is known without a server, and is printed without one.
	server, unreachable := client.ServerVersion(ctx)
	if unreachable == nil {
		v.Server = &server
		v.Client.APIVersion = client.ClientVersion()
	}
	if in.Changed("format") {
		err = format.One(s.out, in.Text("format"), v)
	} else {
		err = printVersions(s.out, v)
	}
	return firstError(err, unreachable)
}

func (s *session) clientVersion() clientVersion {
	return clientVersion{
		Version: s.app.Build.Version, APIVersion: api.DefaultVersion, DefaultAPIVersion: api.DefaultVersion,
		GitCommit: s.app.Build.Commit, BuildTime: s.app.Build.Time,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
}

func printVersions(w io.Writer, v versions) error {
	var p page
	c := v.Client
	version := c.APIVersion
	if c.APIVersion != c.DefaultAPIVersion {
		version += fmt.Sprintf(" (downgraded from %s)", c.DefaultAPIVersion)
	}
	p.line("Client:")
	field := func(indent, name, value string) {
		if value != "" { // not every build knows its commit
			p.line("%s%-*s%s", indent, 20-len(indent), name+":", value)
		}
	}
	field(" ", "Version", c.Version)
	field(" ", "API version", version)
	field(" ", "Go version", c.GoVersion)
	field(" ", "Git commit", c.GitCommit)
	field(" ", "Built", readableTime(c.BuildTime))
	field(" ", "OS/Arch", c.Os+"/"+c.Arch)
	if v.Server == nil {
		return p.flush(w)
	}
	p.line("\nServer:")
	if len(v.Server.Components) == 0 {
		field(" ", "Version", v.Server.Version)
		field(" ", "API version", v.Server.APIVersion)
	}
	for i, part := range v.Server.Components {
		p.line(" %s:", part.Name)
		field("  ", "Version", part.Version)
		if i > 0 {
			for _, key := range slices.Sorted(maps.Keys(part.Details)) {
				field("  ", key, part.Details[key])
			}
			continue
		}
		d := part.Details
		field("  ", "API version", fmt.Sprintf("%s (minimum version %s)", d["ApiVersion"], d["MinAPIVersion"]))
		field("  ", "Go version", d["GoVersion"])
		field("  ", "Git commit", d["GitCommit"])
		field("  ", "Built", readableTime(d["BuildTime"]))
		field("  ", "OS/Arch", d["Os"]+"/"+d["Arch"])
		field("  ", "Experimental", d["Experimental"])
	}
	return p.flush(w)
}

func readableTime(stamp string) string {
	if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
		return t.Format(time.ANSIC)
	}
	return stamp
}

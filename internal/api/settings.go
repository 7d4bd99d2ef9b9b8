package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SettingPrefix begins the labels of a service that mean something: what Swarm
// has no field for. Labels survive the way through any Docker client, fields of
// our own would not.
const SettingPrefix = "shoal."

// Settings are what the labels of a service under SettingPrefix say. The zero
// value is what applies where there are none.
type Settings struct {
	// Stopped: no task of the service is wanted. What else its spec says, the
	// number of replicas first, waits for it to be started again.
	Stopped bool
	// StartTimeout is how long a task may take to run, from when nothing but its
	// node is in the way; 0 for no limit.
	StartTimeout time.Duration
	// RevisionName is what people call the present revision, such as v1.4.
	RevisionName string
	// Privileged, Devices and GPUs give containers of the node's own; only where
	// the cluster's administrators allow it. GPUs is AllGPUs or a number.
	Privileged bool     `json:",omitempty"`
	Devices    []Device `json:",omitempty"`
	GPUs       int      `json:",omitempty"`
	// Unproven lets a task count as running as soon as its container runs,
	// whatever listens on its ports.
	Unproven bool `json:",omitempty"`
	// ProxyProtocol: each TCP connection to a published port begins with a header
	// that names the client.
	ProxyProtocol bool
}

// The labels of settings that others name.
const (
	PrivilegedLabel = SettingPrefix + "privileged"
	DevicesLabel    = SettingPrefix + "devices"
	GPUsLabel       = SettingPrefix + "gpus"
)

// Setting is one label that means something.
type Setting struct {
	Label   string
	Value   string // what it takes, for people
	Meaning string
	read    func(value string, into *Settings) error
}

// KnownSettings is the table of them all: to add one, add a row and its field.
func KnownSettings() []Setting {
	return []Setting{
		{
			stoppedLabel, "true or false", "no task of the service runs; the rest of its spec waits until it is started again",
			func(v string, s *Settings) (err error) { s.Stopped, err = settingBool(v); return err },
		},
		{
			"shoal.start-timeout", "a duration, such as 5m", "a task that is told to run and does not within this time is replaced, and counts as failed in an update",
			func(v string, s *Settings) (err error) { s.StartTimeout, err = settingDuration(v); return err },
		},
		{
			revisionLabel, "a name, such as v1.4", "what service history and service rollback --to call the revision",
			func(v string, s *Settings) (err error) { s.RevisionName, err = settingName(v); return err },
		},
		{
			PrivilegedLabel, "true or false", "containers have all privileges of their node, if the swarm allows that",
			func(v string, s *Settings) (err error) { s.Privileged, err = settingBool(v); return err },
		},
		{
			DevicesLabel, "devices as docker run takes them, such as /dev/fuse,/dev/sda:/dev/disk:r", "containers may use these devices of their node, if the swarm allows that",
			func(v string, s *Settings) (err error) { s.Devices, err = readDevices(v); return err },
		},
		{
			GPUsLabel, "all or a number", "containers may use that many of the node's GPUs, if the swarm allows that",
			func(v string, s *Settings) (err error) { s.GPUs, err = readGPUs(v); return err },
		},
		{
			SettingPrefix + "ready", "port or start", "when a task without a health check gets traffic: once it accepts connections on its published ports, or as soon as it has started",
			func(v string, s *Settings) (err error) { s.Unproven, err = readReady(v); return err },
		},
		{
			ProxyProtocolLabel, "v2", "tasks are told of their clients on published TCP ports by PROXY protocol, and have to understand it",
			func(v string, s *Settings) (err error) { s.ProxyProtocol, err = settingProxyProtocol(v); return err },
		},
	}
}

// ReadSettings reads the settings among a service's labels. A label that is not
// in the table is an error, and so is a value that can not be read.
func ReadSettings(labels map[string]string) (Settings, error) {
	var s Settings
	var unknown map[string]bool
	for label := range labels {
		if strings.HasPrefix(label, SettingPrefix) {
			if unknown == nil {
				unknown = map[string]bool{}
			}
			unknown[label] = true
		}
	}
	if unknown == nil {
		return s, nil
	}
	for _, known := range KnownSettings() {
		if !unknown[known.Label] {
			continue
		}
		delete(unknown, known.Label)
		if err := known.read(labels[known.Label], &s); err != nil {
			return s, fmt.Errorf("label %s=%s: must be %s", known.Label, labels[known.Label], known.Value)
		}
	}
	if len(unknown) > 0 {
		var names []string
		for _, known := range KnownSettings() {
			names = append(names, known.Label)
		}
		return s, fmt.Errorf("label %q: no such setting; labels under %s are settings: %s",
			slices.Min(slices.Collect(maps.Keys(unknown))), SettingPrefix, strings.Join(names, ", "))
	}
	return s, nil
}

// Settings gives the service's settings. They were checked when the service was
// admitted; what can not be read is as if it were not there.
func (s *Service) Settings() Settings {
	settings, _ := ReadSettings(s.Spec.Labels)
	return settings
}

// ProxyProtocolLabel is the one setting that has to fit the service's ports.
const ProxyProtocolLabel = SettingPrefix + "proxy-protocol"

const (
	stoppedLabel  = SettingPrefix + "stopped"
	revisionLabel = SettingPrefix + "revision"
)

// SetRevisionName gives a copy of a service's labels that calls its revision so,
// or nothing at all.
func SetRevisionName(labels map[string]string, name string) map[string]string {
	labels = maps.Clone(labels)
	delete(labels, revisionLabel)
	if name != "" {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[revisionLabel] = name
	}
	return labels
}

// SetStopped gives a copy of a service's labels that says whether it is stopped.
func SetStopped(labels map[string]string, stopped bool) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, stoppedLabel)
	if stopped {
		labels[stoppedLabel] = "true"
	}
	return labels
}

// KeepStopped gives the labels of a spec that was gone back to, with what the
// present ones say of whether the service is stopped: that is no part of what
// one goes back from.
func KeepStopped(labels, present map[string]string) map[string]string {
	s, _ := ReadSettings(map[string]string{stoppedLabel: present[stoppedLabel]})
	return SetStopped(labels, s.Stopped)
}

func settingBool(v string) (bool, error) { return strconv.ParseBool(v) }

func settingProxyProtocol(v string) (bool, error) {
	if v != "v2" {
		return false, fmt.Errorf("%q is no version", v)
	}
	return true, nil
}

func settingDuration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%s is no time", v)
	}
	return d, err
}

// maxSettingName keeps names short enough for a column.
const maxSettingName = 63

func settingName(v string) (string, error) {
	if v == "" || len(v) > maxSettingName || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%q is no name", v)
	}
	if _, err := strconv.ParseUint(v, 10, 64); err == nil {
		return "", fmt.Errorf("%q is a number", v) // revisions have numbers already
	}
	return v, nil
}

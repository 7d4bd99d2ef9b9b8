package compose

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/swarm"
)

// Difference is one field of a spec that changes. What is not there is "".
type Difference struct {
	Field    string
	Old, New string
}

// Replaces reports whether running tasks can not follow the change, so that others take their place.
func (d Difference) Replaces() bool {
	return strings.HasPrefix(d.Field, "TaskTemplate.") && !d.Moves() || strings.HasPrefix(d.Field, "EndpointSpec.Ports[") && (d.Old == "host" || d.New == "host")
}

// Moves reports whether the change replaces those running tasks alone that may not stay where they are.
func (d Difference) Moves() bool { return strings.HasPrefix(d.Field, "TaskTemplate.Placement.") }

func (d Difference) String() string {
	switch {
	case d.Old == "":
		return fmt.Sprintf("+ %s: %s", d.Field, d.New)
	case d.New == "":
		return fmt.Sprintf("- %s: %s", d.Field, d.Old)
	}
	return fmt.Sprintf("~ %s: %s > %s", d.Field, d.Old, d.New)
}

// given are the values that a manager writes into fields that a spec leaves empty.
var given = map[string]string{
	"TaskTemplate.Runtime":                 string(swarm.RuntimeContainer),
	"TaskTemplate.ContainerSpec.Isolation": "default",
	"TaskTemplate.RestartPolicy.Condition": string(swarm.RestartPolicyConditionAny),
	"Mode.Replicated.Replicas":             "1",
	"UpdateConfig.FailureAction":           swarm.UpdateFailureActionPause,
	"UpdateConfig.Order":                   swarm.UpdateOrderStopFirst,
	"RollbackConfig.FailureAction":         swarm.UpdateFailureActionPause,
	"RollbackConfig.Order":                 swarm.UpdateOrderStopFirst,
	"EndpointSpec.Mode":                    string(swarm.ResolutionModeVIP),
	"EndpointSpec.Ports[].Protocol":        string(swarm.PortConfigProtocolTCP),
	"EndpointSpec.Ports[].PublishMode":     string(swarm.PortConfigPublishModeIngress),
}

var index = regexp.MustCompile(`\[\d+\]`)

// Differences are the fields in which a service's spec is not what it is to be.
func Differences(old, next swarm.ServiceSpec) []Difference {
	before, after := fields(counted(old)), fields(counted(next))
	names := maps.Clone(before)
	maps.Copy(names, after)
	var list []Difference
	for _, field := range slices.Sorted(maps.Keys(names)) {
		d := Difference{field, before[field], after[field]}
		if d.Old == d.New {
			continue
		}
		otherwise := given[index.ReplaceAllString(field, "[]")]
		d.Old, d.New = cmp.Or(d.Old, otherwise), cmp.Or(d.New, otherwise)
		list = append(list, d)
	}
	return list
}

// counted fills in how often a job runs, as a manager does.
func counted(spec swarm.ServiceSpec) swarm.ServiceSpec {
	if spec.Mode.ReplicatedJob != nil {
		job, one := *spec.Mode.ReplicatedJob, uint64(1)
		job.MaxConcurrent = cmp.Or(job.MaxConcurrent, &one)
		job.TotalCompletions = cmp.Or(job.TotalCompletions, job.MaxConcurrent)
		spec.Mode.ReplicatedJob = &job
	}
	return spec
}

// fields are the values of a spec by where they are, without those that say nothing.
func fields(spec swarm.ServiceSpec) map[string]string {
	data, err := json.Marshal(spec)
	if err != nil {
		return nil
	}
	var tree any
	if json.Unmarshal(data, &tree) != nil {
		return nil
	}
	flat := map[string]string{}
	flatten(tree, "", "", flat)
	return flat
}

func flatten(v any, path, pattern string, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			flatten(value, join(path, key), join(pattern, key), into)
		}
	case []any:
		for i, value := range v {
			flatten(value, path+"["+strconv.Itoa(i)+"]", pattern+"[]", into)
		}
	case nil:
	default:
		text := fmt.Sprint(v)
		if n, ok := v.(float64); ok {
			text = strconv.FormatFloat(n, 'f', -1, 64)
		}
		if text != "" && text != "0" && text != "false" && text != given[pattern] {
			into[path] = text
		}
	}
}

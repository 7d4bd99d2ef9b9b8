package cli

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"shoal/cli/flags"
	"shoal/cli/progress"
)

// rotationPoll is how often the nodes are looked at while the root is rotated: Docker's own pace.
const rotationPoll = 200 * time.Millisecond

func caFlags() flags.Set {
	return flags.Set{
		flags.Var("ca-cert", "", "pem-file", "Path to the PEM-formatted root CA certificate to use for the new cluster", pemFile),
		flags.Var("ca-key", "", "pem-file", "Path to the PEM-formatted root CA key to use for the new cluster", pemFile),
		flags.Duration("cert-expiry", "Validity period for node certificates (ns|us|ms|s|m|h)").WithDefault("2160h0m0s"),
		flags.Bool("detach", "d", "Exit immediately instead of waiting for the root rotation to converge"),
		flags.Many("external-ca", "", "external-ca", "Specifications of one or more certificate signing endpoints", externalCA),
		flags.Bool("quiet", "q", "Suppress progress output"),
		flags.Bool("rotate", "", "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated"),
	}
}

func updateFlags() flags.Set {
	return flags.Set{
		flags.Bool("allow-privileged", "", "Let services have privileged containers, devices and GPUs (true|false)"),
		flags.Bool("autolock", "", "Change manager autolocking setting (true|false)"),
		flags.Duration("cert-expiry", "Validity period for node certificates (ns|us|ms|s|m|h)").WithDefault("2160h0m0s"),
		flags.Duration("dispatcher-heartbeat", "Dispatcher heartbeat period (ns|us|ms|s|m|h)").WithDefault("5s"),
		flags.Many("external-ca", "", "external-ca", "Specifications of one or more certificate signing endpoints", externalCA),
		flags.Uint("max-snapshots", "Number of additional Raft snapshots to retain"),
		flags.Uint("snapshot-interval", "Number of log entries between Raft snapshots").WithDefault("10000"),
		flags.Int("task-history-limit", "Task history retention limit").WithDefault("5"),
	}
}

// pemFile reads a file that a flag names.
func pemFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if block, _ := pem.Decode(data); block == nil {
		return "", errors.New("file contents must be in PEM format")
	}
	return string(data), nil
}

func (s *session) swarmUpdate(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	cluster, err := api.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	was := cluster.Spec.EncryptionConfig.AutoLockManagers
	if in.Changed("autolock") {
		cluster.Spec.EncryptionConfig.AutoLockManagers = in.Bool("autolock")
	}
	if in.Changed("allow-privileged") {
		allowPrivileged(&cluster.Spec, in.Bool("allow-privileged"))
	}
	swarmSpec(in.Set, &cluster.Spec)
	if err := api.SwarmUpdate(ctx, cluster.Version, cluster.Spec, swarm.UpdateFlags{}); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "Swarm updated.")
	if was || !cluster.Spec.EncryptionConfig.AutoLockManagers {
		return nil
	}
	return s.showUnlockKey(ctx)
}

// allowPrivileged says in a label of the swarm what its own fields have no place for.
func allowPrivileged(spec *swarm.Spec, yes bool) {
	const label = "shoal.allow-privileged"
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, label)
	if yes {
		labels[label] = "true"
	}
	spec.Labels = labels
}

func (s *session) swarmCA(ctx context.Context, in input) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	cluster, err := api.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	if !in.Bool("rotate") {
		for _, name := range []string{"ca-cert", "ca-key", "cert-expiry", "external-ca"} {
			if in.Changed(name) {
				return fmt.Errorf("`--%s` flag requires the `--rotate` flag to update the CA", name)
			}
		}
		return s.printRoot(cluster)
	}
	if err := rotateSpec(in.Set, &cluster.Spec); err != nil {
		return err
	}
	if err := api.SwarmUpdate(ctx, cluster.Version, cluster.Spec, swarm.UpdateFlags{}); err != nil {
		return err
	}
	if in.Bool("detach") {
		return nil
	}
	out := s.out
	if in.Bool("quiet") {
		out = io.Discard
	}
	if cluster, err = awaitRotation(ctx, api, progress.NewRotation(out)); err != nil {
		return err
	}
	if in.Bool("quiet") {
		return nil
	}
	return s.printRoot(cluster)
}

// rotateSpec asks for another root: the one that is given, or a new one.
func rotateSpec(f flags.Set, spec *swarm.Spec) error {
	external := len(flags.Get[[]*swarm.ExternalCA](f, "external-ca")) > 0
	switch {
	case external && !f.Changed("ca-cert"):
		return errors.New("rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add an external CA with the current root CA certificate, use the `update` command instead")
	case f.Changed("ca-cert") && !external && !f.Changed("ca-key"):
		return errors.New("the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well")
	}
	swarmSpec(f, spec)
	spec.CAConfig.SigningCACert, spec.CAConfig.SigningCAKey = f.Text("ca-cert"), f.Text("ca-key")
	if !f.Changed("ca-cert") && !f.Changed("ca-key") {
		spec.CAConfig.ForceRotate++
	}
	return nil
}

// awaitRotation shows how far the rotation is until every node has a certificate of the new root and trusts no other.
func awaitRotation(ctx context.Context, api client.APIClient, show *progress.Rotation) (swarm.Swarm, error) {
	tick := time.NewTicker(rotationPoll)
	defer tick.Stop()
	for {
		cluster, err := api.SwarmInspect(ctx)
		if err != nil {
			return cluster, err
		}
		nodes, err := api.NodeList(ctx, swarm.NodeListOptions{})
		if err != nil {
			return cluster, err
		}
		done, err := show.Show(cluster.ClusterInfo, nodes)
		if done || err != nil {
			return cluster, err
		}
		select {
		case <-ctx.Done():
			return cluster, ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *session) printRoot(cluster swarm.Swarm) error {
	if cluster.TLSInfo.TrustRoot == "" {
		//lint:ignore ST1005 these are Docker's words
		return errors.New("No CA information available")
	}
	fmt.Fprintln(s.out, strings.TrimSpace(cluster.TLSInfo.TrustRoot))
	return nil
}

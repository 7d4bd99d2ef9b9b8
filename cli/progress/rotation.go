package progress

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/docker/docker/api/types/swarm"
)

// Rotation shows how far the rotation of a swarm's root certificate is, one line for each time that changes.
type Rotation struct {
	out  io.Writer
	last string
}

// NewRotation shows a rotation on out.
func NewRotation(out io.Writer) *Rotation { return &Rotation{out: out} }

// Show tells what is new, and whether all is done: every node has a certificate of the new root and trusts it alone.
func (r *Rotation) Show(cluster swarm.ClusterInfo, nodes []swarm.Node) (done bool, err error) {
	want := cluster.TLSInfo
	certs, roots := 0, 0
	for _, n := range nodes {
		have := n.Description.TLSInfo
		if bytes.Equal(have.CertIssuerPublicKey, want.CertIssuerPublicKey) && bytes.Equal(have.CertIssuerSubject, want.CertIssuerSubject) {
			certs++
		}
		if have.TrustRoot == want.TrustRoot {
			roots++
		}
	}
	var line string
	if cluster.RootRotationInProgress {
		line = fmt.Sprintf("rotated TLS certificates: %d/%d nodes%s", certs, len(nodes), absent(nodes))
	} else {
		line = fmt.Sprintf("desired root digest: sha256:%x\nrotated TLS certificates: %d/%d nodes\nrotated CA certificates: %d/%d nodes%s",
			sha256.Sum256([]byte(want.TrustRoot)), certs, len(nodes), roots, len(nodes), absent(nodes))
	}
	if line != r.last {
		r.last = line
		if _, err := fmt.Fprintln(r.out, line); err != nil {
			return false, err
		}
	}
	return !cluster.RootRotationInProgress && certs == len(nodes) && roots == len(nodes), nil
}

// absent names the nodes that can not be reached, as they are what a rotation waits for.
func absent(nodes []swarm.Node) string {
	text := ""
	for _, n := range nodes {
		if n.Status.State != swarm.NodeStateReady {
			text += fmt.Sprintf("\n  node %s (%s) is %s: it has to come back, or to be removed", n.Description.Hostname, n.ID, n.Status.State)
		}
	}
	return text
}

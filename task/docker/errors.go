package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

// engineError is an engine's error as a user should read it, with its kind.
type engineError struct {
	text string
	kind error
}

func (e *engineError) Error() string { return e.text }
func (e *engineError) Unwrap() error { return e.kind }

// kinds are the errors that somebody decides on.
var kinds = []error{
	errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrPermissionDenied,
	errdefs.ErrInvalidArgument, errdefs.ErrUnavailable,
}

// say gives an error of the client its kind and its words: unavailable when the
// engine could not be asked, and one line without the wrapping that engine,
// runtime and client add on the way.
func say(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &engineError{text: oneLine(err.Error()), kind: errdefs.ErrUnknown}
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			e.kind = kind
			break
		}
	}
	if lostEngine(err) {
		e.kind = errdefs.ErrUnavailable
	}
	return e
}

// lostEngine tells whether an error means that the engine did not answer.
func lostEngine(err error) bool {
	var network *net.OpError
	text := err.Error()
	return client.IsErrConnectionFailed(err) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		// Another engine came back than the one whose API version was agreed
		// on; the next connection agrees anew.
		strings.Contains(text, "client version") && (strings.Contains(text, "is too old") || strings.Contains(text, "is too new"))
}

// wrapping matches what engines and runtimes put before the reason.
var wrapping = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`Error response from daemon: `, `Error: `,
	`failed to create shim(?: task)?: `, `failed to create task for container: `, `failed to start shim: `,
	`OCI runtime (?:create|start) failed: `, `(?:runc|crun) (?:create|start) failed: `,
	`container_linux\.go:\d+: `, `starting container process caused: `, `unable to start container process: `,
	`error during container init: `, `process_linux\.go:\d+: `,
}, `|`) + `)`)

// request matches the request that failed within an error of net/http.
var request = regexp.MustCompile(`\b(?:Get|Head|Post|Put|Delete) "?[a-z]+://[^ ]*: `)

// longID matches the IDs of containers and endpoints, which nobody reads, but no
// digest, which has to be whole to be of use.
var longID = regexp.MustCompile(`(^|[^0-9a-z:])([0-9a-f]{12})[0-9a-f]{52}\b`)

// oneLine gives the reason alone.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for {
		cut := wrapping.ReplaceAllString(text, "")
		if cut == text {
			break
		}
		text = cut
	}
	text = longID.ReplaceAllString(text, "$1$2")
	return strings.TrimSuffix(request.ReplaceAllString(text, ""), ": unknown")
}

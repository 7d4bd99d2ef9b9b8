package cli

import (
	"context"
	"fmt"
	"net/http"
)

// ifIndex is the header that ties a request to an index of a stack. The cluster checks it with the request.
const ifIndex = "Shoal-If-Index"

// stackIndex asks for the number that stands for everything that a plan of the stack depends on.
func (s *session) stackIndex(ctx context.Context, stack string) (uint64, error) {
	var answer struct{ Index uint64 }
	err := s.ask(ctx, http.MethodGet, "/shoal/stacks/"+stack, nil, &answer)
	return answer.Index, err
}

// onlyIf refuses if the cluster is not any more what a plan was made from, now or when the first thing is written.
func (s *session) onlyIf(ctx context.Context, stack string, index uint64) error {
	s.headers[ifIndex] = fmt.Sprintf("%s=%d", stack, index)
	_, err := s.stackIndex(ctx, stack) // there may be nothing to write
	return err
}

// wrote is told how a write ended. The first that succeeds was made from what the plan saw. With it, the index moves on
// by our own doing; from here on a service that somebody else has changed is left alone, and told.
func (s *session) wrote(err error) error {
	if err == nil {
		delete(s.headers, ifIndex)
	}
	return err
}

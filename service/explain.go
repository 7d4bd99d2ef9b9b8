package service

import (
	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service/scheduler"
)

// Explain asks every node whether it would take one more task of a revision. It
// reads the state anew: who asks for reasons does not do so often.
func Explain(v *store.View, r *api.Revision) ([]scheduler.Verdict, error) {
	q, err := request(v, r)
	if err != nil {
		return nil, err
	}
	return nodesOf(v).Explain(q), nil
}

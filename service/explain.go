package service

import (
	"go.uber.org/zap"

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
	all := nodesOf(v).Explain(q)
	if err := addressFor(v, r); err != nil {
		for i := range all {
			if all[i].Why == "" {
				all[i].Why = err.Error()
			}
		}
	}
	return all, nil
}

// addressFor tells why one more task of a revision would get no address, wherever
// it ran. Nothing is leased.
func addressFor(v *store.View, r *api.Revision) error {
	networks, err := networksOf(v, &r.Spec)
	if err != nil {
		return err
	}
	l := newLeases(zap.NewNop())
	l.begin(v)
	for _, n := range networks {
		if known, ok := v.Networks.Get(n.id); ok {
			l.setNetwork(known)
		}
		for t := range v.Tasks.By(store.ByNetwork, n.id) {
			l.set(t.ID, taskLeases(t))
		}
		for g := range v.Guests.By(store.ByNetwork, n.id) {
			l.set(g.ID, guestLeases(g))
		}
	}
	for s := range v.Services.All() {
		l.set(s.ID, vipLeases(s))
	}
	_, err = l.attach("", networks)
	return err
}

package control

import (
	"context"
	"errors"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/api"
	"shoal/internal/store"
	"shoal/service"
)

// maxWishes bounds what one question costs. A stack has some dozens of services.
const maxWishes = 1000

// Preview says what would become of services if they were asked for now: whether they would be refused, and where
// their tasks would run. Nothing is written, and nothing is reserved.
func (c *Control) Preview(ctx context.Context, wishes []api.Wish) ([]api.Preview, error) {
	if len(wishes) > maxWishes {
		return nil, invalid("at most %d services can be looked at together", maxWishes)
	}
	v := c.View()
	refused := make([]error, len(wishes))
	// One after the other, as they would be granted: two may want the same port, or
	// one that another gives up. That takes as long as the nodes that are asked, and
	// holds up nobody.
	if err := c.store.Update(ctx, func(tx *store.Tx) error {
		for i := range wishes {
			refused[i] = c.try(ctx, tx, &wishes[i])
		}
		return errOnlyLooked
	}); !errors.Is(err, errOnlyLooked) {
		return nil, err
	}
	out := service.Preview(v, wishes, func(w api.Wish) service.Kept {
		s, ok := v.Services.Get(w.ID)
		if !ok {
			return service.KeptNowhere
		}
		is, wanted := inputsOf(&s.Spec), inputsOf(&w.Spec)
		switch {
		case sameJSON(is, wanted):
			return service.KeptEverywhere
		case sameJSON(is.anywhere(), wanted.anywhere()) && !api.Job(w.Spec.Mode):
			return service.KeptWhereAllowed
		}
		return service.KeptNowhere
	})
	for i, err := range refused {
		if err != nil {
			out[i] = api.Preview{Refused: err.Error()}
		}
	}
	return out, nil
}

// errOnlyLooked ends a transaction that nothing is to come of.
var errOnlyLooked = errors.New("only looked")

// try grants a wish in a transaction, after the checks that the request itself would meet, and brings it into the form
// in which it would be stored.
func (c *Control) try(ctx context.Context, tx *store.Tx, w *api.Wish) error {
	s := &api.Service{Meta: api.Meta{ID: api.NewID()}}
	var old *api.Service
	var before *swarm.ServiceSpec
	if w.ID != "" {
		var err error
		if old, err = findService(&tx.View, w.ID); err != nil {
			return err
		}
		w.ID, before, s = old.ID, &old.Spec, api.Clone(old)
	}
	if w.Remove && old != nil {
		return tx.Delete(api.KindService, old.ID)
	}
	w.Spec = normalizeSpec(w.Spec)
	if old == nil {
		if err := nameFree(&tx.View, w.Spec.Name); err != nil {
			return err
		}
	} else if err := validateChange(before, &w.Spec); err != nil {
		return err
	}
	if err := validateSpec(&w.Spec); err != nil {
		return err
	}
	if err := c.allowSettings(&w.Spec, before); err != nil {
		return err
	}
	busy, err := c.freeOnNodes(ctx, &tx.View, w.ID, w.Spec.EndpointSpec, old)
	if err != nil {
		return err
	}
	s.Spec = copySpec(w.Spec)
	if err := fillEndpoint(&tx.View, s, old, busy); err != nil {
		return err
	}
	return tx.Put(s)
}

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
	busy := make([]service.BusyPorts, len(wishes))
	for i := range wishes {
		busy[i], refused[i] = c.previewable(ctx, v, &wishes[i])
	}
	// One after the other, as they would be granted: two may want the same port.
	if err := c.store.Update(ctx, func(tx *store.Tx) error {
		for i := range wishes {
			if refused[i] == nil {
				refused[i] = try(tx, &wishes[i], busy[i])
			}
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

// previewable checks a wish as the request itself would be, and brings it into the form in which it would be stored.
func (c *Control) previewable(ctx context.Context, v *store.View, w *api.Wish) (service.BusyPorts, error) {
	w.Spec = normalizeSpec(w.Spec)
	var old *api.Service
	var before *swarm.ServiceSpec
	if w.ID == "" {
		if err := nameFree(v, w.Spec.Name); err != nil {
			return nil, err
		}
	} else {
		var err error
		if old, err = findService(v, w.ID); err != nil {
			return nil, err
		}
		w.ID, before = old.ID, &old.Spec
		if err := validateChange(before, &w.Spec); err != nil {
			return nil, err
		}
	}
	if err := validateSpec(&w.Spec); err != nil {
		return nil, err
	}
	if err := c.allowSettings(&w.Spec, before); err != nil {
		return nil, err
	}
	return c.freeOnNodes(ctx, w.ID, w.Spec.EndpointSpec, old)
}

// try grants a wish in a transaction, as far as others may be in its way.
func try(tx *store.Tx, w *api.Wish, busy service.BusyPorts) error {
	s := &api.Service{Meta: api.Meta{ID: api.NewID()}}
	old, exists := tx.Services.Get(w.ID)
	if exists {
		s = api.Clone(old)
	}
	s.Spec = copySpec(w.Spec)
	if err := fillEndpoint(&tx.View, s, old, busy); err != nil {
		return err
	}
	return tx.Put(s)
}

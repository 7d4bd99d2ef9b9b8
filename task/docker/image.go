package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"shoal/internal/api"
)

// registryPatience is how long a registry has to answer when there is a local
// image to fall back to. An engine waits 15 to 30 seconds for a registry that
// can not be reached; a task that could run must not. Once the registry has
// answered, the pull takes the time it takes.
const registryPatience = 3 * time.Second

// pulls has each image pulled once for each revision. All tasks of a revision
// on a node then run the same image, whatever its tag points to meanwhile, and
// a registry that is slow to fail costs a service its patience once instead of
// once for each task.
type pulls struct {
	mu     sync.Mutex
	done   map[string]bool    // by revision
	flying map[string]*flight // by revision
}

// flight is one attempt to pull; everybody who waits for it shares its outcome.
type flight struct {
	done chan struct{}
	err  error
}

// pullsRemembered bounds what is remembered; to forget costs one look at the
// registry.
const pullsRemembered = 1000

func newPulls() *pulls {
	return &pulls{done: map[string]bool{}, flying: map[string]*flight{}}
}

// Pull implements task.Executor.
func (e *Executor) Pull(ctx context.Context, a *api.Assignment) error {
	cs := a.Revision.Spec.TaskTemplate.ContainerSpec
	if cs == nil {
		return refuse("the task is not a container")
	}
	c, err := e.engine(ctx)
	if err != nil {
		return err
	}
	for {
		local, err := present(ctx, c, cs.Image)
		if err != nil {
			return err
		}
		f, first := e.pulls.join(a.Revision.ID, local, pinned(cs.Image))
		if f == nil {
			return nil
		}
		if first {
			f.err = e.pullNow(ctx, c, a, cs.Image, local)
			e.pulls.leave(a.Revision.ID, f)
			return f.err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.done:
		}
		// The first may have given up for a reason of its own.
		if !errors.Is(f.err, context.Canceled) && !errdefs.IsUnavailable(f.err) {
			return f.err
		}
	}
}

// pullNow pulls an image, unless that failed a moment ago. A local image to fall
// back to has made the registry's answer less important already.
func (e *Executor) pullNow(ctx context.Context, c *client.Client, a *api.Assignment, ref string, local bool) error {
	auths := credentials(a)
	if local {
		return e.pull(ctx, c, ref, auths, local)
	}
	attempt := attemptOf(a.Revision.ID, strings.Join(auths, " "))
	if err := e.failures.check(ref, attempt); err != nil {
		return err
	}
	err := e.pull(ctx, c, ref, auths, local)
	if err == nil || errdefs.IsNotFound(err) { // anything else says nothing about the image
		e.failures.note(ref, attempt, err)
	}
	return err
}

// join gives the attempt to wait for, and whether the caller has to make it;
// nil when the image is there already.
func (p *pulls) join(revision string, local, pinned bool) (f *flight, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if local && (pinned || p.done[revision]) {
		return nil, false
	}
	if f := p.flying[revision]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	p.flying[revision] = f
	return f, true
}

func (p *pulls) leave(revision string, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, revision)
	if f.err == nil {
		if len(p.done) >= pullsRemembered {
			clear(p.done)
		}
		p.done[revision] = true
	}
	close(f.done)
}

// pull tries the registry, and does with the local image when that fails.
func (e *Executor) pull(ctx context.Context, c *client.Client, ref string, auths []string, local bool) error {
	patience := time.Duration(0)
	if local {
		patience = registryPatience
	}
	var err error
	for _, auth := range auths {
		if err = fetch(ctx, c, ref, auth, patience); err == nil || !refusedLogin(err) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case local:
		e.log.Info("the image could not be pulled; the local one is used", zap.String("image", ref), zap.String("error", oneLine(err.Error())))
		return nil
	case lostEngine(err):
		return say(err)
	}
	return &engineError{text: "No such image: " + familiar(ref) + " (" + oneLine(err.Error()) + ")", kind: errdefs.ErrNotFound}
}

// fetch pulls an image. With a patience, the registry must answer within it.
func fetch(ctx context.Context, c *client.Client, ref, auth string, patience time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answered := func() {}
	if patience > 0 {
		t := time.AfterFunc(patience, func() { cancel(errors.New("the registry did not answer in time")) })
		defer t.Stop()
		answered = func() { t.Stop() }
	}
	err := func() error {
		progress, err := c.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
		if err != nil {
			return err
		}
		defer progress.Close()
		lines := json.NewDecoder(progress)
		for {
			var line struct {
				Error string `json:"error"`
			}
			switch err := lines.Decode(&line); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case line.Error != "":
				return errors.New(line.Error)
			}
			answered() // the engine says nothing before the registry does
		}
	}()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// present tells whether the engine has an image.
func present(ctx context.Context, c *client.Client, ref string) (bool, error) {
	_, err := c.ImageInspect(ctx, ref)
	switch {
	case err == nil:
		return true, nil
	case lostEngine(err), ctx.Err() != nil:
		return false, say(err)
	}
	return false, nil // also when the reference is malformed: pulling says so
}

// pinned tells whether a reference means one image for ever.
func pinned(ref string) bool {
	r, err := reference.ParseAnyReference(ref)
	if err != nil {
		return false
	}
	_, ok := r.(reference.Digested)
	return ok
}

// familiar gives a reference as users write it, with its tag.
func familiar(ref string) string {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(reference.TagNameOnly(n))
}

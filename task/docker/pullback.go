package docker

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// An image that can not be pulled makes every task that needs it fail, and each
// is replaced. So that a registry is not asked once for each of them, a node
// leaves an image alone for a while after a failure, longer each time. What is
// new gets its try at once: another revision, other credentials.

const (
	// pullBackMin and pullBackMax bound that while.
	pullBackMin = time.Second
	pullBackMax = 5 * time.Minute
	// failuresRemembered bounds what is remembered; to forget costs one try.
	failuresRemembered = 1000
)

// failures are the images that could not be pulled.
type failures struct {
	now func() time.Time

	mu sync.Mutex
	of map[string]*failure
}

type failure struct {
	err   error
	count int
	until time.Time
	tried map[string]bool // by attemptOf
}

func newFailures() *failures { return &failures{now: time.Now, of: map[string]*failure{}} }

// attemptOf tells attempts apart that may end differently.
func attemptOf(revision, auth string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(auth)) // a hash takes all
	return fmt.Sprintf("%s %x", revision, h.Sum64())
}

// check refuses an attempt that would come too soon.
func (f *failures) check(image, attempt string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.of[image]
	if last == nil || !last.tried[attempt] {
		return nil
	}
	left := last.until.Sub(f.now())
	if left <= 0 {
		return nil
	}
	tried := "once"
	if last.count > 1 {
		tried = fmt.Sprintf("%d times", last.count)
	}
	return fmt.Errorf("%w; tried %s, again in %s", last.err, tried, max(left.Round(time.Second), time.Second))
}

// note takes in how an attempt ended.
func (f *failures) note(image, attempt string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.of, image)
		return
	}
	last := f.of[image]
	if last == nil {
		if len(f.of) >= failuresRemembered {
			clear(f.of)
		}
		last = &failure{}
		f.of[image] = last
	}
	if !last.tried[attempt] {
		last.count, last.tried = 0, map[string]bool{attempt: true}
	}
	last.err = err
	wait := min(pullBackMin<<min(last.count, 10), pullBackMax)
	last.count++
	// Nodes that failed together do not come again together.
	last.until = f.now().Add(wait + time.Duration(rand.Int64N(int64(wait/4))))
}

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"shoal/internal/testbed"
)

const (
	// askEvery is the time between two pages that the client asks for.
	askEvery = 20 * time.Millisecond
	// answerTime is how long a page may take to come.
	answerTime = 2 * time.Second
)

// load asks hosts for pages in turn, from outside and in a steady beat: a page
// that is long in coming holds up no other.
type load struct {
	client *http.Client
	stop   context.CancelFunc
	done   chan struct{} // no more pages are asked for
	pages  sync.WaitGroup

	mu         sync.Mutex
	asked      int
	unanswered int
	slowest    time.Duration // of those that were answered
}

func (s *story) startLoad(ctx context.Context, hosts []*testbed.Host) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{client: s.bed.Client().HTTP(), stop: stop, done: make(chan struct{})}
	l.client.Timeout = answerTime
	go l.run(ctx, hosts)
	return l
}

func (l *load) run(ctx context.Context, hosts []*testbed.Host) {
	defer close(l.done)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		url := "http://" + net.JoinHostPort(hosts[i%len(hosts)].IP.String(), port) + "/"
		l.pages.Go(func() { l.ask(url) })
	}
}

func (l *load) ask(url string) {
	begin := time.Now()
	resp, err := l.client.Get(url)
	if err == nil {
		err = resp.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err != nil {
		l.unanswered++
	} else {
		l.slowest = max(l.slowest, time.Since(begin))
	}
}

// end asks for no more, waits for what is on its way, and says how it went.
func (l *load) end() string {
	l.stop()
	<-l.done
	l.pages.Wait()
	return fmt.Sprintf("%d pages were asked for meanwhile: %d without an answer, the slowest took %s",
		l.asked, l.unanswered, l.slowest.Round(time.Millisecond))
}

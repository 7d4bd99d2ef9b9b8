package proxy

import (
	"math/rand/v2"
	"runtime"
	"sync"

	"go.uber.org/zap"
)

// loops share the work of a plane, one for each processor.
type loops struct {
	all  []*loop
	next int // whose turn it is to have a port
	work sync.WaitGroup
}

// startLoops makes them and has them run.
func startLoops(log *zap.Logger) (*loops, error) {
	g := &loops{}
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(log)
		if err != nil {
			for _, made := range g.all {
				made.free()
			}
			return nil, err
		}
		g.all = append(g.all, l)
	}
	for _, l := range g.all {
		g.work.Go(l.run)
	}
	return g, nil
}

// forPort gives the loop that is to accept a port's clients.
func (g *loops) forPort() *loop {
	g.next = (g.next + 1) % len(g.all)
	return g.all[g.next]
}

// slack is how many connections more than another a loop may have. Less is not
// worth the way to it.
const slack = 1

// forClient gives the loop that is to serve a client that one has accepted: that
// one, unless another has clearly less to do.
func (g *loops) forClient(l *loop) *loop {
	if other := g.all[rand.IntN(len(g.all))]; other.load.Load()+slack < l.load.Load() {
		return other
	}
	return l
}

// each has every loop do something, and waits until all did.
func (g *loops) each(f func(*loop)) { do(g.all, f) }

// do has some loops do something, and waits until all did.
func do(some []*loop, f func(*loop)) {
	var did sync.WaitGroup
	for _, l := range some {
		did.Add(1)
		l.call(func() { defer did.Done(); f(l) })
	}
	did.Wait()
}

// stop ends the loops and every connection.
func (g *loops) stop() {
	g.each(func(l *loop) { l.ended = true })
	g.work.Wait()
}

package cli

import (
	"time"

	"github.com/moby/term"
)

// resizeLook is how often a terminal is asked for its size: Windows does not tell.
const resizeLook = 250 * time.Millisecond

// onResize calls f whenever a terminal gets another size, until what it returns is called.
func onResize(fd uintptr, f func()) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(resizeLook)
		defer look.Stop()
		var last term.Winsize
		for {
			select {
			case <-ended:
				return
			case <-look.C:
			}
			if size, err := term.GetWinsize(fd); err == nil && *size != last {
				last = *size
				f()
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

//go:build unix

package cli

import (
	"os"
	"os/signal"
	"syscall"
)

// onResize calls f whenever a terminal gets another size, until what it returns is called.
func onResize(_ uintptr, f func()) (stop func()) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range resized {
			f()
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
		<-done
	}
}

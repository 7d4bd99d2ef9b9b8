package task

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestAwaited(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel tells only on Linux")
	}
	if awaited(0) {
		t.Error("connections wait for nobody")
	}
	before := awaited(os.Getpid())
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !awaited(os.Getpid()) {
		t.Fatal("a connection that nobody has accepted is not seen")
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for deadline := time.Now().Add(10 * time.Second); !before && awaited(os.Getpid()); {
		if time.Now().After(deadline) {
			t.Fatal("one that was accepted still waits")
		}
		time.Sleep(time.Millisecond)
	}
}

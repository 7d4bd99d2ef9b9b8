package daemon

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestPortFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	me := "(pid " + strconv.Itoa(os.Getpid()) + ")"
	if err := portFree(addr); err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), me) {
		t.Errorf("a taken port: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := portFree(addr); err == nil || !strings.Contains(err.Error(), "udp") || !strings.Contains(err.Error(), me) {
		t.Errorf("a port that is taken for datagrams: %v", err)
	}
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := portFree(addr); err != nil {
		t.Errorf("a free port: %v", err)
	}
	if err := portFree("192.0.2.1:2377"); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("somebody else's address: %v", err)
	}
}

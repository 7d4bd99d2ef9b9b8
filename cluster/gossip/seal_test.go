package gossip

import (
	"bytes"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

func ring(t testing.TB, cluster string, keys ...Key) *keyring {
	t.Helper()
	r := &keyring{cluster: cluster}
	if err := r.set(keys); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeal(t *testing.T) {
	a, b := testKey(1), testKey(2)
	packet, err := ring(t, "c", a).seal(kindPing, "me", []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ring *keyring
		ok   bool
	}{
		"same key":           {ring(t, "c", a), true},
		"second key":         {ring(t, "c", b, a), true},
		"other key":          {ring(t, "c", b), false},
		"other cluster":      {ring(t, "d", a), false},
		"no keys were given": {&keyring{cluster: "c"}, false},
	} {
		k, sender, body, ok := c.ring.open(packet)
		if ok != c.ok || ok && (k != kindPing || sender != "me" || string(body) != "body") {
			t.Errorf("%s: %v %q %q %v", name, k, sender, body, ok)
		}
	}
	// Not a bit of it can be changed, nor the end cut off.
	r := ring(t, "c", a)
	for i := range packet {
		bad := bytes.Clone(packet)
		bad[i] ^= 1
		if _, _, _, ok := r.open(bad); ok {
			t.Errorf("byte %d was changed unnoticed", i)
		}
		if _, _, _, ok := r.open(packet[:i]); ok {
			t.Errorf("cut off at %d unnoticed", i)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	r := ring(t, "c", testKey(1))
	if _, err := r.seal(kindPing, "me", make([]byte, maxPacket)); !errors.Is(err, errOversize) {
		t.Errorf("oversize: %v", err)
	}
	if err := r.set(nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no keys: %v", err)
	}
	if err := r.set([]Key{testKey(1), make(Key, 16)}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("short key: %v", err)
	}
	if _, err := r.seal(kindPing, "me", nil); err != nil {
		t.Errorf("refused keys replaced the good ones: %v", err)
	}
}

// BenchmarkStranger is what a packet of somebody without a key costs.
func BenchmarkStranger(b *testing.B) {
	packet, _ := ring(b, "c", testKey(2)).seal(kindPing, "me", make([]byte, 1000))
	r := ring(b, "c", testKey(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, ok := r.open(packet); ok {
			b.Fatal("opened")
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	r := ring(b, "c", testKey(2), testKey(1))
	packet, _ := ring(b, "c", testKey(1)).seal(kindPing, "me", make([]byte, 100))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, ok := r.open(packet); !ok {
			b.Fatal("not opened")
		}
	}
}

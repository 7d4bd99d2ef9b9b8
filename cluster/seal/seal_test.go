package seal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

var own = Owner{ClusterID: "cluster1", NodeID: "node1"}

// TestIsXAES holds the cipher against the vectors of the XAES-256-GCM
// specification (C2SP).
func TestIsXAES(t *testing.T) {
	nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
	for _, v := range []struct {
		key             byte
		aad, ciphertext string
	}{
		{0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		k := keyOf([KeySize]byte(bytes.Repeat([]byte{v.key}, KeySize)), own)
		got := k.derive(nonce).Seal(nil, nonce[gcmNonce:], []byte("XAES-256-GCM"), []byte(v.aad))
		if hex.EncodeToString(got) != v.ciphertext {
			t.Errorf("key %x: %x", v.key, got)
		}
	}
}

func drawPlace(t *rapid.T, label string) Place {
	return Place{
		Kind:  rapid.SampledFrom([]string{KindEntry, KindValue, KindSnapshot, KindNodeKey}).Draw(t, label+" kind"),
		Index: rapid.Uint64Range(0, 3).Draw(t, label+" index"),
		Name:  rapid.SampledFrom([]string{"", "a", "ab"}).Draw(t, label+" name"),
	}
}

func drawOwner(t *rapid.T, label string) Owner {
	return Owner{
		ClusterID: rapid.SampledFrom([]string{"c", "cn", "d"}).Draw(t, label+" cluster"),
		NodeID:    rapid.SampledFrom([]string{"n", "nn", ""}).Draw(t, label+" node"),
	}
}

// TestOpensOnlyWhereItBelongs moves sealed data to other places, nodes and keys,
// and changes it.
func TestOpensOnlyWhereItBelongs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		at, owner := drawPlace(t, "at"), drawOwner(t, "owner")
		raw := [KeySize]byte(rapid.SliceOfN(rapid.Byte(), KeySize, KeySize).Draw(t, "key"))
		k := keyOf(raw, owner)
		sealed := k.Seal(at, plain)
		if len(sealed) != len(plain)+Overhead {
			t.Fatalf("%d bytes became %d", len(plain), len(sealed))
		}
		if got, err := k.Open(at, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened as %x, %v", got, err)
		}

		elsewhere, other := drawPlace(t, "elsewhere"), drawOwner(t, "other")
		if _, err := keyOf(raw, other).Open(elsewhere, sealed); (err == nil) != (elsewhere == at && other == owner) {
			t.Fatalf("sealed for %v of %v; opened for %v of %v: %v", at, owner, elsewhere, other, err)
		}
		if _, err := NewKey(owner).Open(at, sealed); !errors.Is(err, ErrSealed) {
			t.Fatalf("opened with another key: %v", err)
		}
		flip := rapid.IntRange(0, len(sealed)*8-1).Draw(t, "bit")
		sealed[flip/8] ^= 1 << (flip % 8)
		if _, err := k.Open(at, sealed); !errors.Is(err, ErrSealed) {
			t.Fatalf("bit %d flipped: %v", flip, err)
		}
		sealed[flip/8] ^= 1 << (flip % 8)
		cut := rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")
		if _, err := k.Open(at, sealed[:cut]); !errors.Is(err, ErrSealed) {
			t.Fatalf("cut to %d bytes: %v", cut, err)
		}
	})
}

// fuzzKey is the same in all processes: seeds come from another than the one that
// tries them.
var fuzzKey = keyOf([KeySize]byte{1}, own)

func FuzzOpen(f *testing.F) {
	at := Place{Kind: KindEntry, Index: 7}
	f.Add([]byte{})
	f.Add(make([]byte, Overhead))
	f.Add(make([]byte, Overhead+100))
	f.Add(fuzzKey.Seal(at, []byte("sealed")))
	f.Add(fuzzKey.Seal(Place{Kind: KindEntry, Index: 8}, []byte("elsewhere")))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := fuzzKey.Open(at, data)
		if err == nil && string(plain) != "sealed" || err != nil && !errors.Is(err, ErrSealed) {
			t.Fatalf("opened as %q: %v", plain, err)
		}
	})
}

// FuzzFile: the file with the data key is read before anything vouches for it.
func FuzzFile(f *testing.F) {
	unlock := UnlockKey{2}
	path := filepath.Join(f.TempDir(), "key")
	for _, lock := range []Lock{{}, {Epoch: 1, Key: &unlock}} {
		if _, err := Create(path, fuzzKey, lock); err != nil {
			f.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		var g guarded
		if err := json.Unmarshal(raw, &g); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(g.Content), true)
		f.Add(raw, false)
	}
	f.Add([]byte(`{"Format":2}`), true)
	f.Fuzz(func(t *testing.T, data []byte, whole bool) {
		if whole { // what is in it may be anything, undamaged
			var err error
			if data, err = json.Marshal(guarded{Content: data, Sum: checksum(data)}); err != nil {
				return
			}
		}
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := Load(path, own)
		if err != nil {
			if !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
				t.Fatal(err)
			}
			return
		}
		for _, key := range []*UnlockKey{nil, {3}, &unlock} {
			k, err := file.Open(key)
			if err != nil {
				if !errdefs.IsDataLoss(err) && !errdefs.IsUnauthorized(err) {
					t.Fatal(err)
				}
				continue
			}
			if file.Locked() && (key != &unlock || k.raw != fuzzKey.raw) {
				t.Fatal("a locked data key was opened without its key")
			}
		}
	})
}

func FuzzUnlockKey(f *testing.F) {
	f.Add(UnlockKey{1}.String())
	f.Add(unlockPrefix)
	f.Add(unlockPrefix + strings.Repeat("A", 42) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseUnlockKey(text); err == nil && k.String() != text {
			t.Fatalf("%q was read as %q", text, k)
		}
	})
}

func TestSealingTwiceDiffers(t *testing.T) {
	k := NewKey(own)
	if bytes.Equal(k.Seal(Place{}, []byte("x")), k.Seal(Place{}, []byte("x"))) {
		t.Fatal("a nonce was used twice")
	}
}

func TestUnlockKeyText(t *testing.T) {
	k := NewUnlockKey()
	text := k.String()
	if len(text) != len("SWMKEY-1-")+43 {
		t.Fatalf("%d characters", len(text))
	}
	if got, err := ParseUnlockKey(text); err != nil || got != k {
		t.Fatalf("read back as %v, %v", got, err)
	}
	for _, bad := range []string{"", "foo", text[:51], text + "A", text + "\n", "SWMKEY-2-" + text[9:], text[:51] + "!"} {
		_, err := ParseUnlockKey(bad)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
		if body := strings.TrimPrefix(bad, "SWMKEY-1-"); len(body) > 20 && strings.Contains(err.Error(), body[:20]) {
			t.Errorf("the error gives the key away: %v", err)
		}
	}
}

func TestFileTakesEveryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft", "key")
	k := NewKey(own)
	a, b := NewUnlockKey(), NewUnlockKey()
	if _, err := Create(path, k, Lock{}); err != nil {
		t.Fatal(err)
	}
	for i, lock := range []Lock{{}, {1, &a}, {2, &b}, {3, nil}, {4, &a}} {
		f, err := Load(path, own)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Rewrap(k, lock); err != nil {
			t.Fatal(err)
		}
		f, err = Load(path, own)
		if err != nil {
			t.Fatal(err)
		}
		if f.Epoch() != lock.Epoch || f.Locked() != (lock.Key != nil) {
			t.Fatalf("lock %d: epoch %d, locked %v", i, f.Epoch(), f.Locked())
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if lock.Key != nil {
			for _, wrong := range []*UnlockKey{nil, {}, other(*lock.Key, a, b)} {
				if _, err := f.Open(wrong); !errdefs.IsUnauthorized(err) {
					t.Fatalf("lock %d opened with a wrong key: %v", i, err)
				}
			}
			if bytes.Contains(raw, []byte(lock.Key.String()[9:])) {
				t.Fatal("the unlock key is in the file")
			}
		}
		got, err := f.Open(lock.Key)
		if err != nil {
			t.Fatal(err)
		}
		if got.raw != k.raw || got.ID() != k.ID() {
			t.Fatalf("lock %d: another data key came out", i)
		}
	}
	if _, err := Load(path, Owner{ClusterID: "cluster1", NodeID: "node2"}); !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("another node's: %v", err)
	}
	if _, err := Load(path+"x", own); !errdefs.IsNotFound(err) {
		t.Fatalf("missing: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func other(not, a, b UnlockKey) *UnlockKey {
	if not == a {
		return &b
	}
	return &a
}

// TestDamagedFileIsNotAWrongKey flips each bit of the file.
func TestDamagedFileIsNotAWrongKey(t *testing.T) {
	for name, unlock := range map[string]*UnlockKey{"clear": nil, "locked": {1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			k := NewKey(own)
			if _, err := Create(path, k, Lock{Epoch: 1, Key: unlock}); err != nil {
				t.Fatal(err)
			}
			healthy, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range len(healthy) * 8 {
				raw := bytes.Clone(healthy)
				raw[bit/8] ^= 1 << (bit % 8)
				if err := os.WriteFile(path, raw, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := Load(path, own)
				if err == nil {
					// JSON does not mind another blank at the end, or another
					// letter case of a name: then nothing is lost.
					got, err := f.Open(unlock)
					if err != nil || got.raw != k.raw {
						t.Fatalf("bit %d: %v", bit, err)
					}
					continue
				}
				if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "join again") {
					t.Fatalf("bit %d: %v", bit, err)
				}
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path, own); !errdefs.IsDataLoss(err) {
				t.Fatalf("an empty file: %v", err)
			}
		})
	}
}

package seal

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const crashEnv = "SHOAL_TEST_SEAL_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		fmt.Fprintln(os.Stderr, changeLocksUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// lockAt is the lock of an epoch: each third is none.
func lockAt(epoch uint64) Lock {
	if epoch%3 == 0 {
		return Lock{Epoch: epoch}
	}
	return Lock{Epoch: epoch, Key: &UnlockKey{byte(epoch), byte(epoch >> 8), byte(epoch >> 16)}}
}

// changeLocksUntilKilled is the child: it says which lock is in place after it
// is, and begins with the next at once.
func changeLocksUntilKilled(path string) error {
	for {
		f, err := Load(path, own)
		if err != nil {
			return err
		}
		k, err := f.Open(lockAt(f.Epoch()).Key)
		if err != nil {
			return err
		}
		for range 100 {
			if err := f.Rewrap(k, lockAt(f.Epoch()+1)); err != nil {
				return err
			}
			fmt.Println(f.Epoch())
		}
	}
}

// TestKilledWhileChangingLocks kills a process that locks, changes the key and
// unlocks. The data key must come out with the lock that was acknowledged last
// or the one that was under way.
func TestKilledWhileChangingLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k := NewKey(own)
	if _, err := Create(path, k, lockAt(0)); err != nil {
		t.Fatal(err)
	}
	for round := range 25 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashEnv+"="+path)
		var stderr bytes.Buffer
		child.Stderr = &stderr
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var acknowledged uint64
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &acknowledged); err != nil {
				t.Fatal(err)
			}
			if n == 1+round*2 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); child.ProcessState.Success() || stderr.Len() > 0 {
			t.Fatalf("round %d: the child ended by itself: %v %s", round, err, stderr.String())
		}
		f, err := Load(path, own)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if f.Epoch() != acknowledged && f.Epoch() != acknowledged+1 {
			t.Fatalf("round %d: epoch %d, but %d was acknowledged", round, f.Epoch(), acknowledged)
		}
		got, err := f.Open(lockAt(f.Epoch()).Key)
		if err != nil || got.raw != k.raw {
			t.Fatalf("round %d, epoch %d: %v", round, f.Epoch(), err)
		}
	}
}

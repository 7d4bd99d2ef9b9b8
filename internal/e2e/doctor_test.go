package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"shoal/internal/doctor"
	"shoal/internal/testbed"
)

// diagnosis is what the doctor of a host finds, and how it exits.
func diagnosis(h *testbed.Host) (findings []doctor.Finding, code int, err error) {
	r := h.Shoal("doctor", "--format", "json")
	for line := range strings.Lines(r.Stdout) {
		var f doctor.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			return nil, r.Code, fmt.Errorf("%w: %s%s", err, r.Stdout, r.Stderr)
		}
		findings = append(findings, f)
	}
	if len(findings) == 0 {
		return nil, r.Code, fmt.Errorf("no findings: %s", r.Stderr)
	}
	return findings, r.Code, nil
}

// well fails unless nothing fails on a host.
func well(h *testbed.Host) func() error {
	return func() error {
		findings, code, err := diagnosis(h)
		if err != nil {
			return err
		}
		if code != 0 || doctor.Failed(findings) {
			return fmt.Errorf("%s exits with %d: %+v", h.Name, code, findings)
		}
		return nil
	}
}

// finds waits until the doctor of a host fails for a reason that has all the
// words, and says what to do about it.
func finds(t *testing.T, h *testbed.Host, check string, words ...string) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		findings, code, err := diagnosis(h)
		if err != nil {
			return err
		}
		for _, f := range findings {
			ok := f.Check == check && f.Level == doctor.Fail && f.Todo != ""
			for _, w := range words {
				ok = ok && strings.Contains(f.Subject+": "+f.Text, w)
			}
			if ok && code == 1 {
				return nil
			}
		}
		return fmt.Errorf("%s exits with %d and does not find %q: %+v", h.Name, code, words, findings)
	})
}

func TestDoctor(t *testing.T) {
	bed := testbed.Start(t, 3)
	h1, h2, h3 := bed.Host(0), bed.Host(1), bed.Host(2)
	ctx := context.Background()

	t.Run("in no cluster", func(t *testing.T) {
		if err := well(h1)(); err != nil {
			t.Error(err)
		}
	})
	testbed.Must(t, h1.Shoal("swarm", "init"))
	join(t, h1, h2, "worker")
	join(t, h1, h3, "worker")
	testbed.Must(t, h1.Shoal("service", "create", "-q", "--name", "web", "--replicas", "3", "--publish", "8080:8080", "--no-resolve-image", testbed.WebV1))
	for _, h := range bed.Hosts() {
		testbed.Eventually(t, patience, well(h))
	}
	text := testbed.Must(t, h2.Shoal("doctor", "--all"))
	for _, want := range []string{"OK    " + h1.Name + ": TCP and UDP 2377 and UDP 4789 both ways", "OK    " + h3.Name + ": TCP", "2 of 2 nodes: agree", "kernel and engine have what the managers want"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}

	t.Run("strangers get no echo", func(t *testing.T) {
		stranger := &http.Client{Transport: &http.Transport{
			DialContext: bed.Client().Dial, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
		defer stranger.CloseIdleConnections()
		for _, h := range []*testbed.Host{h1, h2} {
			resp, err := stranger.Post("https://"+h.IP.String()+":2377/shoal/echo", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode == http.StatusNotFound {
				t.Errorf("%s: status %d", h.Name, resp.StatusCode)
			}
		}
	})

	rule := func(t *testing.T, h *testbed.Host, rule string) {
		t.Helper()
		for _, line := range []string{"add table inet closed", "add chain inet closed in { type filter hook input priority -300; }", "add rule inet closed in " + rule} {
			testbed.Must(t, h.Run(ctx, append([]string{"nft"}, strings.Fields(line)...)...))
		}
		t.Cleanup(func() {
			testbed.Must(t, h.Run(ctx, "nft", "delete", "table", "inet", "closed"))
			for _, h := range bed.Hosts() {
				testbed.Eventually(t, patience, well(h))
			}
		})
	}
	t.Run("a UDP port is closed", func(t *testing.T) {
		rule(t, h2, "udp dport 2377 drop")
		finds(t, h1, doctor.CheckReach, h1.Name+" -> "+h2.Name, "UDP "+h2.IP.String()+":2377", "no packet arrives")
		finds(t, h2, doctor.CheckReach, h1.Name+" -> "+h2.Name, "gossip")
		finds(t, h2, doctor.CheckReach, h3.Name+" -> "+h2.Name, "gossip")
	})
	t.Run("the tunnel's port is closed", func(t *testing.T) {
		rule(t, h3, "ip saddr "+h2.IP.String()+" udp dport 4789 drop")
		finds(t, h2, doctor.CheckReach, h2.Name+" -> "+h3.Name, "UDP "+h3.IP.String()+":4789", "no packet arrives")
		if err := well(h1)(); err != nil {
			t.Errorf("what is closed between two others is no failure: %v", err)
		}
	})
	t.Run("TCP is closed one way", func(t *testing.T) {
		rule(t, h2, "ip saddr "+h1.IP.String()+" tcp dport 2377 drop")
		finds(t, h1, doctor.CheckReach, h1.Name+" -> "+h2.Name, "TCP "+h2.IP.String()+":2377")
		finds(t, h2, doctor.CheckReach, h1.Name+" -> "+h2.Name, "TCP port")
	})
	t.Run("no leader", func(t *testing.T) {
		if err := h1.KillShoal(ctx); err != nil {
			t.Fatal(err)
		}
		finds(t, h2, doctor.CheckRaft, "no manager that could be asked knows a leader")
		finds(t, h2, doctor.CheckReach, h2.Name+" -> "+h1.Name, "TCP")
		if err := h1.StartShoal(ctx); err != nil {
			t.Fatal(err)
		}
		for _, h := range bed.Hosts() {
			testbed.Eventually(t, patience, well(h))
		}
	})
	t.Run("the engine is gone", func(t *testing.T) {
		if err := h3.StopEngine(ctx); err != nil {
			t.Fatal(err)
		}
		finds(t, h3, doctor.CheckEngine, "does not answer")
		finds(t, h1, doctor.CheckNodes, h3.Name+": is Down", "Docker engine")
		if err := h3.StartEngine(ctx); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, well(h3))
	})
}

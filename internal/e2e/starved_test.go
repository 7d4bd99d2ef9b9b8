package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/internal/testbed"
)

// starveFor is how long daemons starve; SHOAL_STARVE=1h makes it longer and
// SHOAL_STARVE_SHARE=0.02 worse.
const starveFor = 15 * time.Second

// starvedShare is what is left to each daemon of one processor. At 0.01 managers
// get through no election any more: handshakes alone take longer than the time
// for one. Nobody is declared DOWN then either, for want of a leader.
const starvedShare = 0.05

// TestStarved leaves the daemons next to no processor: nobody is declared DOWN
// for it, and no task is replaced, for as long as it lasts.
func TestStarved(t *testing.T) {
	long, share := starveFor, starvedShare
	if s := os.Getenv("SHOAL_STARVE"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("SHOAL_STARVE_SHARE"); s != "" {
		var err error
		if share, err = strconv.ParseFloat(s, 64); err != nil {
			t.Fatal(err)
		}
	}
	bed := swarmOf(t, 3, 1)
	everybodyVotes(t, bed.Hosts()[:3])
	h1 := bed.Host(0)
	create(t, h1, "--name", "web", "--replicas", "8", testbed.WebV1)
	before := everywhere(t, bed.Hosts(), "web")
	for _, h := range bed.Hosts() {
		if err := h.Throttle(share); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(long) // nothing must happen meanwhile
	for _, h := range bed.Hosts() {
		if err := h.Throttle(2); err != nil {
			t.Fatal(err)
		}
	}
	everybodyVotes(t, bed.Hosts()[:3])
	testbed.Eventually(t, patience, running(t, h1, "web", 8))
	if all := history(t, h1, "web", "{{.Name}} {{.CurrentState}} {{.Error}}"); len(all) != 8 {
		t.Errorf("tasks were replaced:\n%s", strings.Join(all, "\n"))
	}
	if after := everywhere(t, bed.Hosts(), "web"); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("containers were touched:\nbefore %v\nafter  %v", before, after)
	}
	elections := 0
	for _, h := range bed.Hosts() {
		log, err := os.ReadFile(filepath.Join(h.LogDir(), "shoal.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), "node is down") {
			t.Errorf("%s declared a node DOWN", h.Name)
		}
		elections += strings.Count(string(log), "starting election")
	}
	t.Logf("starved for %s with %.2f of a processor each: %d elections began", long, share, elections)
}

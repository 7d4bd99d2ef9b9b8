package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.xs); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.xs, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v", got)
	}
}

// A round in which everything was slow must not count for or against anybody.
func TestRatioIsWithinRounds(t *testing.T) {
	if got := ratio([]float64{2, 200, 4}, []float64{1, 100, 2}); got != 2 {
		t.Errorf("ratio = %v, want 2", got)
	}
}

func TestTakeTurns(t *testing.T) {
	var order []string
	constant := func(name string, x float64) *subject {
		return &subject{name: name, measure: func(context.Context) ([]float64, error) {
			order = append(order, name)
			return []float64{x}, nil
		}}
	}
	subjects := []*subject{constant("a", 1), constant("b", 2)}
	if err := takeTurns(t.Context(), 2, subjects); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "ababab" {
		t.Errorf("measured in the order %s, want ababab: one round before those that count", got)
	}
	var out bytes.Buffer
	printTable(&out, "title", []string{"ms"}, subjects)
	if !strings.Contains(out.String(), "2.00-2.00   2.00") {
		t.Errorf("no ratio of 2 in:\n%s", &out)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.rss <= 0 || u.pss <= 0 || u.pss > u.rss || u.wakeups <= 0 || u.all < u.cpu {
		t.Errorf("usage = %+v", u)
	}
}

func TestParseLoad(t *testing.T) {
	const said = `Running 2s test @ http://10.0.0.1/
  1 threads and 16 connections
  Latency Distribution
     50%  120.00us
     99%    1.25ms
  200000 requests in 2.00s, 30MB read
%sRequests/sec: 100000.50
`
	got, err := parseLoad(strings.ReplaceAll(said, "%s", ""))
	if err != nil || len(got) != 2 || got[0] != 100000.5 || got[1] != 1.25 {
		t.Errorf("parseLoad = %v, %v", got, err)
	}
	if _, err := parseLoad(strings.ReplaceAll(said, "%s", "  Non-2xx or 3xx responses: 7\n")); err == nil {
		t.Error("a load of which parts failed counts")
	}
	if _, err := parseLoad("unable to connect"); err == nil {
		t.Error("no figures, and no error")
	}
}

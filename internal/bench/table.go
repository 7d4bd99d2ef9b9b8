package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// subject is one of the things that an experiment compares. Each measurement
// gives a figure for each of the experiment's columns.
type subject struct {
	name    string
	measure func(ctx context.Context) ([]float64, error)
	samples [][]float64 // by round, by column
}

// takeTurns measures every subject once per round, after a round that does not
// count: the first of anything fills caches.
func takeTurns(ctx context.Context, rounds int, subjects []*subject) error {
	for round := range rounds + 1 {
		for _, s := range subjects {
			figures, err := s.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				s.samples = append(s.samples, figures)
			}
		}
	}
	return nil
}

// column gives one figure of every round.
func (s *subject) column(i int) (xs []float64) {
	for _, figures := range s.samples {
		xs = append(xs, figures[i])
	}
	return xs
}

// median is the middle one, or the mean of the two in the middle.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	xs = slices.Sorted(slices.Values(xs))
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// ratio is the median of the ratios within each round: what disturbed a round
// disturbed both.
func ratio(xs, to []float64) float64 {
	var rs []float64
	for i := range min(len(xs), len(to)) {
		rs = append(rs, xs[i]/to[i])
	}
	return median(rs)
}

// printTable compares the subjects to the first one: the median, the least and
// the most of each column, and the ratio.
func printTable(w io.Writer, title string, columns []string, subjects []*subject) {
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range columns {
		fmt.Fprintf(t, "\t%s\t\tratio", c)
	}
	fmt.Fprintln(t, "\t")
	for _, s := range subjects {
		fmt.Fprint(t, s.name)
		for i := range columns {
			xs := s.column(i)
			fmt.Fprintf(t, "\t%s\t%s-%s\t%.2f", digits(median(xs)), digits(slices.Min(xs)), digits(slices.Max(xs)),
				ratio(xs, subjects[0].column(i)))
		}
		fmt.Fprintln(t, "\t")
	}
	_ = t.Flush()
}

// digits gives three significant digits, or all of a whole number.
func digits(x float64) string {
	switch {
	case math.Abs(x) < 10:
		return fmt.Sprintf("%.2f", x)
	case math.Abs(x) < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

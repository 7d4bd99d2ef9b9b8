package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"shoal/cli/flags"
	"shoal/cli/format"
	"shoal/internal/doctor"
)

func (s *session) doctorCommand() leaf {
	return leaf{
		name: "doctor", usage: "Look for what is wrong with this node and the ways to the others", arity: none, run: s.doctor,
		flags: flags.Set{
			flags.Bool("all", "a", "List what is in order as well"),
			flags.Text("format", "", format.Usage),
			flags.Bool("quiet", "q", "Print nothing: the exit code says whether anything failed"),
		},
	}
}

func (s *session) doctor(ctx context.Context, in input) error {
	findings, err := s.diagnose(ctx)
	if err != nil {
		return err
	}
	switch {
	case in.Bool("quiet"):
	case in.Changed("format"):
		err = findingTable(findings).Write(s.out, in.Text("format"))
	default:
		err = printFindings(findings, in.Bool("all")).flush(s.out)
	}
	if err == nil && doctor.Failed(findings) {
		return exitError{code: 1}
	}
	return err
}

// diagnose asks the daemon by plain HTTP: Docker's client has no such call.
func (s *session) diagnose(ctx context.Context) ([]doctor.Finding, error) {
	var findings []doctor.Finding
	if err := s.ask(ctx, http.MethodGet, "/shoal/doctor", nil, &findings); err != nil {
		return nil, fmt.Errorf("the daemon can not be examined: %w", err)
	}
	return findings, nil
}

// printFindings groups by check, in the daemon's order.
func printFindings(findings []doctor.Finding, all bool) *page {
	var p page
	check := ""
	count := map[doctor.Level]int{}
	for _, f := range findings {
		count[f.Level]++
		if f.Level == doctor.OK && !all {
			continue
		}
		if f.Check != check {
			check = f.Check
			p.line("%s", check)
		}
		subject := f.Subject
		if subject != "" {
			subject += ": "
		}
		p.line("  %-4s  %s%s", strings.ToUpper(string(f.Level)), subject, f.Text)
		if f.Todo != "" {
			p.line("        -> %s", f.Todo)
		}
	}
	if p.Len() > 0 {
		p.line("")
	}
	sum := fmt.Sprintf("%d ok, %d %s, %d failed", count[doctor.OK], count[doctor.Warn], plural(count[doctor.Warn], "warning"), count[doctor.Fail])
	if !all && count[doctor.OK] > 0 {
		sum += " (--all lists what is in order)"
	}
	p.line("%s", sum)
	return &p
}

func findingTable(findings []doctor.Finding) format.Table {
	t := format.Table{
		Headers: map[string]string{"Check": "CHECK", "Level": "LEVEL", "Subject": "SUBJECT", "Text": "FINDING", "Todo": "TO DO"},
		Default: "{{.Level}}\t{{.Check}}\t{{.Subject}}\t{{.Text}}",
	}
	for _, f := range findings {
		t.Rows = append(t.Rows, format.Row{"Check": f.Check, "Level": string(f.Level), "Subject": f.Subject, "Text": f.Text, "Todo": f.Todo})
	}
	return t
}

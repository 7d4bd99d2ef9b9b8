package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/testbed"
)

// TestConversation has the stock docker command say the same to shoal and to
// Docker Swarm, and compares the answers: see testdata/docker/commands.txt.
func TestConversation(t *testing.T) {
	compared(t)
	t.Parallel()
	bed := testbed.Start(t, 2)
	if err := bed.Host(1).StopShoal(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stack, err := os.ReadFile("testdata/docker/stack.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stack.yml"), stack, 0o644); err != nil {
		t.Fatal(err)
	}
	c := conversation{dir: dir, ours: bed.Host(0), theirs: bed.Host(1)}
	table, err := os.ReadFile("testdata/docker/commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := stepsOf(t, string(table), string(doc))
	var (
		got  [2][]printed
		errs [2]error
		both sync.WaitGroup
	)
	for i := range got {
		both.Go(func() { got[i], errs[i] = c.hold(t.Context(), bed.Host(i), steps) })
	}
	both.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	compare(t, steps, got[0], got[1])
}

// step is one line of the table.
type step struct {
	at, word, rest string
	known          bool // the answers differ, and the documentation says why
	adds           bool // ours says more than theirs, after the same words
}

func stepsOf(t *testing.T, table, doc string) []step {
	t.Helper()
	var steps []step
	known, adds := false, false
	for n, line := range strings.Split(table, "\n") {
		s := step{at: fmt.Sprintf("commands.txt:%d: %s", n+1, line), known: known, adds: adds}
		s.word, s.rest, _ = strings.Cut(strings.TrimSpace(line), " ")
		switch s.word {
		case "", "#":
		case "differs", "adds":
			known, adds = s.word == "differs", s.word == "adds"
			if !strings.Contains(doc, "`"+s.rest+"`") {
				t.Errorf("%s: docs/compatibility.md does not say why", s.at)
			}
		case "$", "wait", "gone", "ended", "says":
			steps, known, adds = append(steps, s), false, false
		default:
			t.Fatalf("%s: what is that", s.at)
		}
	}
	return steps
}

type conversation struct {
	dir          string
	ours, theirs *testbed.Host
}

// printed is the answer to a command, after what has to differ is evened out.
type printed struct {
	Code           int
	Stdout, Stderr []string
}

// hold says everything to one side, and gives one answer per step. It ends
// early if the side does not come to where a step waits for it.
func (c conversation) hold(ctx context.Context, side *testbed.Host, steps []step) ([]printed, error) {
	out := make([]printed, 0, len(steps))
	for _, s := range steps {
		var a printed
		if s.word == "$" {
			r := c.say(ctx, side, s.rest)
			a = printed{r.Code, even(r.Stdout), even(r.Stderr)}
		} else if err := c.await(ctx, side, s); err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (c conversation) say(ctx context.Context, side *testbed.Host, command string) testbed.Result {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	socket := "unix:///run/shoal.sock"
	if side == c.theirs {
		socket = "unix:///run/docker.sock"
	}
	return side.Run(ctx, "env", "DOCKER_HOST="+socket, "HOME="+c.dir, "/bin/sh", "-c", "cd "+c.dir+"; "+command)
}

// compare holds the answers of the two sides against each other, as far as
// both came.
func compare(t *testing.T, steps []step, ours, theirs []printed) {
	t.Helper()
	for i := range min(len(ours), len(theirs)) {
		d := cmp.Diff(theirs[i], ours[i])
		switch {
		case steps[i].adds && continues(theirs[i], ours[i]):
		case d != "" && !steps[i].known:
			t.Errorf("%s\n(-swarm +shoal)\n%s", steps[i].at, d)
		case d == "" && (steps[i].known || steps[i].adds):
			t.Errorf("%s\ndoes not differ any more", steps[i].at)
		}
	}
}

// continues tells whether ours is theirs with more at the end of lines on standard error.
func continues(theirs, ours printed) bool {
	more := !slices.Equal(theirs.Stderr, ours.Stderr)
	same := slices.EqualFunc(theirs.Stderr, ours.Stderr, func(theirs, ours string) bool {
		rest, ok := strings.CutPrefix(ours, theirs)
		return ok && (rest == "" || strings.HasPrefix(rest, ": ") || strings.HasPrefix(rest, " ("))
	})
	return more && same && theirs.Code == ours.Code && slices.Equal(theirs.Stdout, ours.Stdout)
}

// await waits for the state of a service.
func (c conversation) await(ctx context.Context, side *testbed.Host, s step) error {
	name, count, _ := strings.Cut(s.rest, " ")
	want, _ := strconv.Atoi(count)
	command := "docker service ps " + name + " --filter desired-state=running --format '{{.CurrentState}}' | grep -c ^Running"
	switch s.word {
	case "gone":
		command = "docker ps -q --filter label=com.docker.swarm.service.name=" + name + " | grep -c ."
	case "says":
		command, want = "docker service logs --raw "+name+" 2>&1 | grep -c .", 2
	case "ended":
		command, want = "docker service ps "+name+" --format '{{.CurrentState}}' | grep -c -e ^Failed -e ^Complete -e ^Rejected", 1
	}
	// The shell waits: a process of docker's is not cheap enough to be started all the time.
	r := c.say(ctx, side, fmt.Sprintf("until [ \"$(%s)\" = %d ]; do sleep 0.3; done", command, want))
	if err := r.Err(); err != nil {
		return fmt.Errorf("%s: on %s: %w\n%s", s.at, side.Name, err, c.say(ctx, side, "docker service ps --no-trunc "+name).Stdout)
	}
	return nil
}

// evening takes out of an answer what has to differ.
var evening = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\n)?`), "PEM"},
	{regexp.MustCompile(`SWMTKN-1-[0-9a-z]+-[0-9a-z]+`), "TOKEN"},
	{regexp.MustCompile(`SWMKEY-1-[A-Za-z0-9+/=]+`), "KEY"},
	{regexp.MustCompile(`"(CertIssuerSubject|CertIssuerPublicKey)": ?"[^"]*"`), `"$1":"X"`},
	{regexp.MustCompile(`(Issuer (?:Subject|Public Key)):.*`), "$1: X"},
	{regexp.MustCompile(`\b(sha256:)?[0-9a-f]{64}\b`), "HEX64"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 utc| \+0000 UTC)?`), "TIME"},
	{regexp.MustCompile(`(?i:(?:less than|about) an? (?:second|minute))( ago)?|\d+ (seconds?|minutes?)( ago)?`), "AGO"},
	{regexp.MustCompile(`"Index": ?\d+`), `"Index":N`},
	{regexp.MustCompile(`"PID": ?\d+`), `"PID":N`},
	{regexp.MustCompile(`(vxlanid_list": ?)"\d+"`), `$1"N"`},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`), "IP"},
	{regexp.MustCompile(`\bh[12]\b`), "HOST"},
	{regexp.MustCompile(`[ \t]+`), " "},
	// What differs everywhere in the same way: docs/compatibility.md says why.
	{regexp.MustCompile(`rpc error: code = [A-Za-z]+ desc = `), ""},
	{regexp.MustCompile(`Invalid filter`), "invalid filter"},
	{regexp.MustCompile(`,?\s*"Volumes": ?null`), ""},
	{regexp.MustCompile(`\s*"EnableIPv4": ?true,`), ""},
	{regexp.MustCompile(`("Endpoint": ?\{\s*)"Spec": ?\{(\s*"Mode": ?"vip"\s*)?\}`), `$1"Spec": {}`},
}

var (
	wholeID = regexp.MustCompile(`\b[0-9a-z]{25}\b`)
	someID  = regexp.MustCompile(`\b[0-9a-z]{12}\b`)
	firstID = regexp.MustCompile(`(?m)^[0-9a-z]{12}\b`) // at times it has no digit
)

// even gives the lines of an answer without what has to differ.
func even(text string) []string {
	for _, e := range evening {
		text = e.what.ReplaceAllString(text, e.by)
	}
	text = wholeID.ReplaceAllString(text, "ID")
	text = firstID.ReplaceAllString(text, "ID")
	text = someID.ReplaceAllStringFunc(text, func(id string) string {
		if strings.ContainsAny(id, "0123456789") {
			return "ID"
		}
		return id
	})
	var out []string
	for _, line := range lines(text) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

package cli

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestNaturally(t *testing.T) {
	got := []string{"web.10", "web.2", "web", "db.1", "web.1a", "web.1"}
	slices.SortStableFunc(got, naturally)
	if want := []string{"db.1", "web", "web.1", "web.1a", "web.2", "web.10"}; !slices.Equal(got, want) {
		t.Error(got)
	}
}

func TestCompletionKnowsEveryCommand(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		if code := (App{}).Run(context.Background(), []string{"shoal", "completion", shell}, nil, &out, &out); code != 0 {
			t.Fatal(out.String())
		}
		s := &session{leaves: map[*cli.Command]leaf{}}
		eachCommand(s.commands(), func(path string, c *cli.Command) {
			if !strings.Contains(out.String(), path) {
				t.Errorf("%s does not complete %q", shell, path)
			}
		})
		if !strings.Contains(out.String(), "publish-add") {
			t.Errorf("%s does not complete flags", shell)
		}
	}
}

func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	var script bytes.Buffer
	if code := (App{}).Run(context.Background(), []string{"shoal", "completion", "bash"}, nil, &script, &script); code != 0 {
		t.Fatal(script.String())
	}
	for _, test := range []struct{ line, want string }{
		{"sw", "swarm"},
		{"service sc", "scale"},
		{"-H unix:///x node pro", "promote"},
		{"service update web --publish-", "--publish-add --publish-rm"},
		{"swarm join-token w", "worker"},
		{"service rm w", "web"},
	} {
		words := append([]string{"shoal"}, strings.Split(test.line, " ")...)
		quoted := "'" + strings.Join(words, "' '") + "'"
		program := script.String() + "\nshoal() { echo web; echo db; }\nCOMP_WORDS=(" + quoted + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _shoal; echo ${COMPREPLY[*]}"
		out, err := exec.Command(bash, "-c", program).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != test.want {
			t.Errorf("%q completes to %q, want %q (%v)", test.line, out, test.want, err)
		}
	}
}

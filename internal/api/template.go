package api

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"text/template"
)

// Sources are what the template of a secret or config may name besides the
// Placeholders: other files of the same task by their target, and the task's
// environment.
type Sources struct {
	Secret, Config func(target string) (string, error)
	Env            func(name string) string
}

// missing is an error of ours within the template engine's, which quotes the
// template.
type missing struct{ text string }

func (m *missing) Error() string { return m.text }

// Missing is what Sources answer for a file that the task does not have.
func Missing(kind Kind, target string) error {
	return &missing{fmt.Sprintf("%s target %s not found", kind, target)}
}

// Expand fills in the template of a secret or config. An error tells the line, but
// repeats nothing of the text: it is a secret.
func (p *Placeholders) Expand(text []byte, from Sources) ([]byte, error) {
	t, err := parseTemplate(text, from)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		var m *missing
		if errors.As(err, &m) {
			return nil, m
		}
		return nil, templateError(err, "it can not be filled in")
	}
	return b.Bytes(), nil
}

// CheckTemplate tells whether text is a template at all. What it names is known
// only where the task is made.
func CheckTemplate(text []byte) error {
	_, err := parseTemplate(text, Sources{})
	return err
}

func parseTemplate(text []byte, from Sources) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Funcs(template.FuncMap{
		"secret": from.Secret, "config": from.Config, "env": from.Env,
	}).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, templateError(err, "it is malformed")
	}
	return t, nil
}

// line finds the line that the template engine blames.
var line = regexp.MustCompile(`^template: :(\d+):`)

func templateError(err error, what string) error {
	if m := line.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("placeholder in line %s: %s", m[1], what)
	}
	return fmt.Errorf("placeholder: %s", what)
}

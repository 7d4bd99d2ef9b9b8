// Package format prints lists and objects the way --format asks for: as a table, as JSON, or through a Go template.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Usage is the help text of --format on commands that print lists.
const Usage = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`

// InspectUsage is the help text of --format on commands that print objects.
const InspectUsage = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`

// Row is one line of a list: what templates can name, and what JSON shows.
type Row map[string]any

// Label is one of the labels of what the row shows.
func (r Row) Label(name string) string {
	labels, _ := r["Labels"].(Labels)
	return labels[name]
}

// Labels are shown as "a=b,c=d".
type Labels map[string]string

func (l Labels) String() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		list = append(list, name+"="+l[name])
	}
	return strings.Join(list, ",")
}

// MarshalText implements encoding.TextMarshaler.
func (l Labels) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// headers are the names of the columns.
type headers map[string]string

// Label heads a column that shows one label.
func (headers) Label(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndex(name, ".")+1:])
}

// Table is a list that can be printed in every format.
type Table struct {
	// Headers names the column of every field a row has.
	Headers map[string]string
	// Default is the template of the plain table.
	Default string
	Rows    []Row
}

// Write prints the table as asked: "" or "table", "table TEMPLATE", "json", or a template.
func (t Table) Write(w io.Writer, how string) error {
	how = strings.TrimSpace(how)
	body, asTable := strings.CutPrefix(how, "table")
	body = strings.TrimSpace(body)
	switch {
	case how == "":
		asTable, body = true, t.Default
	case how == "json":
		body = "{{json .}}"
	case asTable && body == "":
		body = t.Default
	case !asTable:
		body = how
	}
	tmpl, err := parse(body)
	if err != nil {
		return err
	}

	var out bytes.Buffer
	for _, row := range t.Rows {
		if err := tmpl.Execute(&out, row); err != nil {
			return templateError(err)
		}
		out.WriteByte('\n')
	}
	if !asTable {
		_, err := out.WriteTo(w)
		return err
	}

	// The headers go through the same template, so that any order and any text between the fields is kept.
	head, err := tmpl.Clone()
	if err != nil {
		return err
	}
	tabs := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := head.Funcs(headerFuncs).Execute(tabs, headers(t.Headers)); err != nil {
		return templateError(err)
	}
	fmt.Fprintln(tabs)
	if _, err := out.WriteTo(tabs); err != nil {
		return err
	}
	return tabs.Flush()
}

func parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	tmpl, err := template.New("").Option("missingkey=error").Funcs(funcs).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return tmpl, nil
}

func templateError(err error) error { return fmt.Errorf("template parsing error: %w", err) }

var funcs = template.FuncMap{
	"json":  compact,
	"split": strings.Split,
	"join":  strings.Join,
	"title": Title,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
	},
	"truncate": func(s string, length int) string {
		if runes := []rune(s); len(runes) > length {
			return string(runes[:length])
		}
		return s
	},
	"println": fmt.Sprintln,
}

// headerFuncs leave a column's name readable where the field's value would be reshaped.
var headerFuncs = template.FuncMap{
	"json":     func(v string) string { return v },
	"split":    func(v, _ string) string { return v },
	"join":     func(v, _ string) string { return v },
	"title":    func(v string) string { return v },
	"lower":    func(v string) string { return v },
	"upper":    func(v string) string { return v },
	"truncate": func(v string, _ int) string { return v },
}

func compact(v any) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(out.String()), nil
}

// Title is s with its first letter in upper case.
func Title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Object is one thing to inspect: its decoded form, and the JSON it came as, which may say more.
type Object struct {
	Value any
	Raw   []byte
}

// Inspect prints what lookup returns for each name: as an indented JSON list, as one JSON line, or each through a
// template. What was found is printed even if other names were not; the errors come back joined.
func Inspect(w io.Writer, names []string, how string, lookup func(name string) (Object, error)) error {
	var tmpl *template.Template
	if how != "" && how != "json" {
		var err error
		if tmpl, err = parse(how); err != nil {
			return err
		}
	}
	var (
		found  []json.RawMessage
		failed []error
		out    bytes.Buffer
	)
	for _, name := range names {
		object, err := lookup(name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if tmpl == nil {
			found = append(found, object.Raw)
			continue
		}
		if err := object.execute(&out, tmpl); err != nil {
			_, _ = fmt.Fprintln(w)
			return err
		}
	}
	if tmpl == nil {
		if err := writeJSON(&out, found, how == "json"); err != nil {
			return err
		}
	}
	if tmpl != nil && out.Len() == 0 {
		out.WriteByte('\n')
	}
	if _, err := out.WriteTo(w); err != nil {
		return err
	}
	return errors.Join(failed...)
}

// execute prefers the decoded form; a field only the JSON has is found there.
func (o Object) execute(out *bytes.Buffer, tmpl *template.Template) error {
	var line bytes.Buffer
	err := tmpl.Execute(&line, o.Value)
	if err != nil {
		var loose any
		dec := json.NewDecoder(bytes.NewReader(o.Raw))
		dec.UseNumber()
		if dec.Decode(&loose) != nil {
			return templateError(err)
		}
		line.Reset()
		if tmpl.Execute(&line, loose) != nil {
			return templateError(err)
		}
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(out)
	return err
}

func writeJSON(out *bytes.Buffer, list []json.RawMessage, oneLine bool) error {
	if list == nil {
		list = []json.RawMessage{}
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if !oneLine {
		if len(list) == 0 {
			_, err := out.WriteString("[]\n")
			return err
		}
		enc.SetIndent("", "    ")
	}
	return enc.Encode(list)
}

// One prints a single object: as JSON or through a template.
func One(w io.Writer, how string, v any) error {
	if how == "json" {
		how = "{{json .}}"
	}
	tmpl, err := parse(how)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, v); err != nil {
		return templateError(err)
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(w)
	return err
}

package format

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fruit() Table {
	return Table{
		Headers: map[string]string{"ID": "ID", "Name": "NAME"},
		Default: "{{.ID}}\t{{.Name}}",
		Rows:    []Row{{"ID": "1", "Name": "apple<3"}, {"ID": "22", "Name": "pear"}},
	}
}

func TestTable(t *testing.T) {
	tests := []struct{ name, how, want, err string }{
		{name: "default", want: "ID        NAME\n1         apple<3\n22        pear\n"},
		{name: "table", how: "table", want: "ID        NAME\n1         apple<3\n22        pear\n"},
		{name: "table of one's own", how: `table {{.Name}}\t{{.ID}}`, want: "NAME      ID\napple<3   1\npear      22\n"},
		{name: "headers survive functions", how: "table {{upper .Name}}|{{json .ID}}|{{truncate .Name 2}}", want: "NAME|ID|NAME\nAPPLE<3|\"1\"|ap\nPEAR|\"22\"|pe\n"},
		{name: "json", how: "json", want: "{\"ID\":\"1\",\"Name\":\"apple\\u003c3\"}\n{\"ID\":\"22\",\"Name\":\"pear\"}\n"},
		{name: "template", how: `{{.ID}}\t{{title .Name}}`, want: "1\tApple<3\n22\tPear\n"},
		{name: "unknown field", how: "{{.Colour}}", err: `template parsing error: template: :1:2: executing "" at <.Colour>: map has no entry for key "Colour"`},
		{name: "bad template", how: "{{.ID", err: "template parsing error: template: :1: unclosed action"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			err := fruit().Write(&out, test.how)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				if out.Len() > 0 {
					t.Errorf("printed %q before failing", out.String())
				}
				return
			}
			if diff := cmp.Diff(test.want, out.String()); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

func TestEmptyTableHasHeaders(t *testing.T) {
	table := fruit()
	table.Rows = nil
	var out bytes.Buffer
	if err := table.Write(&out, ""); err != nil || out.String() != "ID        NAME\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestInspect(t *testing.T) {
	type thing struct{ ID string }
	lookup := func(name string) (Object, error) {
		if name == "gone" {
			return Object{}, errors.New("no such thing: gone")
		}
		return Object{Value: thing{name}, Raw: []byte(`{"ID":"` + name + `","Extra":{"N":1234567890123}}`)}, nil
	}
	tests := []struct {
		name, how string
		names     []string
		want, err string
	}{
		{name: "list", names: []string{"a"}, want: "[\n    {\n        \"ID\": \"a\",\n        \"Extra\": {\n            \"N\": 1234567890123\n        }\n    }\n]\n"},
		{name: "nothing found", names: []string{"gone"}, want: "[]\n", err: "no such thing: gone"},
		{name: "one line", names: []string{"a", "b"}, how: "json", want: `[{"ID":"a","Extra":{"N":1234567890123}},{"ID":"b","Extra":{"N":1234567890123}}]` + "\n"},
		{name: "template", names: []string{"a", "gone", "b"}, how: "{{.ID}}", want: "a\nb\n", err: "no such thing: gone"},
		{name: "a field only the server knows", names: []string{"a"}, how: "{{.Extra.N}}", want: "1234567890123\n"},
		{name: "bad field", names: []string{"a"}, how: "{{.ID.X}}", want: "\n", err: `template parsing error: template: :1:5: executing "" at <.ID.X>: can't evaluate field X in type string`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			err := Inspect(&out, test.names, test.how, lookup)
			if diff := cmp.Diff(test.want, out.String()); diff != "" {
				t.Error(diff)
			}
			if got := errorText(err); got != test.err {
				t.Errorf("error %q, want %q", got, test.err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

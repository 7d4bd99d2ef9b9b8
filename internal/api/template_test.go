package api

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	p := &Placeholders{}
	p.Service.Name, p.Task.Slot, p.Node.Labels = "web", "3", map[string]string{"rack": "r1", "a.b": "dotted"}
	from := Sources{
		Secret: func(target string) (string, error) {
			if target == "key" {
				return "s3cret", nil
			}
			return "", Missing(KindSecret, target)
		},
		Config: func(target string) (string, error) { return "", Missing(KindConfig, target) },
		Env:    func(name string) string { return map[string]string{"MODE": "fast"}[name] },
	}
	for text, want := range map[string]string{
		"plain":                               "plain",
		"{{.Service.Name}}.{{.Task.Slot}}":    "web.3",
		`{{secret "key"}}|{{env "MODE"}}`:     "s3cret|fast",
		`[{{env "NONE"}}]`:                    "[]",
		`{{index .Node.Labels "a.b"}}`:        "dotted",
		"{{.Node.Labels.rack}}":               "r1",
		`{{if eq .Task.Slot "3"}}yes{{end}}`:  "yes",
		`{{join "-" .Service.Name "x"}}`:      "web-x",
		"a\n{{secret \"none\"}}":              "error: secret target none not found",
		`{{config "none"}}`:                   "error: config target none not found",
		"s3cret\n{{.Node.Labels.s3cret}}":     "error: placeholder in line 2: it can not be filled in",
		`{{join "s3cret" .Nope}}`:             "error: placeholder in line 1: it can not be filled in",
		"{{s3cret":                            "error: placeholder in line 1: it is malformed",
		`{{"s3cret}}`:                         "error: placeholder in line 1: it is malformed",
		"one\ntwo {{s3cret .Service.Name}}\n": "error: placeholder in line 2: it is malformed",
	} {
		got, err := p.Expand([]byte(text), from)
		if err != nil {
			got = []byte("error: " + err.Error())
		}
		if string(got) != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error repeats the text: %v", text, err)
		}
	}
}

func TestSplitAndJoin(t *testing.T) {
	for _, size := range []int{1, PieceSize - 1, PieceSize, PieceSize + 1, 3*PieceSize + 7} {
		data := []byte(strings.Repeat("x", size-1) + "y")
		f := &File{Meta: Meta{ID: "f"}}
		held := map[string]*Piece{}
		for _, p := range f.Split(data) {
			held[p.ID] = p
		}
		get := func(id string) (*Piece, bool) { p, ok := held[id]; return p, ok }
		if back, ok := f.Join(get); !ok || string(back) != string(data) {
			t.Errorf("%d bytes came back as %d", size, len(back))
		}
		delete(held, f.Pieces[0])
		if _, ok := f.Join(get); ok {
			t.Errorf("%d bytes: nobody noticed a missing piece", size)
		}
	}
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// What differs from run to run.
var volatile = []struct {
	is   *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`"20\d\d-\d\d-\d\dT[0-9:.]+Z"`), `"<time>"`},
	{regexp.MustCompile(`"Index": \d+`), `"Index": "<index>"`},
	{regexp.MustCompile(`"(ID|ServiceID)": "[0-9a-z]{25}"`), `"$1": "<id>"`},
	{regexp.MustCompile(`-----BEGIN[^"]*`), `<pem>`},
	{regexp.MustCompile(`"(CertIssuer\w+)": "[^"]+"`), `"$1": "<base64>"`},
	{regexp.MustCompile(`"(NCPU|Name)": ("vm"|\d+)`), `"$1": "<machine>"`},
}

// The golden files were held against recordings of a real swarm: same fields in
// the same places.
func TestGoldenShapes(t *testing.T) {
	h := newHarness(t, noEngine)
	h.found()
	h.create("web", 1, `,"Labels":{"a":"b"},"EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080}]},"UpdateConfig":{"Parallelism":1}`)
	for _, c := range []struct{ name, path string }{
		{"service", "/services/web"},
		{"service-defaults", "/services/web?insertDefaults=true"},
		{"services-status", "/services?status=true"},
		{"tasks", `/tasks?filters={%22service%22:[%22web%22]}`},
		{"node", "/nodes/n1"},
		{"swarm", "/swarm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, body := h.call("GET", c.path, "")
			if status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			compare(t, c.name, []byte(body))
		})
	}
	info := get[map[string]json.RawMessage](h, "/info")
	compare(t, "info-swarm", info["Swarm"])
	if got := string(info["Shoal"]); got != `{"DataPlane":"nft","Version":"test"}` {
		t.Errorf("our own part of /info: %s", got)
	}
}

func compare(t *testing.T, name string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", " "); err != nil {
		t.Fatal(err)
	}
	got := fmt.Appendln(nil, string(bytes.TrimSpace(b.Bytes())))
	for _, v := range volatile {
		got = v.is.ReplaceAll(got, []byte(v.name))
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

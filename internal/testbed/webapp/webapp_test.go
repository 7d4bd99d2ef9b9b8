package webapp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// serve runs an app on a free port and returns its address, its stop function
// and the channel that gets Run's result.
func serve(t *testing.T, cfg Config, exit func(int)) (string, context.CancelFunc, <-chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- New(cfg, exit).Run(ctx, func(addr net.Addr) { ready <- addr.String() })
	}()
	select {
	case addr := <-ready:
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		return "127.0.0.1:" + port, stop, done
	case err := <-done:
		t.Fatalf("ended before it listened: %v", err)
		return "", nil, nil
	}
}

func get(t *testing.T, url, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestReportSaysWhoAndWhom(t *testing.T) {
	addr, _, _ := serve(t, Config{Task: "web.1", Version: "v7"}, nil)
	_, body := get(t, "http://"+addr+"/a?b=c", "application/json")
	var rep Report
	if err := json.Unmarshal([]byte(body), &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Task != "web.1" || rep.Version != "v7" || rep.Path != "/a?b=c" || rep.ClientIP() != "127.0.0.1" || rep.Local != addr {
		t.Errorf("report = %+v", rep)
	}
	if rep.Headers["Accept"] != "application/json" {
		t.Errorf("headers = %v", rep.Headers)
	}
	if _, text := get(t, "http://"+addr+"/", ""); !strings.Contains(text, "version: v7\n") {
		t.Errorf("text = %q", text)
	}
}

func TestHealthIsSwitched(t *testing.T) {
	addr, _, _ := serve(t, Config{Sick: true}, nil)
	for _, step := range []struct {
		before string
		want   int
	}{{"/", 503}, {"/health/ok", 200}, {"/health/fail", 503}} {
		get(t, "http://"+addr+step.before, "")
		if code, _ := get(t, "http://"+addr+"/health", ""); code != step.want {
			t.Errorf("after %s: health = %d, want %d", step.before, code, step.want)
		}
	}
}

func TestCrash(t *testing.T) {
	code := make(chan int, 1)
	addr, _, _ := serve(t, Config{}, func(c int) { code <- c })
	get(t, "http://"+addr+"/crash?code=42", "")
	if got := <-code; got != 42 {
		t.Errorf("exit code %d, want 42", got)
	}
}

func TestCrashAfter(t *testing.T) {
	code := make(chan int, 1)
	_, _, done := serve(t, Config{CrashAfter: time.Millisecond}, func(c int) { code <- c })
	if got := <-code; got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}
	// In a real process exit does not return.
	if err := <-done; !errors.Is(err, ErrCrashed) {
		t.Errorf("ended with %v", err)
	}
}

func TestStopAnswersWhatIsInFlight(t *testing.T) {
	addr, stop, done := serve(t, Config{Task: "web.1"}, nil)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /stream?ms=1 HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	seen := func(n int) {
		for n > 0 && lines.Scan() {
			if strings.HasSuffix(lines.Text(), " web.1") {
				n--
			}
		}
		if n > 0 {
			t.Fatalf("stream ended: %v", lines.Err())
		}
	}
	seen(1)
	stop()
	seen(50) // still served after the stop signal
	select {
	case err := <-done:
		t.Fatalf("ended with a request in flight: %v", err)
	default:
	}
	conn.Close()
	if err := <-done; err != nil {
		t.Errorf("drained with %v", err)
	}
}

func TestUDPEcho(t *testing.T) {
	// One port number for both protocols, so the TCP one names the UDP one.
	addr, _, _ := serve(t, Config{Port: freePort(t), Task: "web.1"}, nil)
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var rep Report
	if err := json.Unmarshal(buf[:n], &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Body != "hello" || rep.Client != conn.LocalAddr().String() {
		t.Errorf("report = %+v", rep)
	}
}

func TestTalk(t *testing.T) {
	addr, _, _ := serve(t, Config{Port: freePort(t), Task: "web.1"}, nil)
	var out bytes.Buffer
	questions := `[["get","http://` + addr + `/"],["ask","` + addr + `","hello"],["dial","127.0.0.1:1"],["name","localhost"],["nonsense",""]]`
	if err := Talk(t.Context(), strings.NewReader(questions), &out); err != nil {
		t.Fatal(err)
	}
	var got []Reply
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 5 {
		t.Fatalf("%d replies, %v", len(got), err)
	}
	for i, ok := range []bool{
		got[0].Task == "web.1" && got[0].Error == "",
		got[1].Body == "hello",
		strings.Contains(got[2].Error, "refused"),
		slices.Contains(got[3].Names, "127.0.0.1"),
		got[4].Error != "",
	} {
		if !ok {
			t.Errorf("reply %d: %+v", i, got[i])
		}
	}
	out.Reset()
	if err := Talk(t.Context(), strings.NewReader(`[["get","http://`+addr+`/heard"]]`), &out); err != nil || !strings.Contains(out.String(), `"heard":["hello"]`) {
		t.Errorf("heard: %s, %v", out.String(), err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestFromEnv(t *testing.T) {
	env := map[string]string{"PORT": "8080", "SLOW": "5ms", "HEALTH": "fail"}
	cfg, err := FromEnv(func(k string) string { return env[k] }, "c1")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Port: 8080, Task: "c1", Hostname: "c1", Slow: 5 * time.Millisecond, Sick: true}
	if cfg != want {
		t.Errorf("config = %+v, want %+v", cfg, want)
	}
	for _, bad := range []map[string]string{{"PORT": "70000"}, {"STOP_DELAY": "5"}} {
		if _, err := FromEnv(func(k string) string { return bad[k] }, "c1"); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

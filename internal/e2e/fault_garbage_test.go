package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"shoal/internal/testbed"
)

const (
	// idlers is how many connections are opened and left alone.
	idlers = 1000
	// growth is how much memory all of the garbage together may cost.
	growth = 96 << 20
)

// TestGarbage throws at the daemon's sockets what no client would send.
func TestGarbage(t *testing.T) {
	h, outside := node(t)
	quiet(t, h)
	rnd, _ := seeded(t)
	deploy(t, h, "web", 2, 8080)
	before := mustLive(t, h, "web")
	memory := residentBytes(t, h)
	peers := net.JoinHostPort(h.IP.String(), "2377")

	t.Run("requests", func(t *testing.T) {
		const spec = `{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"x"}}`
		deep := strings.Repeat(`{"a":`, 20_000)
		for _, c := range []struct{ method, path, body string }{
			{"POST", "/services/create", `{`},
			{"POST", "/services/create", `nonsense`},
			{"POST", "/services/create", `[]`},
			{"POST", "/services/create", `"x"`},
			{"POST", "/services/create", `{"Name":7}`},
			{"POST", "/services/create", `{"Name":"x","TaskTemplate":{"ContainerSpec":[]}}`},
			{"POST", "/services/create", spec + `,"Mode":{"Replicated":{"Replicas":-1}}}`},
			{"POST", "/services/create", spec + `,"Mode":{"Replicated":{"Replicas":1e30}}}`},
			{"POST", "/services/create", spec + `,"EndpointSpec":{"Ports":[{"TargetPort":99999}]}}`},
			{"POST", "/services/create", spec + `,"EndpointSpec":{"Ports":[null,{}]}}`},
			{"POST", "/services/create", spec + `,"Networks":[{"Target":"no such network"}]}`},
			{"POST", "/services/create", `{"Name":"../../etc","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}`},
			{"POST", "/services/create", `{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":"UPPER CASE"}}}`},
			{"POST", "/services/create", `{"Labels":` + deep},
			{"POST", "/services/create", string([]byte{0xff, 0xfe, 0x00})},
			{"POST", "/services/web/update", spec + `}`},
			{"POST", "/services/web/update?version=-1", spec + `}`},
			{"POST", "/services/web/update?version=99999999999999999999", spec + `}`},
			{"POST", "/services/%00/update?version=1", spec + `}`},
			{"GET", "/services?filters={", ""},
			{"GET", "/services?filters=7", ""},
			{"GET", `/tasks?filters={"service":7}`, ""},
			{"GET", `/nodes?filters={"unknown":["x"]}`, ""},
			{"GET", "/services/" + strings.Repeat("x", 4000), ""},
			{"GET", "/services/..%2f..%2fetc", ""},
			{"GET", "/v0.1/services", ""},
			{"GET", "/v99.0/services", ""},
			{"GET", "/v1.x/services", ""},
			{"GET", "/services/web/logs?stdout=1&tail=-5", ""},
			{"GET", "/services/web/logs?stdout=1&since=never", ""},
			{"POST", "/swarm/init", `{"ListenAddr":7}`},
			{"POST", "/swarm/init", `{"ListenAddr":"0.0.0.0:2377"}`},
			{"POST", "/swarm/update?version=x", `{}`},
			{"DELETE", "/services", ""},
			{"PATCH", "/nodes", ""},
		} {
			what := fmt.Sprintf("%s %.60s %.60s", c.method, c.path, c.body)
			path := strings.ReplaceAll(c.path, `"`, "%22")
			resp, err := send(h, raw(c.method, path, "Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(c.body)), c.body))
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if !complaint(resp) {
				t.Errorf("%s: answered with %d %s: %.200s", what, resp.code, resp.kind, resp.body)
			}
		}
	})

	t.Run("bodies without an end", func(t *testing.T) {
		for name, head := range map[string]string{
			"10 GB":   "Content-Length: 10737418240",
			"chunked": "Transfer-Encoding: chunked",
		} {
			conn := dialAPI(t, h)
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, raw("POST", "/services/create", "Content-Type: application/json\r\n"+head, "")); err != nil {
				t.Fatal(err)
			}
			sent, err := pour(conn, strings.HasPrefix(head, "Transfer"))
			if err == nil {
				t.Errorf("%s: %d bytes were taken", name, sent)
			}
			// What the daemon still had to say may be lost with the rest of the
			// body; that it hung up may not.
			if resp, err := answer(conn); err == nil && resp.code != http.StatusRequestEntityTooLarge {
				t.Errorf("%s: answered with %d: %s", name, resp.code, resp.body)
			}
			t.Logf("%s: hung up after %d bytes", name, sent)
		}
	})

	t.Run("not HTTP at all", func(t *testing.T) {
		for i := range 200 {
			b := make([]byte, 1+rnd.IntN(2000))
			for j := range b {
				b[j] = byte(rnd.Uint32())
			}
			conn := dialAPI(t, h)
			if i%2 == 0 {
				conn = dialFrom(t, outside, peers)
				if i%4 == 0 { // the beginning of TLS, to get further
					copy(b, []byte{0x16, 0x03, 0x01, byte(len(b) >> 8), byte(len(b)), 0x01})
				}
			}
			_, _ = conn.Write(b) // it may be hung up on before it is done
			_ = conn.Close()
		}
		works(t, h)
	})

	t.Run("idle connections", func(t *testing.T) {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				_ = c.Close()
			}
		}()
		for i := range idlers {
			api, peer := dialAPI(t, h), dialFrom(t, outside, peers)
			conns = append(conns, api, peer)
			if i%2 == 0 {
				_, _ = io.WriteString(api, "POST /services/create HTTP/1.1\r\nHost: x\r\nContent-Le")
				_, _ = peer.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00})
			}
		}
		works(t, h)
		if got := residentBytes(t, h); got > memory+growth {
			t.Errorf("with %d idle connections the daemon takes %d MB, %d MB before", 2*idlers, got>>20, memory>>20)
		}
		// The half requests are hung up on before anybody loses patience.
		hungUp := make(chan error, 1)
		go func() {
			_ = conns[0].SetReadDeadline(time.Now().Add(patience))
			_, err := io.Copy(io.Discard, conns[0])
			hungUp <- err
		}()
		if err := <-hungUp; err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("half a request was not given up: %v", err)
		}
	})

	t.Run("all at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			r := rand.New(rand.NewPCG(rnd.Uint64(), uint64(i)))
			wg.Go(func() {
				for range 100 {
					body := strings.Repeat(`{"Name":`, r.IntN(1000))
					resp, err := send(h, raw("POST", "/services/create", "Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(body)), body))
					if err == nil && !complaint(resp) {
						t.Errorf("answered with %d: %s", resp.code, resp.body)
					}
				}
			})
		}
		wg.Wait()
		works(t, h)
	})

	if got := residentBytes(t, h); got > memory+growth {
		t.Errorf("the daemon takes %d MB, %d MB before", got>>20, memory>>20)
	} else {
		t.Logf("the daemon takes %d MB, %d MB before", got>>20, memory>>20)
	}
	untouched(t, h, "web", before)
	testbed.Eventually(t, patience, func() error { return meshed(outside, h, "web", 8080, 2) })
}

// works fails unless the daemon reads, writes, and hears from its node.
func works(t *testing.T, h *testbed.Host) {
	t.Helper()
	api := dialed(t, h.API)
	made, err := api.ServiceCreate(t.Context(), webSpec("probe", 1, 0), swarm.ServiceCreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error { return settled(h, "probe", 1) })
	if err := api.ServiceRemove(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
}

type reply struct {
	code       int
	kind, body string
}

// complaint tells whether an answer says, as Docker does, that the request was
// at fault. A request that finds the node as it is, such as a second swarm
// init, is one for which Docker has 503.
func complaint(r reply) bool {
	var e struct{ Message string }
	if err := json.Unmarshal([]byte(r.body), &e); err != nil || e.Message == "" || r.kind != "application/json" {
		return false
	}
	switch {
	case r.code == http.StatusServiceUnavailable:
		return strings.Contains(e.Message, "already part of a swarm")
	case r.code == http.StatusInternalServerError: // Docker's own codes for these
		return strings.Contains(e.Message, "tail values") || strings.Contains(e.Message, "out of sequence")
	}
	return r.code >= 400 && r.code < 500
}

func raw(method, path, head, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", method, path, head, body)
}

func dialAPI(t testing.TB, h *testbed.Host) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dialFrom(t testing.TB, from *testbed.Host, address string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send sends a request as it is, however malformed.
func send(h *testbed.Host, request string) (reply, error) {
	conn, err := net.Dial("unix", h.Socket())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return reply{}, err
	}
	return answer(conn)
}

func answer(conn net.Conn) (reply, error) {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return reply{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}, err
}

// pour writes a body of JSON until nobody takes it any more, or for 1 GB.
func pour(w io.Writer, chunked bool) (sent int, err error) {
	block := []byte(`{"Name":"` + strings.Repeat("x", 64<<10))
	for sent < 1<<30 {
		if chunked {
			if _, err := fmt.Fprintf(w, "%x\r\n", len(block)); err != nil {
				return sent, err
			}
		}
		n, err := w.Write(block)
		sent += n
		if err != nil {
			return sent, err
		}
		if chunked {
			if _, err := io.WriteString(w, "\r\n"); err != nil {
				return sent, err
			}
		}
		block = []byte(strings.Repeat("x", len(block)))
	}
	return sent, nil
}

// residentBytes is the memory that the daemon takes.
func residentBytes(t testing.TB, h *testbed.Host) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", mustPID(t, h)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

package webapp

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// askTime bounds a question from inside a container: short, as a refusal is
// what many tests wait for.
const askTime = 3 * time.Second

// Get copies the report that a server gives, as JSON.
func Get(ctx context.Context, out io.Writer, url string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return fetch(ctx, http.DefaultClient, out, url)
}

func fetch(ctx context.Context, c *http.Client, out io.Writer, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(out, resp.Body)
	return err
}

// Ask sends one datagram and copies the answer.
func Ask(ctx context.Context, out io.Writer, address, text string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp4", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	_, err = out.Write(buf[:n])
	return err
}

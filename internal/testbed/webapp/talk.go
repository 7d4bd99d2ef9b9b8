package webapp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Question is one of many that a container is to put:
//
//	get URL           over a connection of its own
//	ask HOST:PORT TEXT  by a datagram
//	dial HOST:PORT    over TCP, to see who listens
//	name NAME         for its addresses
//	addr ADDRESS      for its names
//	spoof FROM TO:PORT TEXT  a datagram that lies about its sender; answered by nobody
type Question []string

// Reply is what came of a question.
type Reply struct {
	Report          // get, ask
	Names  []string `json:"names,omitempty"` // name, addr: sorted
	Error  string   `json:"error,omitempty"`
}

const (
	talkTime = 2 * time.Second // for one question
	talkers  = 8               // questions at once
)

// Talk reads a list of questions, puts them all, and writes the list of replies.
// One command in a container costs far more than a question.
func Talk(ctx context.Context, in io.Reader, out io.Writer) error {
	var questions []Question
	if err := json.NewDecoder(in).Decode(&questions); err != nil {
		return fmt.Errorf("read questions: %w", err)
	}
	replies := make([]Reply, len(questions))
	turn := make(chan struct{}, talkers)
	var all sync.WaitGroup
	for i, q := range questions {
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, talkTime)
			defer cancel()
			if err := q.put(ctx, &replies[i]); err != nil {
				replies[i].Error = err.Error()
			}
		})
	}
	all.Wait()
	return json.NewEncoder(out).Encode(replies)
}

func (q Question) put(ctx context.Context, r *Reply) (err error) {
	if len(q) < 2 {
		return fmt.Errorf("no question: %q", []string(q))
	}
	var answer bytes.Buffer
	switch q[0] {
	case "get":
		err = fetch(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, &answer, q[1])
	case "ask":
		err = Ask(ctx, &answer, q[1], q[2])
	case "dial":
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp4", q[1]); err == nil {
			return c.Close()
		}
	case "name":
		r.Names, err = net.DefaultResolver.LookupHost(ctx, q[1])
		slices.Sort(r.Names)
	case "addr":
		r.Names, err = net.DefaultResolver.LookupAddr(ctx, q[1])
		slices.Sort(r.Names)
	case "spoof":
		return spoof(q[1], q[2], q[3])
	default:
		err = errors.New("unknown question " + q[0])
	}
	if err != nil || answer.Len() == 0 {
		return err
	}
	return json.Unmarshal(answer.Bytes(), &r.Report)
}

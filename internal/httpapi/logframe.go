package httpapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"shoal/internal/api"
	"shoal/internal/control"
)

// Streams of a multiplexed log.
const (
	streamStdout = 1
	streamStderr = 2
	frameHeader  = 8
	// maxFrame bounds one message. Engines cut them at 16 KiB.
	maxFrame = 1 << 20
)

// message is one piece of a task's output: a line, or part of a long one.
type message struct {
	src     control.LogSource
	stream  byte
	at      string // RFC 3339 with nanoseconds
	details string // of the engine's log driver, encoded
	text    []byte
	lack    string // what a warning is about: said once, for however many tasks
}

// readMessages takes an engine's log apart, until it ends or emit refuses.
func readMessages(r io.Reader, src control.LogSource, details bool, emit func(message) bool) error {
	next := framed(r)
	if src.TTY {
		next = lines(r)
	}
	for {
		stream, text, err := next()
		if len(text) > 0 {
			m := message{src: src, stream: stream}
			m.at, m.text = splitTime(text)
			if details {
				before, after, _ := bytes.Cut(m.text, []byte(" "))
				m.details, m.text = string(before), after
			}
			if !emit(m) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// framed reads stdcopy's frames: one message each.
func framed(r io.Reader) func() (byte, []byte, error) {
	br := bufio.NewReader(r)
	return func() (byte, []byte, error) {
		var head [frameHeader]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return 0, nil, err
		}
		size := binary.BigEndian.Uint32(head[4:])
		if size > maxFrame {
			return 0, nil, fmt.Errorf("log message of %d bytes: at most %d", size, maxFrame)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(br, text); err != nil {
			return 0, nil, fmt.Errorf("log message cut short: %w", io.ErrUnexpectedEOF)
		}
		if head[0] != streamStdout && head[0] != streamStderr {
			return 0, nil, errors.New(strings.TrimSpace(string(text))) // the engine's own words on what went wrong
		}
		return head[0], text, nil
	}
}

// lines reads the raw output of a terminal, which is all on stdout.
func lines(r io.Reader) func() (byte, []byte, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	return func() (byte, []byte, error) {
		text, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
		}
		return streamStdout, bytes.Clone(text), err
	}
}

// splitTime takes off the timestamp that was asked for to put lines in order.
func splitTime(text []byte) (at string, rest []byte) {
	first, rest, ok := bytes.Cut(text, []byte(" "))
	if _, err := time.Parse(time.RFC3339Nano, string(first)); !ok || err != nil {
		return "", text
	}
	return string(first), rest
}

// logWriter writes messages the way Docker's own daemon does.
type logWriter struct {
	buf  *bufio.Writer
	ctl  *http.ResponseController
	opts api.LogOptions
	tty  bool
	told map[string]bool // of what is missing, by lack
}

func newLogWriter(w http.ResponseWriter, o api.LogOptions, tty bool) *logWriter {
	return &logWriter{buf: bufio.NewWriter(w), ctl: http.NewResponseController(w), opts: o, tty: tty, told: map[string]bool{}}
}

func (l *logWriter) flush() error {
	if err := l.buf.Flush(); err != nil {
		return err
	}
	return l.ctl.Flush()
}

func (l *logWriter) write(m message) error {
	if m.lack != "" {
		if l.told[m.lack] {
			return nil
		}
		l.told[m.lack] = true
	}
	var line []byte
	if l.opts.Timestamps && m.at != "" {
		line = append(line, m.at+" "...)
	}
	if l.opts.Details {
		line = append(line, logDetails(m)+" "...)
	}
	line = append(line, m.text...)
	if !l.tty {
		var head [frameHeader]byte
		head[0] = m.stream
		binary.BigEndian.PutUint32(head[4:], uint32(len(line)))
		if _, err := l.buf.Write(head[:]); err != nil {
			return err
		}
	}
	_, err := l.buf.Write(line)
	return err
}

// warn tells of what is missing.
func (l *logWriter) warn(src control.LogSource, err error) error { return l.write(warning(src, err)) }

// warning tells of what is missing in a line of its own, on stderr and with the
// task's details: clients break off at the stream that is meant for errors.
func warning(src control.LogSource, err error) message {
	return message{
		src:    src,
		stream: streamStderr,
		at:     time.Now().UTC().Format(time.RFC3339Nano),
		lack:   fmt.Sprintf("%s: %v", src.NodeID, err),
		text:   fmt.Appendf(nil, "warning: log of task %s on node %s is incomplete: %v\n", src.TaskID, src.Hostname, err),
	}
}

// logDetails says which task a message is from, together with what the log
// driver added, in order of key.
func logDetails(m message) string {
	const prefix = "com.docker.swarm."
	ours := map[string]string{
		prefix + "node.id":    m.src.NodeID,
		prefix + "service.id": m.src.ServiceID,
		prefix + "task.id":    m.src.TaskID,
	}
	var pairs []string
	for k, v := range ours {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	for pair := range strings.SplitSeq(m.details, ",") {
		k, _, _ := strings.Cut(pair, "=")
		if _, taken := ours[k]; pair != "" && !taken {
			pairs = append(pairs, pair)
		}
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}

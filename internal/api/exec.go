package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ExecOptions say what to run in a task's container, and how.
type ExecOptions struct {
	Cmd        []string
	User       string   `json:",omitempty"` // "" is the container's own
	Dir        string   `json:",omitempty"` // "" is the container's own
	Env        []string `json:",omitempty"`
	TTY        bool     `json:",omitempty"`
	Stdin      bool     `json:",omitempty"`
	Detach     bool     `json:",omitempty"` // nothing of its output is wanted
	Privileged bool     `json:",omitempty"`
	Size       Size     `json:",omitzero"` // of the terminal, at first
}

// Size of a terminal, in characters. The zero size is unknown.
type Size struct{ Height, Width uint }

// ExecResult is how a command in a container ended.
type ExecResult struct {
	ExitCode int
	Error    string `json:",omitempty"` // why its end is not known, and then ExitCode means nothing
}

// FrameKind says what a frame of an exec stream is. The stream runs in both
// directions between whoever asks and the node: a frame is its kind, the length
// of what follows in four bytes, and that many bytes.
type FrameKind byte

// The kinds of frames: first those towards the command, then its answers.
const (
	FrameOptions FrameKind = 'O' // ExecOptions, first of all
	FrameStdin   FrameKind = 'i'
	FrameEOF     FrameKind = 'c' // the input ends; sizes may still follow
	FrameSize    FrameKind = 's' // Size

	FrameStdout FrameKind = 'o'
	FrameStderr FrameKind = 'e'
	FrameResult FrameKind = 'x' // ExecResult, last of all
)

// MaxFrame bounds what a frame carries: a command with its variables is the
// longest.
const MaxFrame = 1 << 20

// WriteFrame writes one frame in one call, so that writers that take turns do
// not mix theirs.
func WriteFrame(w io.Writer, kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes is too large: at most %d", len(payload), MaxFrame)
	}
	frame := make([]byte, 0, 5+len(payload))
	frame = append(frame, byte(kind))
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// WriteFrameJSON writes a frame that carries an object.
func WriteFrameJSON(w io.Writer, kind FrameKind, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, kind, raw)
}

// ReadFrame reads one frame. It gives io.EOF where a stream ends between two.
func ReadFrame(r io.Reader) (FrameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes is too large: at most %d", size, MaxFrame)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return FrameKind(head[0]), payload, nil
}

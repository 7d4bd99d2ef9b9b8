package api

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFrames(t *testing.T) {
	var stream bytes.Buffer
	for _, payload := range []string{"", "hello", string(make([]byte, 100<<10))} {
		if err := WriteFrame(&stream, FrameStdin, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		kind, got, err := ReadFrame(&stream)
		if err != nil || kind != FrameStdin || string(got) != payload {
			t.Errorf("%q became %c %q, %v", payload, kind, got, err)
		}
	}
	if _, _, err := ReadFrame(&stream); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := WriteFrame(&stream, FrameStdin, make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame without bounds was written")
	}
	if _, _, err := ReadFrame(bytes.NewReader([]byte{'i', 0xff, 0, 0, 0})); err == nil {
		t.Error("a frame without bounds was read")
	}
	if _, _, err := ReadFrame(bytes.NewReader([]byte{'i', 0, 0, 0, 9, 'x'})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}

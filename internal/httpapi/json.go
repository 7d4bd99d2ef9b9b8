package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"github.com/containerd/errdefs"
)

// maxBody bounds what we read of a request for the cluster. What is passed to
// the engine has no bound of ours.
const maxBody = 4 << 20

// readJSON decodes the body. No body at all is an empty object, as Docker has
// it. Fields that we do not know are refused, which Docker leaves aside.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	contentType := r.Header.Get("Content-Type")
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	if media, _, err := mime.ParseMediaType(contentType); err != nil {
		return invalid("malformed Content-Type header (%s): %v", contentType, err)
	} else if media != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return badJSON(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return badJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return badJSON(err)
		}
		return invalid("unexpected content after JSON")
	}
	return unknown(raw, reflect.TypeOf(into))
}

func badJSON(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return errTooLarge{}
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return invalid("invalid JSON: %v", err)
}

// errTooLarge has no kind in errdefs.
type errTooLarge struct{}

func (errTooLarge) Error() string {
	return fmt.Sprintf("request body too large: at most %d bytes", maxBody)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeError answers in Docker's shape. The content type is without charset:
// clients compare it as a whole.
func writeError(w http.ResponseWriter, err error) {
	_ = writeJSON(w, statusOf(err), map[string]string{"message": plain(err.Error())}) // the client is gone: nobody left to tell
}

// kinds are how errors of these kinds end when they were wrapped: for programs,
// which have the status for that.
var kinds = []error{
	errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrPermissionDenied,
	errdefs.ErrUnauthenticated, errdefs.ErrFailedPrecondition, errdefs.ErrConflict, errdefs.ErrUnavailable, errdefs.ErrDataLoss,
}

// plain is a message without the kinds of its error at the end.
func plain(msg string) string {
	for _, k := range kinds {
		if cut, ok := strings.CutSuffix(msg, ": "+k.Error()); ok && cut != "" {
			return plain(cut)
		}
	}
	return msg
}

// statusOf is the one place that turns kinds of errors into HTTP.
func statusOf(err error) int {
	var refused *clusterRefusal
	switch {
	case errors.As(err, &refused):
		return refused.answer.status
	case errors.As(err, new(errTooLarge)):
		return http.StatusRequestEntityTooLarge
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsFailedPrecondition(err), errdefs.IsOutOfRange(err):
		return http.StatusBadRequest
	case errdefs.IsAlreadyExists(err), errdefs.IsConflict(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

func unavailable(format string, args ...any) error {
	return errdefs.ErrUnavailable.WithMessage(fmt.Sprintf(format, args...))
}

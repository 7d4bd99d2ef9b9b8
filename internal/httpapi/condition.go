package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"shoal/internal/control"
)

// conditionHeader, as STACK=INDEX, has a request refused if the stack or the nodes
// are not any more what they were when that index was read. It is ours alone.
const conditionHeader = "Shoal-If-Index"

func (r *request) condition() (c control.Condition, given bool, err error) {
	text := r.Header.Get(conditionHeader)
	if text == "" {
		return c, false, nil
	}
	stack, index, ok := strings.Cut(text, "=")
	n, err := strconv.ParseUint(index, 10, 64)
	if !ok || stack == "" || err != nil {
		return c, false, invalid("malformed %s header %q: it is STACK=INDEX", conditionHeader, text)
	}
	return control.Condition{Stack: stack, Index: n}, true, nil
}

// stackIndex gives the index of a stack. With a condition, it says whether that holds.
func (s *server) stackIndex(w http.ResponseWriter, r *request) error {
	c, conditional, err := r.condition()
	if err != nil {
		return err
	}
	if conditional {
		if err := r.control.Holds(c); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, map[string]uint64{"Index": control.StackIndex(r.control.View(), r.vars["name"])})
}

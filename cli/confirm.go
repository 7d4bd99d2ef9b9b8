package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// confirm asks, and tells whether the answer was yes. No answer is a no.
func (s *session) confirm(question string) (bool, error) {
	fmt.Fprint(s.out, question+" [y/N] ")
	line, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if !strings.HasSuffix(line, "\n") {
		fmt.Fprintln(s.out)
	}
	return strings.EqualFold(strings.TrimSpace(line), "y"), nil
}

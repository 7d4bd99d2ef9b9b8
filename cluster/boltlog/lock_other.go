//go:build !unix

package boltlog

import (
	"errors"
	"os"
)

// lock refuses: a manager needs Linux. The client is built everywhere.
func lock(*os.File) (free bool, err error) { return false, errors.ErrUnsupported }

package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/internal/atomicfile"
)

// absentCA is a file that never exists.
const absentCA = "/nonexistent/the-network-driver-is-not-running"

// writeSpec tells engines at once that the driver is not there, when it is not.
//
// An engine that starts asks for the driver once per network, and once more for
// every container that was up when it last ended. If it finds neither a socket
// nor a description of the driver, or a socket that nobody serves, it tries for
// 15 seconds each time before it goes on without: minutes on a busy host. The
// socket comes first; without one it reads this description, which asks for TLS
// with a certificate that can not be loaded. That alone is an error for which
// engines do not wait. Once the socket is there they find the driver by it, so
// nothing has to be taken back.
func (p *Plugin) writeSpec() error {
	spec, err := json.MarshalIndent(map[string]any{
		"Name":      Driver,
		"Addr":      "unix://" + p.socket,
		"TLSConfig": map[string]any{"CAFile": absentCA},
	}, "", "  ")
	if err != nil {
		return err
	}
	err = os.MkdirAll(filepath.Dir(p.spec), 0o700)
	if err == nil {
		err = atomicfile.Write(p.spec, append(spec, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("describe the driver to the engine: %w", err)
	}
	return nil
}

// Clear removes what Listen left for engines to find. Run has ended by then.
func (p *Plugin) Clear() error {
	if err := os.Remove(p.spec); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the driver's description: %w", err)
	}
	return nil
}

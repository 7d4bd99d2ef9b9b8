//go:build linux

package netkit_test

import (
	"testing"

	"shoal/internal/netkit/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

//go:build !linux

package docker

import (
	"errors"
	"os"
)

func onTmpfs(string) error { return errors.New("secrets and configs need a Linux host") }

func removeTmpfs(dir string) error { return os.RemoveAll(dir) }

func setLabel(string, string) error { return errors.New("SELinux needs a Linux host") }

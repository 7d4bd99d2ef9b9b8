package docker

import (
	"context"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// Info is what the engine says of itself, whatever that is.
func (e *Executor) Info(ctx context.Context) (info system.Info, err error) {
	err = e.do(ctx, func(c *client.Client) error {
		info, err = c.Info(ctx)
		return err
	})
	return info, err
}

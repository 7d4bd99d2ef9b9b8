package store

import "context"

type proposeFunc func(data []byte) error

func (f proposeFunc) Apply(_ context.Context, data []byte) error { return f(data) }

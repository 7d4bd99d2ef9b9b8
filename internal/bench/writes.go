package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// writeFor is how long each number of clients writes.
const writeFor = 3 * time.Second

// writes measures small writes through the API of three managers, against the
// disk that all of them share.
func writes(ctx context.Context, l *lab) error {
	return withMany(ctx, l, 3, 0, func(m *many) error {
		syncs, err := fsyncs(m.bed.Dir())
		if err != nil {
			return err
		}
		fmt.Printf("\nWrites through the API, three managers on one disk\n%-44s %s /s\n", "the disk: writes of 4 KB, each synced", digits(syncs))
		_, leader, err := m.look(ctx)
		if err != nil {
			return err
		}
		api := m.apis[leader]
		for _, clients := range []int{1, 16, 128} {
			var done, failed atomic.Int64
			begin := time.Now()
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					for n := 0; time.Since(begin) < writeFor; n++ {
						if _, err := api.ServiceCreate(ctx, small(fmt.Sprintf("c%d-%d-%d", clients, c, n)), swarm.ServiceCreateOptions{}); err != nil {
							failed.Add(1)
							continue
						}
						done.Add(1)
					}
				})
			}
			wg.Wait()
			fmt.Printf("%-44s %s /s, %d failed\n", fmt.Sprintf("%d clients", clients), digits(float64(done.Load())/time.Since(begin).Seconds()), failed.Load())
			if err := m.tidy(ctx, api); err != nil {
				return err
			}
		}
		return nil
	})
}

// fsyncs is how many small writes a second the disk makes safe.
func fsyncs(dir string) (perSecond float64, err error) {
	f, err := os.Create(filepath.Join(dir, "fsyncs"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	n := 0
	begin := time.Now()
	for ; time.Since(begin) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

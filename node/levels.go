package node

import (
	"context"
	"errors"
	"sync"
)

// level is what runs side by side. Levels start in order and stop in reverse:
// what a level needs is still there while it stops.
type level []func(context.Context) error

// errEnded is the cause when something returned that should have gone on.
var errEnded = errors.New("a part of the node ended by itself")

// runLevels runs all levels until ctx ends or anything in them returns. It
// returns the errors of everything, joined, and nil when only ctx ended.
func runLevels(ctx context.Context, levels ...level) error {
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var mu sync.Mutex
	var errs []error
	running := make([]*sync.WaitGroup, len(levels))
	cancels := make([]context.CancelFunc, len(levels))
	for i, l := range levels {
		lctx, lcancel := context.WithCancel(context.WithoutCancel(ctx))
		wg := new(sync.WaitGroup)
		running[i], cancels[i] = wg, lcancel
		for _, run := range l {
			wg.Go(func() {
				err := run(lctx)
				if lctx.Err() != nil && errors.Is(err, context.Canceled) {
					err = nil // it was asked to stop
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
				}
				if lctx.Err() == nil {
					cancel(errEnded)
				}
			})
		}
	}
	<-stop.Done()
	for i := len(levels) - 1; i >= 0; i-- {
		cancels[i]()
		running[i].Wait()
	}
	if len(errs) == 0 && ctx.Err() == nil {
		errs = append(errs, errEnded)
	}
	return errors.Join(errs...)
}

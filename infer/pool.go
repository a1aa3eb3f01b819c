package infer

import (
	"sync"
	"sync/atomic"

	"labmesh/infer/gemm"
)

// pool shares work out among a fixed number of goroutines, of which the caller's is one.
type pool struct {
	threads []*gemm.Thread
	wake    []chan struct{} // of each other one
	running sync.WaitGroup  // the goroutines
	busy    sync.WaitGroup  // those at work now

	// what is done now
	parts int
	do    part
	next  atomic.Int64
}

// part does number i of the parts of something, by itself.
type part func(t *gemm.Thread, i int)

// newPool starts threads - 1 goroutines, which close ends.
func newPool(k *gemm.Kernel, threads int) *pool {
	p := &pool{}
	for i := range threads {
		p.threads = append(p.threads, k.Thread(i))
	}
	for _, t := range p.threads[1:] {
		wake := make(chan struct{}, 1)
		p.wake = append(p.wake, wake)
		p.running.Go(func() {
			for range wake {
				p.work(t)
				p.busy.Done()
			}
		})
	}
	return p
}

// each does all parts and returns when they are done. One goroutine at a time may call it.
func (p *pool) each(parts int, do part) {
	p.parts, p.do = parts, do
	p.next.Store(0)
	helpers := min(len(p.wake), parts-1)
	for i := range helpers {
		p.busy.Add(1)
		p.wake[i] <- struct{}{}
	}
	p.work(p.threads[0])
	p.busy.Wait()
}

func (p *pool) work(t *gemm.Thread) {
	for {
		i := int(p.next.Add(1)) - 1
		if i >= p.parts {
			return
		}
		p.do(t, i)
	}
}

func (p *pool) close() {
	for _, w := range p.wake {
		close(w)
	}
	p.running.Wait()
}

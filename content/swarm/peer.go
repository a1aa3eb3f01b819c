package swarm

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
)

// peer is a node that a tree is fetched from.
type peer struct {
	party // the fetch's lock guards it
	f     *fetching
	node  labmesh.NodeID
	since time.Time    // when it was last of use; the fetch's lock guards it
	moved atomic.Int64 // when bytes of a chunk last came, in ns

	owed  atomic.Int64  // chunks asked for and not come; those cancelled may come
	wrote chan struct{} // closed when nothing more is written

	mu     sync.Mutex
	outbox []byte
	last   bool // nothing follows what is in the outbox
	close  func()
	gone   bool
	signal chan struct{} // that the outbox has grown
}

func newPeer(f *fetching, node labmesh.NodeID, now time.Time) *peer {
	p := &peer{f: f, node: node, since: now, signal: make(chan struct{}, 1), wrote: make(chan struct{})}
	p.moved.Store(now.UnixNano())
	return p
}

func (p *peer) lastMoved() time.Time { return time.Unix(0, p.moved.Load()) }

// oldest is when the oldest request that is out was made. The fetch's lock is
// held.
func (p *peer) oldest() time.Time {
	var at time.Time
	for _, t := range p.out {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

// post sends frames, after those that were posted before. It does not wait.
func (p *peer) post(frames []byte) {
	p.mu.Lock()
	p.outbox = append(p.outbox, frames...)
	p.mu.Unlock()
	p.poke()
}

func (p *peer) poke() {
	select {
	case p.signal <- struct{}{}:
	default: // it was told
	}
}

// part sends a last frame, and returns when it is out.
func (p *peer) part(frame []byte) {
	p.mu.Lock()
	p.outbox, p.last = append(p.outbox, frame...), true
	p.mu.Unlock()
	p.poke()
	<-p.wrote
}

// hangUp ends the stream, now or as soon as it is there.
func (p *peer) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	if p.close != nil {
		p.close()
	}
}

// run opens the stream, and reads and writes until it ends.
func (p *peer) run(ctx context.Context) error {
	l, stop, err := p.f.w.dial(ctx, p.node, askChunks, p.f.t.id)
	if err != nil {
		return err
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer stop()
	p.mu.Lock()
	p.close = func() { _ = l.Close() }
	gone := p.gone
	p.mu.Unlock()
	if gone {
		return nil
	}
	writing.Go(func() {
		defer close(p.wrote)
		if p.write(ctx, l) != nil {
			_ = l.Close() // ends the reading
		}
	})
	return p.read(ctx, l)
}

func (p *peer) write(ctx context.Context, l *link) error {
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.signal:
		case <-alive.C:
			p.post(appendHead(nil, frameAlive, 0))
		}
		p.mu.Lock()
		frames, last := p.outbox, p.last
		p.outbox = nil
		p.mu.Unlock()
		if len(frames) > 0 {
			if err := l.send(frames); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

func (p *peer) read(ctx context.Context, l *link) error {
	chunks := p.f.t.chunks
	for {
		kind, n, err := l.head()
		if err != nil {
			return err
		}
		switch kind {
		case frameAlive:
			err = l.skip(n)
		case frameMaps:
			err = p.maps(l, n)
		case frameNews:
			var numbers []uint32
			if numbers, err = l.numbers(n, 2*len(chunks)); err == nil {
				err = p.told(func(b *book) {
					for _, v := range numbers {
						b.news(&p.party, int(v>>1), v&1 == 1)
					}
				})
			}
		case frameGone:
			var numbers []uint32
			if numbers, err = l.numbers(n, len(chunks)); err == nil {
				err = p.told(func(b *book) {
					p.owed.Add(-int64(len(numbers)))
					for _, i := range numbers {
						b.gone(&p.party, int(i))
					}
				})
			}
		case frameChunk:
			err = p.chunk(ctx, l, n)
		default:
			err = labmesh.Refuse(labmesh.Invalid, "a frame %q", kind)
		}
		if err != nil {
			return err
		}
	}
}

func (p *peer) maps(l *link, n int) error {
	size := len(newBits(len(p.f.t.chunks)))
	if n != 2*size {
		return labmesh.Refuse(labmesh.Invalid, "maps of %d bytes, and not %d", n, 2*size)
	}
	body, err := l.body(n)
	if err != nil {
		return err
	}
	p.f.mu.Lock()
	p.f.book.tell(&p.party, body[:size], body[size:])
	p.f.mu.Unlock()
	p.f.fill(p)
	return nil
}

// told takes news of a peer that has sent its maps.
func (p *peer) told(news func(*book)) error {
	p.f.mu.Lock()
	known := p.have != nil
	if known {
		news(p.f.book)
	}
	p.f.mu.Unlock()
	if !known {
		return labmesh.Refuse(labmesh.Invalid, "news without maps")
	}
	p.f.fill(p)
	return nil
}

// chunk takes a chunk, checks and stores it.
func (p *peer) chunk(ctx context.Context, l *link, n int) error {
	var number [numberBytes]byte
	if n < numberBytes {
		return labmesh.Refuse(labmesh.Invalid, "a chunk of %d bytes", n)
	}
	if err := l.fill(number[:]); err != nil {
		return err
	}
	t, n := p.f.t, n-numberBytes
	i := int(binary.BigEndian.Uint32(number[:]))
	if i >= len(t.chunks) || n != int(t.chunks[i].Size) {
		return labmesh.Refuse(labmesh.Invalid, "chunk %d of %d bytes", i, n)
	}
	if p.owed.Add(-1) < 0 {
		return labmesh.Refuse(labmesh.Invalid, "chunk %d, and nobody asked for it", i)
	}
	c := p.f.w.recent.buffer(n)
	defer p.f.w.recent.release(c)
	buf := c.data
	for at := 0; at < n; {
		end := min(at+pieceBytes, n)
		if err := l.fill(buf[at:end]); err != nil {
			return err
		}
		at = end
		p.moved.Store(time.Now().UnixNano())
	}
	if t.has(i) { // it was asked of two
		p.f.w.count(func(c *Traffic) { c.WastedBytes += int64(n) })
		p.f.arrived(p, i)
		return nil
	}
	switch err := p.f.w.store.Put(ctx, t.chunks[i].Hash, buf); {
	case labmesh.ReasonOf(err) == labmesh.Invalid:
		p.f.w.count(func(c *Traffic) { c.WastedBytes += int64(n) })
		p.f.w.wrong(ctx, p.node, t.id)
		p.f.mu.Lock()
		p.f.book.leave(&p.party) // what it still owes others can bring at once
		p.f.mu.Unlock()
		p.part(appendNumbers(nil, frameBad, []uint32{uint32(i)})) // it may be its disk, and now it knows
		return err
	case err != nil:
		p.f.fail(err)
		return err
	}
	p.f.w.recent.keep(t.chunks[i].Hash, c)
	p.f.w.count(func(c *Traffic) { c.ReceivedChunks++; c.ReceivedBytes += int64(n) })
	p.f.arrived(p, i)
	return nil
}

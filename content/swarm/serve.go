package swarm

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/content"
)

const (
	newsEvery = 20 * time.Millisecond // at most
	lookEvery = time.Second           // whether a tree that a peer waits for has come
	queueMax  = 4 * windowMax         // chunks that a peer may have asked for
	reasonMax = 1 << 10               // bytes of a refusal
)

// serve answers one stream.
func (w *Swarm) serve(ctx context.Context, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	l := newLink(c)
	ask, id, err := l.greeted()
	if err == nil {
		switch ask {
		case askManifest:
			err = w.serveManifest(l, id)
		case askChunks:
			err = w.serveChunks(ctx, cancel, l, id)
		case askPlease:
			err = w.servePlease(ctx, l, id)
		default:
			err = fmt.Errorf("it asks %q", ask)
		}
	}
	if err != nil && ctx.Err() == nil {
		w.log.DebugContext(ctx, "stream of content ended", "node", c.RemoteAddr().String(), "err", err)
	}
}

func (w *Swarm) serveManifest(l *link, id content.Hash) error {
	data, err := w.store.Get(id, nil)
	if _, bad := content.DecodeManifest(data); err != nil || bad != nil {
		data = nil // it is not here, or it is a chunk
	}
	return l.send(append(appendHead(nil, frameManifest, len(data)), data...))
}

// session is the serving end of a stream of chunks.
type session struct {
	w *Swarm
	t *tree
	l *link

	mu     sync.Mutex
	queue  []uint32
	signal chan struct{} // that the queue has grown
}

func (w *Swarm) serveChunks(ctx context.Context, cancel context.CancelFunc, l *link, id content.Hash) error {
	t := w.share(id)
	defer w.unshare(t)
	s := &session{w: w, t: t, l: l, signal: make(chan struct{}, 1)}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel() // closes the stream, which ends the reading
	reading.Go(func() {
		defer cancel() // ends the writing
		_ = s.read()   // the peer has gone, or makes no sense
	})
	return s.write(ctx)
}

// read takes what the peer says.
func (s *session) read() error {
	for {
		kind, n, err := s.l.head()
		if err != nil {
			return err
		}
		if kind == frameAlive {
			if err := s.l.skip(n); err != nil {
				return err
			}
			continue
		}
		numbers, err := s.l.numbers(n, s.t.size())
		if err != nil {
			return err
		}
		switch kind {
		case frameWant:
			err = s.want(numbers)
		case frameCancel:
			s.cancel(numbers)
		case frameBad:
			for _, i := range numbers {
				if !s.w.store.Check(s.t.chunks[i].Hash) {
					s.t.lost(int(i))
				}
			}
		default:
			err = fmt.Errorf("a frame %q", kind)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) want(numbers []uint32) error {
	s.mu.Lock()
	s.queue = append(s.queue, numbers...)
	n := len(s.queue)
	s.mu.Unlock()
	if n > queueMax {
		return fmt.Errorf("it asks for %d chunks at once", n)
	}
	s.t.moving(numbers)
	select {
	case s.signal <- struct{}{}:
	default: // it was told
	}
	return nil
}

func (s *session) cancel(numbers []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(i uint32) bool { return slices.Contains(numbers, i) })
}

func (s *session) take() (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return 0, false
	}
	i := s.queue[0]
	s.queue = s.queue[1:]
	return i, true
}

// write sends the maps once they are known, and then news and chunks.
func (s *session) write(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	maps, seen := s.t.maps()
	if err := s.l.send(append(appendHead(nil, frameMaps, len(maps)), maps...)); err != nil {
		return err
	}
	told := time.Now()
	buf := make([]byte, pieceBytes)
	for {
		news, now, more := s.t.since(seen)
		due := newsEvery - time.Since(told)
		if len(news) > 0 && due <= 0 {
			if err := s.l.send(appendNumbers(nil, frameNews, news)); err != nil {
				return err
			}
			seen, told = now, time.Now()
			continue
		}
		if i, ok := s.take(); ok {
			if err := s.chunk(i, buf); err != nil {
				return err
			}
			continue
		}
		if len(news) == 0 {
			due = aliveEvery
		} else {
			more = nil // we know, and wait until they are due
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		case <-s.signal:
		case <-time.After(due):
			if len(news) == 0 {
				if err := s.l.send(appendHead(nil, frameAlive, 0)); err != nil {
					return err
				}
			}
		}
	}
}

// wait waits until there is something to say of the tree.
func (s *session) wait(ctx context.Context) error {
	said := time.Now()
	for {
		_, _, more := s.t.since(0)
		if s.t.load(s.w.store) {
			return nil
		}
		if time.Since(said) >= aliveEvery {
			if err := s.l.send(appendHead(nil, frameAlive, 0)); err != nil {
				return err
			}
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		case <-time.After(lookEvery):
		}
	}
}

// chunk sends a chunk, from memory where it came just now, or else from the
// store: piece by piece, unchecked, for the other side checks it.
func (s *session) chunk(i uint32, buf []byte) error {
	c := s.t.chunks[i]
	head := binary.BigEndian.AppendUint32(appendHead(buf[:0], frameChunk, numberBytes+int(c.Size)), i)
	var err error
	if h := s.w.recent.get(c.Hash); h != nil {
		err = s.l.sendPieces(head, h.data)
		s.w.recent.release(h)
	} else {
		err = s.stored(i, buf, len(head))
	}
	if err == nil {
		s.w.count(func(t *Traffic) { t.SentChunks++; t.SentBytes += int64(c.Size) })
	}
	return err
}

// stored sends a chunk out of the store. Its head is in buf.
func (s *session) stored(i uint32, buf []byte, at int) error {
	c := s.t.chunks[i]
	f, err := s.w.store.Reader(c.Hash)
	if err != nil {
		s.t.lost(int(i))
		return s.l.send(appendNumbers(nil, frameGone, []uint32{i}))
	}
	defer f.Close()
	for left := int(c.Size); left > 0; {
		n := min(left, len(buf)-at)
		if _, err := io.ReadFull(f, buf[at:at+n]); err != nil {
			s.w.store.Check(c.Hash) // it is damaged: drop it
			s.t.lost(int(i))
			return fmt.Errorf("read chunk %s: %w", c.Hash, err) // half of it is sent: the stream cannot go on
		}
		if err := s.l.send(buf[:at+n]); err != nil {
			return err
		}
		left -= n
		at = 0
	}
	return nil
}

// servePlease fetches a tree because a peer asks for it, and goes on when the
// peer has left: it may have asked so that it can.
func (w *Swarm) servePlease(ctx context.Context, l *link, id content.Hash) error {
	select {
	case w.pleases <- struct{}{}:
		defer func() { <-w.pleases }()
	default:
		return l.refuse(labmesh.Refuse(labmesh.Exhausted, "it fetches %d trees for others already", pleasesMax))
	}
	if err := l.send(appendHead(nil, frameAlive, 0)); err != nil { // so that nobody else need be asked
		return err
	}
	ended := make(chan error, 1)
	var fetching sync.WaitGroup
	defer fetching.Wait()
	fetching.Go(func() { ended <- w.Fetch(ctx, id.String()) })
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return l.refuse(err)
			}
			return l.send(appendHead(nil, frameDone, 0))
		case <-alive.C:
			if err := l.send(appendHead(nil, frameAlive, 0)); err != nil {
				return err
			}
		}
	}
}

func (l *link) refuse(why error) error {
	text := why.Error()
	text = text[:min(len(text), reasonMax)]
	return l.send(append(appendHead(nil, frameRefused, len(text)), text...))
}

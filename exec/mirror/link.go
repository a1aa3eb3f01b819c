package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"labmesh"
)

const (
	linkBuffer   = 32 << 10 // written at once
	answerBuffer = 512      // read at once
)

// link is the stream to one keeper.
type link struct {
	conn    net.Conn
	buffers *sync.Pool
	broken  chan struct{} // closed when it is of no more use
	once    sync.Once
	err     error // why it is broken; read it after broken is closed

	writing sync.Mutex
	w       *bufio.Writer
	scratch []byte

	mu       sync.Mutex
	last     uint64
	channels map[uint64]*channel
}

// channel is an attempt on a link.
type channel struct {
	number  uint64
	opened  chan struct{} // closed when have is known
	have    [2]int64      // what the keeper has already
	refused chan struct{} // closed when the keeper wants no more
}

func (c *channel) isRefused() bool {
	select {
	case <-c.refused:
		return true
	default:
		return false
	}
}

func (l *link) isBroken() bool {
	select {
	case <-l.broken:
		return true
	default:
		return false
	}
}

// link is the stream to a node, opened if there is none.
func (s *Sender) link(ctx context.Context, node labmesh.NodeID) (*link, error) {
	s.mu.Lock()
	l := s.links[node]
	s.mu.Unlock()
	if l != nil && !l.isBroken() {
		return l, nil
	}
	dial, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	conn, err := s.cfg.Streams.Dial(dial, node)
	if err != nil {
		return nil, err
	}
	l = &link{conn: conn, broken: make(chan struct{}), channels: make(map[uint64]*channel),
		w: bufio.NewWriterSize(conn, linkBuffer), buffers: &sync.Pool{New: func() any { b := make([]byte, dataBytesMax); return &b }}}
	s.mu.Lock()
	if other := s.links[node]; other != nil && !other.isBroken() { // another attempt was faster
		s.mu.Unlock()
		_ = conn.Close()
		return other, nil
	}
	s.links[node] = l
	s.mu.Unlock()
	s.listening.Go(l.listen)
	return l, nil
}

// listen reads what the keeper says until the link is closed.
func (l *link) listen() {
	r, buf := bufio.NewReaderSize(l.conn, answerBuffer), make([]byte, frameBytesMax)
	for {
		f, err := readFrame(r, buf)
		if err != nil {
			l.close(fmt.Errorf("listen to a keeper: %w", err))
			return
		}
		l.mu.Lock()
		c := l.channels[f.number]
		l.mu.Unlock()
		switch {
		case c == nil:
		case f.kind == have:
			select {
			case <-c.opened: // it said so before
			default:
				c.have = f.sizes
				close(c.opened)
			}
		case f.kind == refused && !c.isRefused():
			close(c.refused)
		}
	}
}

// close makes the link of no more use.
func (l *link) close(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.broken)
		_ = l.conn.Close()
	})
}

// open announces an attempt and learns how much of it the keeper has.
func (l *link) open(ctx context.Context, k key) (*channel, error) {
	c := &channel{opened: make(chan struct{}), refused: make(chan struct{})}
	l.mu.Lock()
	l.last++
	c.number = l.last
	l.channels[c.number] = c
	l.mu.Unlock()
	err := l.send(&frame{kind: opening, number: c.number, task: k.task, attempt: k.attempt}, true)
	if err == nil {
		timer := time.NewTimer(linkWait)
		defer timer.Stop()
		select {
		case <-c.opened:
			return c, nil
		case <-c.refused:
			err = errRefused
		case <-l.broken:
			err = l.err
		case <-timer.C:
			err = errors.New("the node does not answer")
			l.close(err)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	l.forget(c)
	return nil, err
}

func (l *link) forget(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.channels, c.number)
}

// send writes a frame, if there is one, and with flush all that was written. It
// takes as long as the keeper does, up to a bound.
func (l *link) send(f *frame, flush bool) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.isBroken() {
		return l.err
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(linkWait))
	var err error
	if f != nil {
		l.scratch = f.append(l.scratch[:0])
		_, err = l.w.Write(l.scratch)
	}
	if err == nil && flush {
		err = l.w.Flush()
	}
	if err != nil {
		l.close(fmt.Errorf("write to a keeper: %w", err))
	}
	return err
}

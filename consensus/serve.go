package consensus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"labmesh"
)

// acceptPause is the wait after a listener that failed.
const acceptPause = 100 * time.Millisecond

// serveForwards takes commands from followers until ctx ends. Each stream is
// served until it breaks; what comes in goes the way of ProposeHere and never
// on to another node.
func (r *Replica) serveForwards(ctx context.Context) error {
	l, err := r.cfg.Forward.Listen()
	if err != nil {
		return fmt.Errorf("listen for forwarded commands: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			r.cfg.Logger.WarnContext(ctx, "no stream of forwarded commands could be taken", "err", err)
			r.pauseFor(ctx, acceptPause)
			continue
		}
		serving.Go(func() {
			s := &forwardStream{replica: r, conn: conn, more: make(chan struct{}, 1)}
			if err := s.serve(ctx); err != nil {
				r.cfg.Logger.DebugContext(ctx, "forward stream ended", "peer", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

func (r *Replica) pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// forwardStream is a follower's stream of requests.
type forwardStream struct {
	replica *Replica
	conn    net.Conn
	more    chan struct{} // told when replies has something

	mu      sync.Mutex
	open    int // requests without a reply written
	replies []numberedReply
}

type numberedReply struct {
	id uint64
	reply
}

func (s *forwardStream) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	var writing sync.WaitGroup
	defer writing.Wait()
	defer cancel() // before the wait
	writing.Go(func() {
		defer cancel()
		s.write(ctx)
	})
	in := bufio.NewReaderSize(s.conn, chunkBytes)
	preface := make([]byte, len(forwardMagic))
	if _, err := io.ReadFull(in, preface); err != nil {
		return err
	}
	if string(preface) != forwardMagic {
		return errors.New("the stream is not of this protocol: another version of labmesh opened it")
	}
	for {
		data, err := readFrame(in)
		if err != nil {
			return err
		}
		if err := eachInFrame(data, s.take); err != nil {
			return err
		}
	}
}

// take proposes one request here. The reply comes when its fate is known.
func (s *forwardStream) take(id uint64, lines []byte) error {
	s.mu.Lock()
	s.open++
	full := s.open > requestsOpenMax
	s.mu.Unlock()
	if full {
		s.reply(id, labmesh.Receipt{}, labmesh.Refuse(labmesh.Exhausted, "propose: %d requests of this node wait for their answer", requestsOpenMax))
		return nil
	}
	b, err := readBatch(lines)
	if err == nil {
		b.done = func(rc labmesh.Receipt, err error) { s.reply(id, rc, err) }
		err = s.replica.enqueue(b)
	}
	if err != nil {
		s.reply(id, labmesh.Receipt{}, err)
	}
	return nil
}

func (s *forwardStream) reply(id uint64, rc labmesh.Receipt, err error) {
	s.mu.Lock()
	s.replies = append(s.replies, numberedReply{id, replyOf(rc, err)})
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// write sends replies; those that are there together go together.
func (s *forwardStream) write(ctx context.Context) {
	var f frame
	for {
		select {
		case <-s.more:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		replies := s.replies
		s.replies, s.open = nil, s.open-len(replies)
		s.mu.Unlock()
		f.begin()
		for i, r := range replies {
			body, err := json.Marshal(r.reply)
			if err != nil {
				return // closes the stream: the other side must not wait
			}
			f.put(r.id, body)
			if f.Len() < frameBytesTarget && i < len(replies)-1 {
				continue
			}
			if _, err := s.conn.Write(f.end()); err != nil {
				return
			}
			f.begin()
		}
	}
}

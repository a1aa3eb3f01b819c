package node

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
	"labmesh/consensus"
	"labmesh/mesh"
)

// requestTimeout bounds how long a member may take to say what it wants.
const requestTimeout = 5 * time.Second

// ask opens a stream to a member, sends one line of JSON and reads one. What
// follows on the stream is the body.
func ask[Reply any](ctx context.Context, s *mesh.Streams, to labmesh.NodeID, request any) (io.ReadCloser, Reply, error) {
	var reply Reply
	conn, err := s.Dial(ctx, to)
	if err != nil {
		return nil, reply, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // wakes whoever reads
	body := &body{Reader: bufio.NewReader(conn), conn: conn, stop: stop}
	err = answerHead(conn, request)
	var line []byte
	if err == nil {
		line, err = readLine(body.Reader)
	}
	if err == nil {
		err = json.Unmarshal(line, &reply)
	}
	if err != nil {
		return nil, reply, errors.Join(fmt.Errorf("ask %s: %w", to, err), body.Close())
	}
	return body, reply, nil
}

// body is the rest of a stream after its first line.
type body struct {
	*bufio.Reader
	conn net.Conn
	stop func() bool
}

// Close hangs up.
func (b *body) Close() error {
	b.stop()
	return b.conn.Close()
}

// serveStreams answers members that [ask], until ctx ends.
func serveStreams[Request any](ctx context.Context, s consensus.Streams, serve func(context.Context, net.Conn, Request) error) error {
	return serveStreamsUpTo(ctx, s, servedAtOnce, serve)
}

// serveStreamsUpTo is serveStreams with a bound of its own on how many are
// served at the same time, for what lasts.
func serveStreamsUpTo[Request any](ctx context.Context, s consensus.Streams, most int, serve func(context.Context, net.Conn, Request) error) error {
	listener, err := s.Listen()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var served sync.WaitGroup
	defer served.Wait()
	room := make(chan struct{}, most)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener was closed, as ctx ended
		}
		room <- struct{}{}
		served.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			var req Request
			_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
			line, err := readLine(bufio.NewReaderSize(io.LimitReader(conn, requestMax), requestMax))
			if err != nil || json.Unmarshal(line, &req) != nil {
				return // it does not say what it wants
			}
			_ = serve(ctx, conn, req) // the member sees its stream end
		})
	}
}

// readLine reads a line of at most the reader's size.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read a line: %w", err)
	}
	return line, nil
}

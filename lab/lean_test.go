package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/lab"
)

// lean is an HTTP client of one connection that does nothing but send a request
// and read the reply, so that a benchmark measures the node and not its client.
type lean struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
}

func dial(b testing.TB, n *lab.Node) *lean {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.URL(), "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &lean{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// request is a whole request, to be sent any number of times.
func request(n *lab.Node, path string, body []byte) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, n.Key(), len(body))
	return append([]byte(head), body...)
}

// send sends a request and returns the body of the reply, good until the next.
func (l *lean) send(request []byte) ([]byte, error) {
	if _, err := l.conn.Write(request); err != nil {
		return nil, err
	}
	status, err := l.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	length := -1
	for {
		line, err := l.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return l.chunks(ok)
	}
	if cap(l.body) < length {
		l.body = make([]byte, length)
	}
	l.body = l.body[:length]
	if _, err := io.ReadFull(l.in, l.body); err != nil {
		return nil, err
	}
	return l.reply(ok)
}

// chunks reads a chunked body.
func (l *lean) chunks(ok bool) ([]byte, error) {
	l.body = l.body[:0]
	for {
		line, err := l.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(l.in, chunk); err != nil {
			return nil, err
		}
		if size == 0 {
			return l.reply(ok)
		}
		l.body = append(l.body, chunk[:size]...)
	}
}

func (l *lean) reply(ok bool) ([]byte, error) {
	if !ok {
		return nil, fmt.Errorf("the node refused: %.300s", l.body)
	}
	return l.body, nil
}

// taskID picks the id from the reply to a submit.
func taskID(reply []byte) labmesh.TaskID {
	_, rest, _ := bytes.Cut(reply, []byte(`"task_id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return labmesh.TaskID(id)
}

// clock notes when verdicts are seen at one node.
type clock struct {
	mu    sync.Mutex
	seen  map[labmesh.TaskID]time.Time
	count int
	more  chan struct{} // closed at the next verdict
}

// watch starts a clock at n, and returns when it runs.
func watch(b testing.TB, n *lab.Node) *clock {
	b.Helper()
	c := &clock{seen: map[labmesh.TaskID]time.Time{}, more: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	cl := n.Client()
	go func() {
		defer close(done)
		_ = cl.Events(ctx, "", func(e api.Event) error { // it ends with ctx
			if e.Task == nil || !e.Task.Status.Final() {
				return nil
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.seen[e.Task.ID] = time.Now()
			c.count++
			close(c.more)
			c.more = make(chan struct{})
			return nil
		})
	}()
	b.Cleanup(func() { cancel(); <-done })
	ids := submit(b, n, program("true")) // repeated until the clock sees one
	until(b, 20*time.Second, "the events of "+n.Name, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.count == 0 && len(ids) < 200 {
			ids = append(ids, submit(b, n, program("true"))...)
		}
		return c.count > 0
	})
	quiet(b, n)
	return c
}

// quiet waits until n knows of no task that waits or runs for a worker that fits.
func quiet(b testing.TB, n *lab.Node) {
	b.Helper()
	until(b, 60*time.Second, "the mesh is quiet", func() bool {
		st, err := n.Client().Status(b.Context())
		return err == nil && st.Tasks["running"]+st.Tasks["assigned"] == 0
	})
}

// when waits until the verdict of id has been seen.
func (c *clock) when(ctx context.Context, id labmesh.TaskID) (time.Time, error) {
	for {
		c.mu.Lock()
		at, ok := c.seen[id]
		more := c.more
		c.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

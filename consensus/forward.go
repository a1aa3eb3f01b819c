package consensus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"labmesh"
)

// The forward protocol. A stream begins with forwardMagic; after it both sides
// send frames: a length (4 bytes, big endian) and that many bytes. A frame of
// the follower holds requests, one of the leader replies, as many as there were
// at the time: each is its number, its length (both uvarints) and its bytes. The
// bytes of a request are encoded commands, those of a reply are a reply as JSON.
const (
	forwardMagic     = "labmesh-forward-1\n"
	frameBytesMax    = labmesh.EntryBytesMax + 64<<10
	frameBytesTarget = 1 << 20 // frames are closed at this size, unless one request alone is larger
	requestsQueued   = 1024    // requests that wait to be written
	requestsOpenMax  = 8192    // requests of one stream that wait for their answer
)

// reply is what the leader answers to a request.
type reply struct {
	Receipt    labmesh.Receipt `json:"receipt"`
	Refused    *labmesh.Error  `json:"refused,omitempty"`
	NotEntered bool            `json:"not_entered,omitempty"` // the commands are known not to be in the log
}

func replyOf(rc labmesh.Receipt, err error) reply {
	if err == nil {
		return reply{Receipt: rc}
	}
	var early *notEnteredError
	var refused *labmesh.Error
	if !errors.As(err, &refused) {
		refused = labmesh.Refuse(labmesh.Internal, "%v", err)
	}
	return reply{Refused: refused, NotEntered: errors.As(err, &early)}
}

func (r reply) outcome() (labmesh.Receipt, error) {
	switch {
	case r.NotEntered && r.Refused != nil:
		return labmesh.Receipt{}, &notEnteredError{r.Refused}
	case r.Refused != nil:
		return labmesh.Receipt{}, r.Refused
	}
	return r.Receipt, nil
}

// forwarder sends commands to the leader over one stream, which it keeps.
type forwarder struct {
	streams Streams
	turn    chan struct{} // held while the link is looked at or made

	mu     sync.Mutex
	link   *link
	closed bool
	links  sync.WaitGroup
}

func newForwarder(s Streams) *forwarder {
	return &forwarder{streams: s, turn: make(chan struct{}, 1)}
}

// propose sends encoded commands to the leader and waits for its answer.
func (f *forwarder) propose(ctx context.Context, leader labmesh.NodeID, lines []byte) (labmesh.Receipt, error) {
	l, err := f.reach(ctx, leader)
	if err != nil {
		return labmesh.Receipt{}, notEntered(err.Error())
	}
	q := &request{lines: lines, settled: make(chan reply, 1)}
	select {
	case l.out <- q:
	case <-l.broken:
		return labmesh.Receipt{}, notEntered("the stream to the leader broke")
	case <-ctx.Done():
		return labmesh.Receipt{}, notEntered("the time to answer is over: " + context.Cause(ctx).Error())
	}
	select {
	case r := <-q.settled:
		return r.outcome()
	case <-ctx.Done():
		l.forget(q)
		return labmesh.Receipt{}, fateUnknown("the time to answer is over: " + context.Cause(ctx).Error())
	case <-l.broken:
	}
	select { // the answer may have been the last thing that came
	case r := <-q.settled:
		return r.outcome()
	default:
	}
	if q.written.Load() {
		return labmesh.Receipt{}, fateUnknown("the stream to the leader broke")
	}
	return labmesh.Receipt{}, notEntered("the stream to the leader broke")
}

// reach returns the link to the leader, and makes it if need be.
func (f *forwarder) reach(ctx context.Context, leader labmesh.NodeID) (*link, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if l := f.follow(leader); l != nil {
		return l, nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	conn, err := f.streams.Dial(ctx, leader)
	if err != nil {
		return nil, fmt.Errorf("reach leader: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = conn.Close()
		return nil, errors.New("the replica is stopping")
	}
	l := newLink(leader, conn)
	f.link = l
	f.links.Go(l.write)
	f.links.Go(l.read)
	return l, nil
}

// follow returns the link to the leader if there is one. A link to another node
// is given up: what it still had to answer is nobody's any more.
func (f *forwarder) follow(leader labmesh.NodeID) *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link == nil {
		return nil
	}
	if f.link.to == leader && f.link.alive() {
		return f.link
	}
	f.link.close()
	f.link = nil
	return nil
}

// close gives up the link and waits for its goroutines.
func (f *forwarder) close() {
	f.mu.Lock()
	f.closed = true
	if f.link != nil {
		f.link.close()
	}
	f.mu.Unlock()
	f.links.Wait()
}

// request is one call of Propose on its way.
type request struct {
	id      uint64
	lines   []byte
	written atomic.Bool // perhaps: set before the attempt
	settled chan reply
}

// link is a stream to the leader with many requests under way.
type link struct {
	to     labmesh.NodeID
	conn   net.Conn
	out    chan *request
	broken chan struct{}
	once   sync.Once

	mu   sync.Mutex
	last uint64
	open map[uint64]*request
}

func newLink(to labmesh.NodeID, conn net.Conn) *link {
	return &link{to: to, conn: conn, out: make(chan *request, requestsQueued),
		broken: make(chan struct{}), open: map[uint64]*request{}}
}

func (l *link) alive() bool {
	select {
	case <-l.broken:
		return false
	default:
		return true
	}
}

func (l *link) close() {
	l.once.Do(func() {
		_ = l.conn.Close() // first: what is not written by now will never be
		close(l.broken)
	})
}

func (l *link) forget(q *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, q.id)
}

// write sends requests; those that wait together go together.
func (l *link) write() {
	defer l.close()
	var frame frame
	frame.begin()
	preface := []byte(forwardMagic)
	for {
		select {
		case q := <-l.out:
			l.put(&frame, q)
		case <-l.broken:
			return
		}
		for more := true; more && frame.Len() < frameBytesTarget; {
			select {
			case q := <-l.out:
				if frame.Len()+len(q.lines) > frameBytesMax-frameOverhead {
					if _, err := l.conn.Write(append(preface, frame.end()...)); err != nil {
						return
					}
					preface = nil
					frame.begin()
				}
				l.put(&frame, q)
			default:
				more = false
			}
		}
		if _, err := l.conn.Write(append(preface, frame.end()...)); err != nil {
			return
		}
		preface = nil
		frame.begin()
	}
}

func (l *link) put(f *frame, q *request) {
	l.mu.Lock()
	l.last++
	q.id = l.last
	l.open[q.id] = q
	l.mu.Unlock()
	q.written.Store(true)
	f.put(q.id, q.lines)
}

// read takes in replies.
func (l *link) read() {
	defer l.close()
	in := bufio.NewReaderSize(l.conn, chunkBytes)
	for {
		data, err := readFrame(in)
		if err != nil {
			return
		}
		err = eachInFrame(data, func(id uint64, body []byte) error {
			l.mu.Lock()
			q := l.open[id]
			delete(l.open, id)
			l.mu.Unlock()
			if q == nil {
				return nil // its caller has given up
			}
			var r reply
			if err := json.Unmarshal(body, &r); err != nil {
				return err
			}
			q.settled <- r
			return nil
		})
		if err != nil {
			return
		}
	}
}

// frameOverhead is the most that a frame adds to one request.
const frameOverhead = 4 + 2*binary.MaxVarintLen64

// frame is a frame in the making.
type frame struct{ bytes.Buffer }

func (f *frame) begin() {
	if f.Cap() > 4*frameBytesTarget {
		f.Buffer = bytes.Buffer{} // do not keep what one large request needed
	}
	f.Reset()
	f.Write(make([]byte, 4))
}

func (f *frame) put(id uint64, body []byte) {
	f.Write(binary.AppendUvarint(f.AvailableBuffer(), id))
	f.Write(binary.AppendUvarint(f.AvailableBuffer(), uint64(len(body))))
	f.Write(body)
}

func (f *frame) end() []byte {
	data := f.Bytes()
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	return data
}

func readFrame(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > frameBytesMax {
		return nil, fmt.Errorf("read frame: %d bytes; at most %d", size, frameBytesMax)
	}
	var data bytes.Buffer // grows with what arrives, not with what is announced
	if _, err := io.CopyN(&data, in, int64(size)); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	return data.Bytes(), nil
}

func eachInFrame(data []byte, do func(id uint64, body []byte) error) error {
	for len(data) > 0 {
		id, n := binary.Uvarint(data)
		if n <= 0 {
			return errors.New("read frame: a number is cut off")
		}
		data = data[n:]
		size, n := binary.Uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return errors.New("read frame: a body is cut off")
		}
		body := data[n : n+int(size)]
		data = data[n+int(size):]
		if err := do(id, body); err != nil {
			return err
		}
	}
	return nil
}

package swarm

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"labmesh"
	"labmesh/content"
)

// hello begins every stream, followed by what is asked and the id of a tree.
const hello = "LMS1"

// What may be asked.
const (
	askManifest byte = 'M'
	askChunks   byte = 'C'
	askPlease   byte = 'P'
)

// frame kinds. A frame is its kind, the length of its body in four bytes, and
// its body.
const (
	frameAlive    byte = 'a' // nothing to say, and still there
	frameManifest byte = 'm' // its bytes; none: this node does not have it
	frameMaps     byte = 'b' // two bitmaps: what the server has, and what is on its way
	frameNews     byte = 'n' // what changed: numbers, twice the chunk's, and one more where it is on its way
	frameChunk    byte = 'c' // the chunk's number and its bytes
	frameGone     byte = 'g' // the server does not have this chunk any more
	frameWant     byte = 'w' // numbers of chunks
	frameCancel   byte = 'x' // numbers of chunks that came from elsewhere
	frameBad      byte = 'd' // the number of a chunk that came with wrong bytes
	frameDone     byte = 'y' // the tree is here
	frameRefused  byte = 'r' // why it is not
)

const (
	frameHead    = 5
	numberBytes  = 4
	smallBody    = content.ManifestBytesMax // the longest body of a frame that is not a chunk
	aliveEvery   = 5 * time.Second          // a side that has nothing to say says so this often
	silenceMax   = 20 * time.Second         // a side that says nothing for that long is gone
	helloTimeout = 10 * time.Second
	wireBuffer   = 64 << 10

	// A chunk goes in pieces, each within the time that silence may last. A piece
	// fills frames of the muxer (64 KiB with a head of 12 bytes), which makes
	// each of its writes one: a byte more would be one of its own.
	muxFrame   = 64<<10 - 12
	pieceBytes = 4 * muxFrame
	firstPiece = 16<<10 - 64 // goes with the head of the frame, copied
)

func appendHead(b []byte, kind byte, body int) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(body))
}

func appendNumbers(b []byte, kind byte, numbers []uint32) []byte {
	b = appendHead(b, kind, len(numbers)*numberBytes)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// link is one end of a stream.
type link struct {
	net.Conn
	r          *bufio.Reader
	readUntil  time.Time // when the deadline for reading was set to end
	writeUntil time.Time // the same for writing, which only one may do
}

func newLink(c net.Conn) *link { return &link{Conn: c, r: bufio.NewReaderSize(c, wireBuffer)} }

// send writes a frame, or several that are joined.
func (l *link) send(frames []byte) error {
	if err := extend(&l.writeUntil, l.SetWriteDeadline); err != nil {
		return err
	}
	_, err := l.Write(frames)
	return err
}

// sendPieces writes the head of a frame, in a buffer that has room for a piece,
// and its body.
func (l *link) sendPieces(head, body []byte) error {
	n := min(firstPiece, len(body))
	err := l.send(append(head, body[:n]...))
	for body = body[n:]; err == nil && len(body) > 0; body = body[n:] {
		n = min(pieceBytes, len(body))
		err = l.send(body[:n])
	}
	return err
}

// extend sets a deadline to when silence has lasted too long from now on. It
// leaves one that was set in the last second.
func extend(until *time.Time, set func(time.Time) error) error {
	at := time.Now().Add(silenceMax)
	if at.Sub(*until) < time.Second {
		return nil
	}
	*until = at
	return set(at)
}

// head waits for the next frame.
func (l *link) head() (kind byte, body int, err error) {
	var b [frameHead]byte
	if err := l.fill(b[:]); err != nil {
		return 0, 0, err
	}
	kind, n := b[0], binary.BigEndian.Uint32(b[1:])
	limit := uint32(smallBody)
	if kind == frameChunk {
		limit = content.ChunkBytesMax + numberBytes
	}
	if n > limit {
		return 0, 0, labmesh.Refuse(labmesh.Invalid, "a frame %q of %d bytes", kind, n)
	}
	return kind, int(n), nil
}

// fill reads all of b, each part within the time that silence may last.
func (l *link) fill(b []byte) error {
	for len(b) > 0 {
		if l.r.Buffered() == 0 {
			if err := extend(&l.readUntil, l.SetReadDeadline); err != nil {
				return err
			}
		}
		n, err := l.r.Read(b)
		b = b[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// body reads the body of a frame.
func (l *link) body(n int) ([]byte, error) {
	b := make([]byte, n)
	return b, l.fill(b)
}

// numbers reads a body of numbers below limit.
func (l *link) numbers(n, limit int) ([]uint32, error) {
	if n%numberBytes != 0 {
		return nil, labmesh.Refuse(labmesh.Invalid, "%d bytes are no list of numbers", n)
	}
	b, err := l.body(n)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, 0, n/numberBytes)
	for ; len(b) > 0; b = b[numberBytes:] {
		v := binary.BigEndian.Uint32(b)
		if int64(v) >= int64(limit) {
			return nil, labmesh.Refuse(labmesh.Invalid, "there is no chunk %d", v)
		}
		out = append(out, v)
	}
	return out, nil
}

// skip drops a body.
func (l *link) skip(n int) error {
	_, err := io.CopyN(io.Discard, readerFunc(func(p []byte) (int, error) {
		p = p[:min(len(p), n)]
		return len(p), l.fill(p)
	}), int64(n))
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// greet opens a request.
func (l *link) greet(ask byte, id content.Hash) error {
	return l.send(append(append([]byte(hello), ask), id[:]...))
}

// greeted reads what the other side asks.
func (l *link) greeted() (ask byte, id content.Hash, err error) {
	var b [len(hello) + 1 + content.HashBytes]byte
	if err := l.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, id, err
	}
	if _, err := io.ReadFull(l.r, b[:]); err != nil {
		return 0, id, err
	}
	if string(b[:len(hello)]) != hello {
		return 0, id, fmt.Errorf("it begins with %q", b[:len(hello)])
	}
	return b[len(hello)], content.Hash(b[len(hello)+1:]), nil
}

// bits is a set of chunk numbers.
type bits []byte

func newBits(n int) bits { return make(bits, (n+7)/8) }

func (b bits) has(i int) bool { return b[i/8]&(1<<(i%8)) != 0 }
func (b bits) set(i int)      { b[i/8] |= 1 << (i % 8) }
func (b bits) clear(i int)    { b[i/8] &^= 1 << (i % 8) }

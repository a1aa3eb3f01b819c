package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"
)

// ringHeader opens a ring file: how many bytes were printed in all, and the
// offset in the stream from which on the ring holds good bytes.
const ringHeader = 16

// stream is one stream of an output. Offsets count the bytes printed. The
// owner's lock guards it.
type stream struct {
	path string
	file *os.File // bytes [0, head)
	ring *os.File // the byte at offset i is at ringHeader + i%TailBytesMax

	total  int64 // bytes printed
	head   int64 // bytes in file
	sealed bool  // nothing more goes into file: it is full, or the disk was
	good   int64 // the ring has no bytes from before this

	first []byte // excerpt of the beginning
	last  []byte // excerpt of the end, up to twice its size
}

func (s *stream) write(p []byte) {
	s.remember(p)
	if !s.sealed {
		p = s.writeHead(p)
	}
	if len(p) > 0 {
		s.writeTail(p)
	}
}

// writeHead puts what fits of p into file and returns the rest.
func (s *stream) writeHead(p []byte) (rest []byte) {
	n := min(int64(len(p)), HeadBytesMax-s.head)
	wrote, err := 0, error(nil)
	if s.file == nil {
		s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err == nil {
		wrote, err = s.file.Write(p[:n])
	}
	s.head += int64(wrote)
	s.total += int64(wrote)
	if err != nil || s.head == HeadBytesMax {
		s.sealed, s.good = true, s.head
	}
	return p[wrote:]
}

// writeTail puts p into the ring.
func (s *stream) writeTail(p []byte) {
	end := s.total + int64(len(p))
	if over := len(p) - TailBytesMax; over > 0 { // it would overwrite itself
		s.total += int64(over)
		p = p[over:]
	}
	var err error
	if s.ring == nil {
		s.ring, err = os.OpenFile(s.path+".tail", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	for err == nil && len(p) > 0 {
		at := s.total % TailBytesMax
		n := min(int64(len(p)), TailBytesMax-at)
		_, err = s.ring.WriteAt(p[:n], ringHeader+at)
		s.total += n
		p = p[n:]
	}
	if s.total = end; err != nil {
		s.good = end // the disk is full: go on after the hole
	}
	if s.ring != nil {
		var h [ringHeader]byte
		binary.LittleEndian.PutUint64(h[:], uint64(s.total))
		binary.LittleEndian.PutUint64(h[8:], uint64(s.good))
		if _, err := s.ring.WriteAt(h[:], 0); err != nil {
			s.good = end // and what the file says of itself may be older
		}
	}
}

// tailStart is the offset of the first byte kept after the head; it is total
// when there is none.
func (s *stream) tailStart() int64 {
	if !s.sealed {
		return s.head
	}
	return max(s.good, s.total-TailBytesMax, s.head)
}

// readAt reads kept bytes from offset at, which is in the head or the tail.
func (s *stream) readAt(p []byte, at int64) (int, error) {
	if at < s.head {
		p = p[:min(int64(len(p)), s.head-at)]
		return s.file.ReadAt(p, at)
	}
	in := at % TailBytesMax
	p = p[:min(int64(len(p)), s.total-at, TailBytesMax-in)]
	return s.ring.ReadAt(p, ringHeader+in)
}

// load reads how much of a finished stream its files hold.
func (s *stream) load() (err error) {
	if s.file, s.head, err = openIfThere(s.path); err != nil {
		return err
	}
	s.total, s.sealed = s.head, true
	var size int64
	if s.ring, size, err = openIfThere(s.path + ".tail"); err != nil || size < ringHeader {
		s.good = s.total
		return err
	}
	var h [ringHeader]byte
	if _, err := s.ring.ReadAt(h[:], 0); err != nil {
		return fmt.Errorf("read %s: %w", s.ring.Name(), err)
	}
	s.total = max(int64(binary.LittleEndian.Uint64(h[:])), s.head)
	s.good = min(int64(binary.LittleEndian.Uint64(h[8:])), s.total)
	return nil
}

func openIfThere(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open output: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	return f, size, err
}

// remember keeps what excerpt needs of p.
func (s *stream) remember(p []byte) {
	if room := excerptHeadBytes - len(s.first); room > 0 {
		n := min(room, len(p))
		s.first = append(s.first, p[:n]...)
		p = p[n:]
	}
	if len(p) > excerptTailBytes {
		s.last, p = s.last[:0], p[len(p)-excerptTailBytes:]
	}
	if len(s.last)+len(p) > 2*excerptTailBytes {
		keep := excerptTailBytes - len(p)
		s.last = append(s.last[:0], s.last[len(s.last)-keep:]...)
	}
	s.last = append(s.last, p...)
}

// Excerpt is the beginning and the end of a stream.
type Excerpt struct {
	Text      string // valid UTF-8
	Bytes     int64  // how many bytes the stream had in all
	Truncated bool   // whether Text is not all of it
}

func (s *stream) excerpt() Excerpt {
	last := s.last
	if len(last) > excerptTailBytes {
		last = last[len(last)-excerptTailBytes:]
	}
	e := Excerpt{Bytes: s.total}
	left := s.total - int64(len(s.first)+len(last))
	if left <= 0 {
		e.Text = valid(append(append([]byte(nil), s.first...), last...))
		return e
	}
	e.Truncated = true
	first := trimEnd(s.first)
	last = trimStart(last)
	left = s.total - int64(len(first)+len(last))
	e.Text = valid(first) + Marker(left) + valid(last)
	return e
}

// Marker stands for n bytes that were printed and are not kept.
func Marker(n int64) string {
	return fmt.Sprintf("\n[labmesh: %d bytes left out here]\n", n)
}

func valid(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return string([]rune(string(b))) // every byte that is no text becomes U+FFFD
}

// trimEnd drops a character that was cut at the end of b.
func trimEnd(b []byte) []byte {
	for i := 1; i <= min(utf8.UTFMax, len(b)); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// trimStart drops the rest of a character that was cut at the start of b.
func trimStart(b []byte) []byte {
	for i := 0; i < min(utf8.UTFMax-1, len(b)); i++ {
		if utf8.RuneStart(b[i]) {
			return b[i:]
		}
	}
	return b
}

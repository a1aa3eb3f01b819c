package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"unicode/utf8"

	"labmesh"
)

// A ring file begins with a header of three numbers: how many bytes were printed
// in all, the offset in the stream from which on the ring holds good bytes, and
// the size of the ring. The ring is larger than the tail it keeps by what one
// write may overwrite before the header says so: a process that is killed in
// between leaves the tail as it was.
const (
	ringHeader    = 24
	ringSlack     = 64 << 10
	ringBytes     = TailBytesMax + ringSlack
	ringBytesMost = 1 << 30 // of any version's ring

	tailSuffix = ".tail"
)

// stream is one stream of an output. Offsets count the bytes printed. The
// owner's lock guards it.
type stream struct {
	path string
	file *os.File // bytes [0, head)
	ring *os.File // the byte at offset i is at ringHeader + i%size

	total  int64 // bytes printed
	head   int64 // bytes in file
	sealed bool  // nothing more goes into file: it is full, or the disk was
	good   int64 // the ring has no bytes from before this
	size   int64 // of the ring; 0 for ringBytes

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
		wrote, err = s.file.Write(p[:n]) // at its end; WriteAt would not say how much went in
	}
	s.head += int64(wrote)
	s.total += int64(wrote)
	if err != nil || s.head >= HeadBytesMax {
		s.sealed, s.good = true, s.head
	}
	return p[wrote:]
}

// writeTail puts p into the ring.
func (s *stream) writeTail(p []byte) {
	end := s.total + int64(len(p))
	err := s.openRing()
	for err == nil && len(p) > 0 {
		at := s.total % s.ringSize()
		n := min(int64(len(p)), s.ringSize()-at, ringSlack)
		if _, err = s.ring.WriteAt(p[:n], ringHeader+at); err == nil {
			s.total += n
			p = p[n:]
			err = s.writeRingHeader()
		}
	}
	if err != nil { // the disk is full: go on after the hole
		s.total, s.good = end, end
		_ = s.writeRingHeader() // what the file says of itself may be older
	}
}

// skip goes on at offset upto: what was before, and is not here, never will be.
func (s *stream) skip(upto int64) {
	if upto <= s.total {
		return
	}
	s.total, s.good, s.sealed = upto, upto, true
	s.last = s.last[:0]
	if s.openRing() == nil {
		_ = s.writeRingHeader() // as above
	}
}

func (s *stream) openRing() (err error) {
	if s.ring == nil {
		s.ring, err = os.OpenFile(s.path+tailSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	return err
}

func (s *stream) writeRingHeader() error {
	if s.ring == nil {
		return os.ErrInvalid
	}
	var h [ringHeader]byte
	binary.LittleEndian.PutUint64(h[:], uint64(s.total))
	binary.LittleEndian.PutUint64(h[8:], uint64(s.good))
	binary.LittleEndian.PutUint64(h[16:], uint64(s.ringSize()))
	_, err := s.ring.WriteAt(h[:], 0)
	return err
}

func (s *stream) ringSize() int64 {
	if s.size == 0 {
		return ringBytes
	}
	return s.size
}

// tailStart is the offset of the first byte kept after the head; it is total
// when there is none.
func (s *stream) tailStart() int64 {
	if !s.sealed {
		return s.head
	}
	return max(s.good, s.total-(s.ringSize()-ringSlack), s.head)
}

// place says where the kept bytes from offset at are: in which file, from where,
// and how many of the n wanted lie in one piece.
func (s *stream) place(at int64, n int) (f *os.File, pos int64, fit int) {
	if at < s.head {
		return s.file, at, int(min(int64(n), s.head-at))
	}
	in := at % s.ringSize()
	return s.ring, ringHeader + in, int(min(int64(n), s.total-at, s.ringSize()-in))
}

// load reads how much of a stream its files hold.
func (s *stream) load(flag int) (err error) {
	if s.file, s.head, err = openIfThere(s.path, flag); err != nil {
		return err
	}
	s.total, s.sealed = s.head, flag == os.O_RDONLY || s.head >= HeadBytesMax
	var size int64
	if s.ring, size, err = openIfThere(s.path+tailSuffix, flag); err != nil {
		return err
	}
	if size >= ringHeader {
		s.sealed = true
		if err := s.loadRing(); err != nil {
			return err
		}
	} else {
		s.good = s.total
	}
	s.recall()
	return nil
}

func (s *stream) loadRing() error {
	var h [ringHeader]byte
	if _, err := s.ring.ReadAt(h[:], 0); err != nil {
		return fmt.Errorf("read %s: %w", s.ring.Name(), err)
	}
	number := func(at int) int64 { return int64(binary.LittleEndian.Uint64(h[at:]) & math.MaxInt64) }
	s.total = max(number(0), s.head)
	s.good = min(number(8), s.total)
	s.size = number(16)
	if s.size <= ringSlack || s.size > ringBytesMost {
		return fmt.Errorf("read %s: it says that its ring has %d bytes: it is damaged; remove it", s.ring.Name(), s.size)
	}
	return nil
}

// recall reads back what excerpt needs.
func (s *stream) recall() {
	s.first = s.recallFrom(0, min(s.head, excerptHeadBytes))
	from := max(s.total-excerptTailBytes, int64(len(s.first)))
	if tail := s.tailStart(); tail > s.head || from > s.head {
		from = max(from, tail)
	}
	s.last = s.recallFrom(from, s.total-from)
}

// recallFrom reads n kept bytes, or as many as can be read.
func (s *stream) recallFrom(at, n int64) []byte {
	out := make([]byte, 0, max(n, 0))
	for n > int64(len(out)) {
		f, pos, fit := s.place(at+int64(len(out)), int(n)-len(out))
		if _, err := readFull(f, out[len(out):len(out)+fit], pos); err != nil {
			break
		}
		out = out[:len(out)+fit]
	}
	return out
}

func openIfThere(path string, flag int) (*os.File, int64, error) {
	f, err := os.OpenFile(path, flag, 0)
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
	if room := excerptHeadBytes - len(s.first); room > 0 && int64(len(s.first)) == s.total {
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
func Marker(n int64) string { return labmesh.LeftOut(n) }

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

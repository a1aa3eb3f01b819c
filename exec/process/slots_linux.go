package process

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"labmesh/exec/output"
)

const (
	slotsMax   = 256
	slotHeader = 64
	slotBytes  = slotHeader + readBytesMax
	nonceBytes = 16
)

// slots are buffers in memory that the keeper holds too. What was read from a
// program is there until it is written down, so that it is not lost when this
// process is killed between the two.
type slots struct {
	file *os.File
	mem  []byte

	mu   sync.Mutex
	free []int
	used int
}

// slot is one buffer. Its header says, in this order: where it stands, how many
// bytes, of which program and stream, how long the output was before, and what
// the last bytes were before they were read.
type slot []byte

// Where a slot stands.
const (
	slotIdle    uint32 = iota
	slotReading        // a read of just so many bytes may have been made
	slotRead           // it was, and what it gave may have been written
)

// newSlots makes slots. Without memory for them there are none.
func newSlots() *slots {
	fd, err := unix.MemfdCreate("labmesh-output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil
	}
	s := &slots{file: os.NewFile(uintptr(fd), "output being read")}
	if err = unix.Ftruncate(fd, slotsMax*slotBytes); err == nil {
		s.mem, err = unix.Mmap(fd, 0, slotsMax*slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		s.file.Close()
		return nil
	}
	return s
}

func (s *slots) close() {
	if s != nil {
		_ = unix.Munmap(s.mem)
		s.file.Close()
	}
}

// take gives out a slot; false when all are in use.
func (s *slots) take() (n int, ok bool) {
	if s == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
		return n, true
	}
	if s.used == slotsMax {
		return 0, false
	}
	s.used++
	return s.used - 1, true
}

func (s *slots) give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, n)
}

func slotIn(mem []byte, n int) slot { return slot(mem[n*slotBytes : (n+1)*slotBytes]) }

// state is atomic so that the rest of the header is there before it.
func (b slot) state() *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) } //nolint:gosec // it is aligned: the header is, and slots are

func (b slot) data() []byte { return b[slotHeader:] }

// begin says that the next n bytes of a stream are about to be read.
func (b slot) begin(n int, id uint64, s output.Stream, size int64) {
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	binary.LittleEndian.PutUint64(b[8:], id)
	binary.LittleEndian.PutUint64(b[16:], streamNumber(s))
	binary.LittleEndian.PutUint64(b[24:], uint64(size))
	copy(b.data()[max(0, n-nonceBytes):n], b[32:32+nonceBytes])
	atomic.StoreUint32(b.state(), slotReading)
}

func streamNumber(s output.Stream) uint64 {
	if s == output.Stderr {
		return 1
	}
	return 0
}

// readSafely reads a program's stream to its end by way of a slot, if there is one.
func (p *program) readSafely(from *os.File, to *output.Output, s output.Stream) bool {
	if p.h.kept == nil {
		return false
	}
	n, ok := p.h.kept.slots.take()
	if !ok {
		return false
	}
	b := slotIn(p.h.kept.slots.mem, n)
	defer p.h.kept.slots.give(n)
	rand.Read(b[32 : 32+nonceBytes])
	raw, err := from.SyscallConn()
	if err != nil {
		return false
	}
	for {
		got, err := 0, error(nil)
		werr := raw.Read(func(fd uintptr) bool {
			got, err = b.read(int(fd), p.kept.id, s, to)
			return !errors.Is(err, unix.EAGAIN)
		})
		if got > 0 {
			to.Write(s, b.data()[:got])
			atomic.StoreUint32(b.state(), slotIdle)
		}
		if err != nil || werr != nil { // the end, or a deadline
			return true
		}
	}
}

// read reads what there is, and no more than was said by begin.
func (b slot) read(fd int, id uint64, s output.Stream, to *output.Output) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, err
	}
	n = min(max(n, 1), readBytesMax) // one, to learn whether it is at its end
	b.begin(n, id, s, to.Size(s))
	for {
		got, err := unix.Read(fd, b.data()[:n])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case got > 0:
			atomic.StoreUint32(b.state(), slotRead)
			return got, nil
		case err == nil:
			err = io.EOF
		}
		atomic.StoreUint32(b.state(), slotIdle)
		return 0, err
	}
}

// rescue writes down what an earlier life had read of a program and had no time
// to write.
func rescue(mem []byte, id uint64, to *output.Output) {
	for i := range len(mem) / slotBytes {
		b := slotIn(mem, i)
		state, n := atomic.LoadUint32(b.state()), int(binary.LittleEndian.Uint32(b[4:]))
		if state == slotIdle || binary.LittleEndian.Uint64(b[8:]) != id || n > readBytesMax {
			continue
		}
		last := b.data()[max(0, n-nonceBytes):n]
		if state == slotReading && bytes.Equal(last, b[32:32+len(last)]) {
			continue // it was not read
		}
		s := output.Streams()[binary.LittleEndian.Uint64(b[16:])&1]
		written := to.Size(s) - int64(binary.LittleEndian.Uint64(b[24:]))
		if written >= 0 && written < int64(n) {
			to.Write(s, b.data()[written:n])
		}
	}
}

// rescue is the same from all that the keeper has of earlier lives.
func (k *kept) rescue(id uint64, to *output.Output) {
	for _, mem := range k.old {
		rescue(mem, id, to)
	}
}

// mapOld maps what the keeper has of earlier lives.
func mapOld(files []*os.File) (old [][]byte) {
	for _, f := range files {
		if info, err := f.Stat(); err == nil && info.Size() == slotsMax*slotBytes {
			if mem, err := unix.Mmap(int(f.Fd()), 0, slotsMax*slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				old = append(old, mem)
			}
		}
		f.Close()
	}
	return old
}

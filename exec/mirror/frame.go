package mirror

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labmesh"
	"labmesh/exec/output"
)

// Limits of what is sent.
const (
	dataBytesMax  = 64 << 10 // of output in one frame
	taskBytesMax  = 1 << 10  // of a task's id
	frameBytesMax = dataBytesMax + 64
	offsetMax     = 1 << 62
	attemptMax    = 1 << 31
)

// kind says what a frame is.
type kind byte

// The kinds of frame. An attempt is opened under a number that stands for it on
// this stream from then on. The keeper answers each opening once.
const (
	opening kind = 'o' // number, attempt, task: output of this attempt comes
	data    kind = 'd' // number, stream, offset, bytes
	ending  kind = 'e' // number, sizes: the attempt has ended, its streams were this long
	have    kind = 'h' // number, sizes: the keeper has this much
	refused kind = 'n' // number: the keeper takes no more of it
)

// frame is what one side tells the other.
type frame struct {
	kind    kind
	number  uint64
	task    labmesh.TaskID // of an opening
	attempt int
	stream  output.Stream // of data
	offset  int64
	bytes   []byte
	sizes   [2]int64 // of stdout and stderr
}

var errFrame = errors.New("read a frame: it makes no sense")

// append adds the frame, with its length before it, to b.
func (f *frame) append(b []byte) []byte {
	body := make([]byte, 0, 64)
	body = append(body, byte(f.kind))
	body = binary.AppendUvarint(body, f.number)
	var rest []byte
	switch f.kind {
	case opening:
		body = binary.AppendUvarint(body, uint64(f.attempt))
		rest = []byte(f.task)
	case data:
		s := byte(0)
		if f.stream == output.Stderr {
			s = 1
		}
		body = append(body, s)
		body = binary.AppendUvarint(body, uint64(f.offset))
		rest = f.bytes
	case ending, have:
		body = binary.AppendUvarint(body, uint64(f.sizes[0]))
		body = binary.AppendUvarint(body, uint64(f.sizes[1]))
	}
	b = binary.AppendUvarint(b, uint64(len(body)+len(rest)))
	return append(append(b, body...), rest...)
}

// readFrame reads the next frame. Its bytes are in buf, which must hold frameBytesMax.
func readFrame(r *bufio.Reader, buf []byte) (frame, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return frame{}, err
	}
	if n > frameBytesMax {
		return frame{}, fmt.Errorf("%w: it has %d bytes", errFrame, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return frame{}, err
	}
	return parseFrame(buf[:n])
}

// parseFrame reads a frame's body.
func parseFrame(b []byte) (f frame, err error) {
	if len(b) == 0 {
		return f, errFrame
	}
	f.kind, b = kind(b[0]), b[1:]
	number := func(most uint64) uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > most {
			err = errFrame
			return 0
		}
		b = b[n:]
		return v
	}
	f.number = number(1 << 63)
	switch f.kind {
	case opening:
		f.attempt = int(number(attemptMax))
		f.task, b = labmesh.TaskID(b), nil
		if f.task == "" || len(f.task) > taskBytesMax || f.attempt < 1 {
			err = errFrame
		}
	case data:
		if len(b) == 0 || b[0] > 1 {
			return f, errFrame
		}
		f.stream, b = output.Streams()[b[0]], b[1:]
		f.offset = int64(number(offsetMax))
		f.bytes, b = b, nil
		if len(f.bytes) > dataBytesMax {
			err = errFrame
		}
	case ending, have:
		f.sizes = [2]int64{int64(number(offsetMax)), int64(number(offsetMax))}
	case refused:
	default:
		err = errFrame
	}
	if len(b) > 0 {
		err = errFrame
	}
	return f, err
}

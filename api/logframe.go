package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"labmesh"
)

// LogFramesType is the content type of output in frames; see [LogFrame].
const LogFramesType = "application/x-labmesh-log"

// LogFrameBytesMax bounds the data of one frame.
const LogFrameBytesMax = 64 << 10

// LogPosition is a place in one stream of a task's output: an attempt, and how
// many bytes of what it printed come before.
type LogPosition struct {
	Attempt int
	Offset  int64
}

// String is the position as the API's parameter after has it.
func (p LogPosition) String() string {
	return strconv.Itoa(p.Attempt) + "-" + strconv.FormatInt(p.Offset, 10)
}

// ParseLogPosition reads a position as String writes it.
func ParseLogPosition(s string) (p LogPosition, err error) {
	attempt, offset, ok := bytes.Cut([]byte(s), []byte("-"))
	if ok {
		if p.Attempt, err = strconv.Atoi(string(attempt)); err == nil {
			p.Offset, err = strconv.ParseInt(string(offset), 10, 64)
		}
	}
	if !ok || err != nil || p.Attempt < 1 || p.Attempt > logNumberMax || p.Offset < 0 || p.Offset > logOffsetMax {
		return LogPosition{}, labmesh.RefuseField("after", "after: %.40q is not <attempt>-<bytes>", s)
	}
	return p, nil
}

// LogKind says what a frame is.
type LogKind string

// The kinds of frame.
const (
	LogData  LogKind = "data"  // bytes that were printed, from At on
	LogGap   LogKind = "gap"   // Missing bytes from At on were printed and are not to be had
	LogBegin LogKind = "begin" // the output of another attempt begins
	LogNote  LogKind = "note"  // something to tell a person, in Data
	LogStill LogKind = "still" // nothing new, and the connection is alive
	LogEnd   LogKind = "end"   // that was all
)

// LogFrame is a piece of one stream of a task's output, or word of what is not
// there. On the wire it is a line, `<kind> <attempt> <offset> <n>`, and then for
// data and notes n bytes. [LogFrame.After] is where to go on after it.
type LogFrame struct {
	Kind    LogKind
	At      LogPosition
	Data    []byte
	Missing int64
}

// After is the position after the frame.
func (f LogFrame) After() LogPosition {
	p := f.At
	switch f.Kind {
	case LogData:
		p.Offset += int64(len(f.Data))
	case LogGap:
		p.Offset += f.Missing
	}
	return p
}

// Text is the frame as it stands in output that is read as plain text.
func (f LogFrame) Text() []byte {
	switch f.Kind {
	case LogData:
		return f.Data
	case LogGap:
		return []byte(labmesh.LeftOut(f.Missing))
	case LogBegin:
		return fmt.Appendf(nil, "\n[labmesh: attempt %d begins here]\n", f.At.Attempt)
	case LogNote:
		return fmt.Appendf(nil, "\n[labmesh: %s]\n", f.Data)
	}
	return nil
}

// Limits of the wire.
const (
	logLineMax   = 64
	logNumberMax = 1 << 31
	logOffsetMax = 1 << 62
)

// AppendTo adds the frame to b as the wire has it.
func (f LogFrame) AppendTo(b []byte) []byte {
	n := int64(len(f.Data))
	if f.Kind == LogGap {
		n = f.Missing
	}
	b = append(append(b, f.Kind...), ' ')
	b = append(strconv.AppendInt(b, int64(f.At.Attempt), 10), ' ')
	b = append(strconv.AppendInt(b, f.At.Offset, 10), ' ')
	b = append(strconv.AppendInt(b, n, 10), '\n')
	return append(b, f.Data...)
}

var errLogFrame = errors.New("read output: a frame makes no sense")

// LogFrames reads frames from r, each with its data in the same buffer as the
// one before.
type LogFrames struct {
	r   *bufio.Reader
	buf []byte
}

// NewLogFrames reads frames from r.
func NewLogFrames(r io.Reader) *LogFrames {
	return &LogFrames{r: bufio.NewReaderSize(r, 32<<10)}
}

// Next is the next frame. Its data are good until the call after.
func (l *LogFrames) Next() (LogFrame, error) {
	line, err := l.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return LogFrame{}, err
	}
	f, n, err := parseLogLine(line)
	if err != nil || n == 0 {
		return f, err
	}
	if l.buf == nil {
		l.buf = make([]byte, LogFrameBytesMax)
	}
	f.Data = l.buf[:n]
	if _, err := io.ReadFull(l.r, f.Data); err != nil {
		return LogFrame{}, fmt.Errorf("read output: %w", err)
	}
	return f, nil
}

// parseLogLine reads a frame's line, and how many bytes of data follow it.
func parseLogLine(line []byte) (f LogFrame, n int, err error) {
	words := bytes.Fields(line[:min(len(line), logLineMax)])
	if len(line) > logLineMax || len(words) != 4 {
		return f, 0, errLogFrame
	}
	f.Kind = LogKind(words[0])
	var numbers [3]int64
	for i, most := range []int64{logNumberMax, logOffsetMax, logOffsetMax} {
		if numbers[i], err = strconv.ParseInt(string(words[i+1]), 10, 64); err != nil || numbers[i] < 0 || numbers[i] > most {
			return f, 0, errLogFrame
		}
	}
	f.At = LogPosition{int(numbers[0]), numbers[1]}
	switch f.Kind {
	case LogData, LogNote:
		if numbers[2] > LogFrameBytesMax {
			return f, 0, errLogFrame
		}
		return f, int(numbers[2]), nil
	case LogGap:
		f.Missing = numbers[2]
		return f, 0, nil
	case LogBegin, LogStill, LogEnd:
		if numbers[2] == 0 {
			return f, 0, nil
		}
	}
	return f, 0, errLogFrame
}

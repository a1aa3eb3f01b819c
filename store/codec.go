package store

import (
	"bufio"
	"database/sql/driver"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// Rows travel between ledgers as a stream:
//
//	"labmesh-rows-3\n", after, next   which rows these are
//	table, values …                    for every row; table counts from 1
//	0, number of rows, CRC-32C         the end, and proof of it
//
// Numbers are varints. A value is a tag and, unless it is NULL, its bytes.
const (
	rowsMagic     = "labmesh-rows-3\n"
	ValueBytesMax = 16 << 20 // of one value in the stream; an entry of the log is no larger
)

// The tags of values.
const (
	tagNull byte = iota
	tagText
	tagJSON
	tagInt
	tagFloat
	tagTime
	tagFalse
	tagTrue
)

// ErrRows says that a stream is not what an Encoder wrote, or not all of it.
var ErrRows = errors.New("the stream of rows is damaged")

// Encoder writes rows for a [Decoder].
type Encoder struct {
	w    *bufio.Writer
	sum  hash.Hash32
	buf  []byte
	rows uint64
}

// NewEncoder begins a stream of the rows with a log index in (after, next].
func NewEncoder(w io.Writer, after, next uint64) (*Encoder, error) {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	e := &Encoder{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10), sum: sum}
	e.buf = append(e.buf, rowsMagic...)
	e.buf = binary.AppendUvarint(e.buf, after)
	e.buf = binary.AppendUvarint(e.buf, next)
	return e, e.flush()
}

func (e *Encoder) flush() error {
	_, err := e.w.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

// Row writes one row of the table at place i of [Tables].
func (e *Encoder) Row(i int, row Row) error {
	e.buf = binary.AppendUvarint(e.buf, uint64(i)+1)
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			e.buf = append(e.buf, tagNull)
		case string:
			e.bytes(tagText, v)
		case json.RawMessage:
			e.bytes(tagJSON, string(v))
		case int64:
			e.buf = binary.AppendVarint(append(e.buf, tagInt), v)
		case float64:
			e.buf = binary.LittleEndian.AppendUint64(append(e.buf, tagFloat), math.Float64bits(v))
		case time.Time:
			e.buf = binary.AppendVarint(append(e.buf, tagTime), v.UnixMicro())
		case bool:
			tag := tagFalse
			if v {
				tag = tagTrue
			}
			e.buf = append(e.buf, tag)
		default:
			return fmt.Errorf("write a row: no encoding for %T", v)
		}
	}
	e.rows++
	return e.flush()
}

func (e *Encoder) bytes(tag byte, s string) {
	e.buf = append(e.buf, tag)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(s)))
	e.buf = append(e.buf, s...)
}

// Close ends the stream. It does not close the writer.
func (e *Encoder) Close() error {
	e.buf = binary.AppendUvarint(append(e.buf, 0), e.rows)
	if err := e.flush(); err != nil {
		return err
	}
	if err := e.w.Flush(); err != nil { // so that the sum holds all there is
		return err
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf, e.sum.Sum32())
	if err := e.flush(); err != nil {
		return err
	}
	return e.w.Flush()
}

// Decoder reads what an [Encoder] wrote. It trusts nothing in the stream.
type Decoder struct {
	After, Next uint64 // which rows the stream says it holds

	r    *summed
	rows uint64
}

// summed counts what is read into a checksum.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash32
	one [1]byte
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum.Write(s.one[:])
	}
	return b, err
}

// NewDecoder reads the beginning of a stream.
func NewDecoder(r io.Reader) (*Decoder, error) {
	d := &Decoder{r: &summed{
		r: bufio.NewReaderSize(r, 64<<10), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli)),
	}}
	magic := make([]byte, len(rowsMagic))
	if _, err := io.ReadFull(d.r, magic); err != nil {
		return nil, damaged("beginning", err)
	}
	if string(magic) != rowsMagic {
		return nil, fmt.Errorf("%w: it does not begin with %q: another version of labmesh wrote it", ErrRows, rowsMagic)
	}
	var err error
	if d.After, err = binary.ReadUvarint(d.r); err == nil {
		d.Next, err = binary.ReadUvarint(d.r)
	}
	if err != nil {
		return nil, damaged("beginning", err)
	}
	if d.Next <= d.After || d.Next > math.MaxInt64 {
		return nil, fmt.Errorf("%w: it says it holds the rows after %d up to %d", ErrRows, d.After, d.Next)
	}
	return d, nil
}

func damaged(where string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %s: %w", ErrRows, where, err)
}

// Row reads the next row and its table's place in [Tables]. After the last one
// it returns io.EOF, once the end proves that nothing is missing.
func (d *Decoder) Row() (int, Row, error) {
	n, err := binary.ReadUvarint(d.r)
	if err != nil {
		return 0, nil, damaged(fmt.Sprintf("after %d rows", d.rows), err)
	}
	if n == 0 {
		return 0, nil, d.end()
	}
	tables := Tables()
	if n > uint64(len(tables)) {
		return 0, nil, fmt.Errorf("%w: no table %d", ErrRows, n)
	}
	table := tables[n-1]
	row := make(Row, len(table.Columns))
	for i, c := range table.Columns {
		if row[i], err = d.value(c.Type); err != nil {
			return 0, nil, damaged(table.Name+"."+c.Name, err)
		}
	}
	index, _ := row[table.Index(LogIndex)].(int64)
	if index <= int64(d.After) || index > int64(d.Next) {
		return 0, nil, fmt.Errorf("%w: a row of %s has log index %d, which is not in (%d, %d]", ErrRows, table.Name, index, d.After, d.Next)
	}
	d.rows++
	return int(n - 1), row, nil
}

func (d *Decoder) end() error {
	rows, err := binary.ReadUvarint(d.r)
	if err != nil {
		return damaged("end", err)
	}
	want := d.r.sum.Sum32()
	var sum [4]byte
	if _, err := io.ReadFull(d.r, sum[:]); err != nil {
		return damaged("end", err)
	}
	if got := binary.LittleEndian.Uint32(sum[:]); rows != d.rows || got != want {
		return fmt.Errorf("%w: its end does not fit what was read", ErrRows)
	}
	return io.EOF
}

// value reads a value for a column of type t.
func (d *Decoder) value(t Type) (driver.Value, error) {
	tag, err := d.r.ReadByte()
	if err != nil || tag == tagNull {
		return nil, err
	}
	if t == Boolean && (tag == tagFalse || tag == tagTrue) {
		return tag == tagTrue, nil
	}
	if tag != t.tag() {
		return nil, fmt.Errorf("value of kind %d in a column of %s", tag, t.SQL())
	}
	switch tag {
	case tagText, tagJSON:
		s, err := d.bytes()
		if err != nil || tag == tagText {
			return s, err
		}
		if raw := json.RawMessage(s); json.Valid(raw) {
			return raw, nil
		}
		return nil, errors.New("not JSON")
	case tagInt:
		n, err := binary.ReadVarint(d.r)
		if err == nil && t == Integer && n != int64(int32(n)) {
			err = fmt.Errorf("%d is too large", n)
		}
		return n, err
	case tagFloat:
		var b [8]byte
		_, err := io.ReadFull(d.r, b[:])
		return math.Float64frombits(binary.LittleEndian.Uint64(b[:])), err
	default:
		us, err := binary.ReadVarint(d.r)
		if err == nil && (us < -timeMax || us > timeMax) {
			err = fmt.Errorf("no time: %d", us)
		}
		return time.UnixMicro(us).UTC(), err
	}
}

// timeMax is the end of the year 9999 or so, in microseconds since 1970.
const timeMax = 8000 * 366 * 24 * 3600 * 1_000_000

// bytes reads a length and as many bytes, without believing the length first.
func (d *Decoder) bytes() (string, error) {
	n, err := binary.ReadUvarint(d.r)
	if err != nil {
		return "", err
	}
	if n > ValueBytesMax {
		return "", fmt.Errorf("%d bytes are over the limit of %d", n, ValueBytesMax)
	}
	const chunk = 64 << 10
	buf := make([]byte, 0, min(n, chunk))
	for uint64(len(buf)) < n {
		at := len(buf)
		buf = append(buf, make([]byte, min(n-uint64(at), chunk))...)
		if _, err := io.ReadFull(d.r, buf[at:]); err != nil {
			return "", err
		}
	}
	return string(buf), nil
}

func (t Type) tag() byte {
	switch t {
	case Text:
		return tagText
	case JSON:
		return tagJSON
	case Integer, BigInt:
		return tagInt
	case Float, Double:
		return tagFloat
	case Boolean:
		return tagFalse
	}
	return tagTime
}

package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"
)

// reader takes the values of a row one after the other. The first value that is
// not what was asked for leaves an error; what is NULL reads as zero.
type reader struct {
	row Row
	at  int
	err error
}

func (r *reader) next() driver.Value {
	if r.at >= len(r.row) {
		r.fail("a value", nil)
		return nil
	}
	r.at++
	return r.row[r.at-1]
}

// peek is the value that next will return.
func (r *reader) peek() driver.Value {
	if r.at >= len(r.row) {
		return nil
	}
	return r.row[r.at]
}

func (r *reader) fail(want string, got driver.Value) {
	if r.err == nil {
		r.err = fmt.Errorf("column %d holds %T, not %s", r.at, got, want)
	}
}

func (r *reader) text() string {
	switch v := r.next().(type) {
	case nil:
	case string:
		return v
	default:
		r.fail("text", v)
	}
	return ""
}

func (r *reader) integer() int64 {
	switch v := r.next().(type) {
	case nil:
	case int64:
		return v
	case int32:
		return int64(v)
	default:
		r.fail("a whole number", v)
	}
	return 0
}

func (r *reader) float() float64 {
	switch v := r.next().(type) {
	case nil:
	case float64:
		return v
	case float32:
		return float64(v)
	default:
		r.fail("a number", v)
	}
	return 0
}

// knownFloat is a number, or nil for NULL.
func (r *reader) knownFloat() *float64 {
	if r.peek() == nil {
		r.next()
		return nil
	}
	return new(r.float())
}

// knownInteger is a whole number, or nil for NULL.
func (r *reader) knownInteger() *int64 {
	if r.peek() == nil {
		r.next()
		return nil
	}
	return new(r.integer())
}

// knownTruth is true or false, or nil for NULL.
func (r *reader) knownTruth() *bool {
	if r.peek() == nil {
		r.next()
		return nil
	}
	return new(r.truth())
}

func (r *reader) truth() bool {
	switch v := r.next().(type) {
	case nil:
	case bool:
		return v
	default:
		r.fail("true or false", v)
	}
	return false
}

func (r *reader) time() time.Time {
	switch v := r.next().(type) {
	case nil:
	case time.Time:
		return v.UTC()
	default:
		r.fail("a time", v)
	}
	return time.Time{}
}

func (r *reader) raw() json.RawMessage {
	switch v := r.next().(type) {
	case nil:
	case json.RawMessage:
		return v
	case string:
		return json.RawMessage(v)
	default:
		r.fail("JSON", v)
	}
	return nil
}

func (r *reader) json(to any) {
	data := r.raw()
	if data == nil || r.err != nil {
		return
	}
	if err := json.Unmarshal(data, to); err != nil {
		r.err = fmt.Errorf("column %d: %w", r.at, err)
	}
}

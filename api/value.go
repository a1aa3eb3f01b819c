package api

import (
	"fmt"
	"time"
)

// TimeLayout is how the API writes a moment: RFC 3339, UTC, microseconds.
const TimeLayout = "2006-01-02T15:04:05.000000Z"

// Time is a moment on the wire. Its zero value is null: it has not happened, or
// nobody knows when it did.
type Time struct{ time.Time }

// MarshalJSON writes t in [TimeLayout], and the zero Time as null.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	b := make([]byte, 0, len(TimeLayout)+2)
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, TimeLayout)
	return append(b, '"'), nil
}

// UnmarshalJSON reads any RFC 3339 time, and null as the zero Time.
func (t *Time) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = Time{}
		return nil
	}
	at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(data))
	if err != nil {
		return fmt.Errorf("read time: %w", err)
	}
	*t = Time{at.UTC()}
	return nil
}

// Text is a string that is null on the wire when it is empty.
type Text string

// MarshalJSON writes t as a string, and the empty Text as null.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return marshalString(string(t))
}

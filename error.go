package labmesh

import (
	"errors"
	"fmt"
)

// Reason says what kind of refusal an error is, for whoever must act on it.
// Both ends of every wire share it.
type Reason string

// The reasons.
const (
	Invalid     Reason = "invalid"     // the request makes no sense; do not repeat it
	NotFound    Reason = "not_found"   // there is no such thing
	Conflict    Reason = "conflict"    // the mesh has moved on and does not want to hear it again
	Denied      Reason = "denied"      // the caller may not
	TooLarge    Reason = "too_large"   // over a limit on size
	Exhausted   Reason = "exhausted"   // over a limit on number or rate; later it may work
	Unavailable Reason = "unavailable" // no leader, or not now; safe to repeat
	Internal    Reason = "internal"    // our fault
)

// Error is a refusal with a reason. Everything else is an internal fault.
type Error struct {
	Reason  Reason `json:"reason"`
	Field   string `json:"field,omitempty"` // the field at fault, if one is
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Refuse makes a refusal.
func Refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// RefuseField makes a refusal of a request that names the field at fault.
func RefuseField(field, format string, args ...any) *Error {
	return &Error{Reason: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// ReasonOf is the reason in err's chain, Internal where there is none, and ""
// for a nil error.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Internal
}

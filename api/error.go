package api

import "labmesh"

// Error is the body of every reply that is not 2xx.
type Error struct {
	Message   string         `json:"error"`
	Reason    labmesh.Reason `json:"reason"`
	Field     string         `json:"field,omitempty"`      // the field at fault, if one is
	Hint      string         `json:"hint,omitempty"`       // for who has proven to be somebody: why that does not do
	RequestID string         `json:"request_id,omitempty"` // of an internal fault, to find it in the node's log
}

func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Message + ": " + e.Hint
	}
	return e.Message
}

// Refusal is e as the rest of labmesh knows it.
func (e *Error) Refusal() *labmesh.Error {
	return &labmesh.Error{Reason: e.Reason, Field: e.Field, Message: e.Error()}
}

// Health is the reply to GET /healthz and GET /readyz.
type Health struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why the node is not ready
}

package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"labmesh"
	"labmesh/api"
)

// readBody reads the body of r, of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		drain(r.Body)
		return nil, tooLarge(limit)
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, 1<<20)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		drain(r.Body)
		return nil, tooLarge(limit)
	case err != nil:
		return nil, labmesh.Refuse(labmesh.Invalid, "The body broke off after %d bytes", b.Len())
	case !utf8.Valid(b.Bytes()):
		return nil, labmesh.Refuse(labmesh.Invalid, "The body is not UTF-8")
	}
	return b.Bytes(), nil
}

// drainMax bounds how much of a body that is too large is read all the same.
const drainMax = 16 << 20

// drain reads on, within bounds, so that the caller, who is still sending, comes
// to read the answer: a connection closed on unread bytes is reset.
func drain(body io.Reader) {
	_, _ = io.CopyN(io.Discard, body, drainMax) // however it ends, the answer is the same
}

func tooLarge(limit int64) error {
	return labmesh.Refuse(labmesh.TooLarge, "The body is larger than %d bytes", limit)
}

// decodeStrict reads body, one JSON value and nothing else, into v. Fields that v
// does not have are refused.
func decodeStrict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return malformed(body, err)
	}
	return nothingAfter(body, d.InputOffset())
}

// decodeLoose reads body into v and leaves fields alone that v does not have.
func decodeLoose(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return malformed(body, err)
	}
	return nil
}

// decodeSubmit reads the body of POST /api/tasks.
func decodeSubmit(body []byte) (labmesh.Spec, error) {
	s := labmesh.Spec{Priority: api.PriorityDefault}
	if err := decodeStrict(body, &s); err != nil {
		return labmesh.Spec{}, err
	}
	return s, api.ValidateSpec(&s)
}

// decodeBatch reads the body of POST /api/tasks/batch, of at most limit tasks.
// It decodes one task at a time, so that an error knows its index and a body of
// many tiny tasks does not fill the memory.
func decodeBatch(body []byte, limit int) ([]labmesh.Spec, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := expect(d, body, '{', "the body should be an object"); err != nil {
		return nil, err
	}
	var specs []labmesh.Spec
	seen := false
	for d.More() {
		key, err := d.Token()
		switch {
		case err != nil:
			return nil, malformed(body, err)
		case key != "tasks":
			return nil, unknownField(fmt.Sprint(key))
		case seen:
			return nil, labmesh.RefuseField("tasks", "tasks: it is there twice")
		}
		seen = true
		if specs, err = decodeTasks(d, body, limit); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed(body, err)
	}
	if !seen {
		return nil, labmesh.RefuseField("tasks", "Missing required field: tasks")
	}
	if len(specs) == 0 {
		return nil, labmesh.RefuseField("tasks", "tasks: there are none")
	}
	return specs, nothingAfter(body, d.InputOffset())
}

func decodeTasks(d *json.Decoder, body []byte, limit int) ([]labmesh.Spec, error) {
	if err := expect(d, body, '[', "tasks: it should be a list"); err != nil {
		return nil, err
	}
	const likelyBytes = 128 // a short task; the list grows where tasks are shorter
	specs := make([]labmesh.Spec, 0, min(limit, len(body)/likelyBytes+1))
	for i := 0; d.More(); i++ {
		if i == limit {
			return nil, labmesh.Refuse(labmesh.TooLarge, "tasks: there are more than %d", limit)
		}
		s := labmesh.Spec{Priority: api.PriorityDefault}
		if err := d.Decode(&s); err != nil {
			return nil, inTask(i, malformed(body, err))
		}
		if err := api.ValidateSpec(&s); err != nil {
			return nil, inTask(i, err)
		}
		specs = append(specs, s)
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed(body, err)
	}
	return specs, nil
}

// expect reads the delimiter that should come next.
func expect(d *json.Decoder, body []byte, want json.Delim, otherwise string) error {
	t, err := d.Token()
	if err != nil {
		return malformed(body, err)
	}
	if t != want {
		return labmesh.Refuse(labmesh.Invalid, "%s", otherwise)
	}
	return nil
}

// inTask says in which task of a batch something is wrong.
func inTask(i int, err error) error {
	var e *labmesh.Error
	if !errors.As(err, &e) {
		return err
	}
	at := fmt.Sprintf("tasks[%d]", i)
	in := labmesh.Error{Reason: e.Reason, Field: at, Message: at + ": " + e.Message}
	if e.Field != "" {
		in.Field = at + "." + e.Field
		if strings.HasPrefix(e.Message, e.Field+": ") {
			in.Message = at + "." + e.Message
		}
	}
	return &in
}

// malformed turns an error of the JSON decoder into one for the caller.
func malformed(body []byte, err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return labmesh.Refuse(labmesh.Invalid, "a JSON object is needed here, not %s", wrong.Value)
		}
		return api.WrongType(wrong.Field, wrong)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return unknownField(strings.Trim(field, `"`))
	}
	// The offset that a stream decoder gives is not always that of the body.
	var whole json.RawMessage
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(body, &whole), &syntax) {
		return labmesh.Refuse(labmesh.Invalid, "Malformed JSON at byte %d: %s", syntax.Offset, syntax)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return labmesh.Refuse(labmesh.Invalid, "Malformed JSON at byte %d: unexpected end of JSON input", len(body))
	}
	return labmesh.Refuse(labmesh.Invalid, "Malformed JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func unknownField(name string) error {
	return labmesh.RefuseField(name, "Unknown field: %.100s", name)
}

// nothingAfter refuses what follows the value that ended at offset.
func nothingAfter(body []byte, offset int64) error {
	rest := bytes.TrimLeft(body[offset:], " \t\r\n")
	if len(rest) == 0 {
		return nil
	}
	return labmesh.Refuse(labmesh.Invalid, "Malformed JSON at byte %d: something follows the value", len(body)-len(rest)+1)
}

package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// Limits on what is made canonical.
const (
	canonicalBytesMax = 4 << 20
	canonicalDepthMax = 100
)

// field is one member of a JSON object.
type field struct {
	name  string
	value any
}

// object is a JSON object whose fields keep their order, and a number its text.
type object []field

// Canonical is a JSON object in the form in which messages are signed, that of
// Python's json.dumps(sort_keys=True): fields sorted by name, separators ", " and
// ": ", only ASCII, numbers by their literal text. An object that names a field
// twice is refused: two readers could take it for two messages.
func Canonical(message []byte) ([]byte, error) {
	o, err := parseObject(message)
	if err != nil {
		return nil, err
	}
	return o.appendTo(make([]byte, 0, len(message)+len(message)/8)), nil
}

func parseObject(message []byte) (object, error) {
	if len(message) > canonicalBytesMax {
		return nil, fmt.Errorf("the message has %d bytes, more than %d", len(message), canonicalBytesMax)
	}
	dec := json.NewDecoder(bytes.NewReader(message))
	dec.UseNumber()
	v, err := parseValue(dec, canonicalDepthMax)
	if err != nil {
		return nil, fmt.Errorf("the message is no JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the message goes on after its end")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("the message is no JSON object")
	}
	return o, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	d, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == 0 {
		return nil, errors.New("it is nested too deep")
	}
	if d == '{' {
		return parseFields(dec, depth-1)
	}
	list := []any{}
	for dec.More() {
		v, err := parseValue(dec, depth-1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err = dec.Token()
	return list, err
}

func parseFields(dec *json.Decoder, depth int) (object, error) {
	o := object{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("a field has no name")
		}
		v, err := parseValue(dec, depth)
		if err != nil {
			return nil, err
		}
		o = append(o, field{name, v})
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	// Names compare as their code points do, as in Python: UTF-8 keeps that order.
	slices.SortFunc(o, func(a, b field) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(o); i++ {
		if o[i].name == o[i-1].name {
			return nil, fmt.Errorf("it has two fields %.40q", o[i].name)
		}
	}
	return o, nil
}

func (o object) find(name string) (any, bool) {
	i, ok := slices.BinarySearchFunc(o, name, func(f field, name string) int { return strings.Compare(f.name, name) })
	if !ok {
		return nil, false
	}
	return o[i].value, true
}

// with is o with a field set, or taken out when value is nil.
func (o object) with(name string, value any) object {
	out := slices.DeleteFunc(slices.Clone(o), func(f field) bool { return f.name == name })
	if value == nil {
		return out
	}
	i, _ := slices.BinarySearchFunc(out, name, func(f field, name string) int { return strings.Compare(f.name, name) })
	return slices.Insert(out, i, field{name, value})
}

func (o object) appendTo(b []byte) []byte {
	b = append(b, '{')
	for i, f := range o {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendString(b, f.name)
		b = append(b, ": "...)
		b = appendValue(b, f.value)
	}
	return append(b, '}')
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case object:
		return v.appendTo(b)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case string:
		return appendString(b, v)
	case json.Number:
		return append(b, v...)
	case bool:
		if v {
			return append(b, "true"...)
		}
		return append(b, "false"...)
	}
	return append(b, "null"...) // all else that a decoder gives
}

// appendString writes s as Python does: all but printable ASCII is escaped, with
// lower-case digits, and what is beyond 16 bits as two surrogates.
func appendString(b []byte, s string) []byte {
	const short = "\b\t\n\f\r\"\\"
	const letters = "btnfr\"\\"
	b = append(b, '"')
	for _, r := range s {
		switch i := strings.IndexRune(short, r); {
		case i >= 0:
			b = append(b, '\\', letters[i])
		case r >= ' ' && r <= '~':
			b = append(b, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(b, '"')
}

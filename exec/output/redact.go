package output

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Limits on hiding values.
const (
	RedactBytesMin = 4                      // a shorter value is in everything, and is not hidden
	lineBytesMin   = 8                      // the same for one line of several, and for a part of its Base64
	showAfter      = 100 * time.Millisecond // how long what may be the beginning of a value is held back
)

// Redactor hides values, by their names, in what is shown of an attempt: each is
// replaced by "[secret NAME]". Beside a value as it is, it knows it as text in
// JSON, URLs and Base64 (also within more that was encoded, but not broken into
// lines), and each line of a value of several lines. A nil Redactor hides nothing.
type Redactor struct {
	forms [256][]form       // by their first byte; the longest first
	pairs [1 << 16 / 8]byte // the bits of the first two bytes of all forms: most output is passed by these
}

// form is one way in which a value may be printed.
type form struct {
	text, marker string
}

// NewRedactor hides values, given by their names. It is nil where there is
// nothing to hide.
func NewRedactor(values map[string]string) *Redactor {
	r, known := &Redactor{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, text := range formsOf(values[name]) {
			if !known[text] {
				known[text] = true
				pair := int(text[0])<<8 | int(text[1])
				r.pairs[pair>>3] |= 1 << (pair & 7)
				r.forms[text[0]] = append(r.forms[text[0]], form{text, "[secret " + name + "]"})
			}
		}
	}
	if len(known) == 0 {
		return nil
	}
	for _, forms := range r.forms {
		slices.SortStableFunc(forms, func(a, b form) int { return cmp.Compare(len(b.text), len(a.text)) })
	}
	return r
}

// formsOf are the ways in which a value may be printed.
func formsOf(value string) (forms []string) {
	bare := strings.TrimRight(value, "\r\n") // as a shell's $(…) has it
	for _, v := range []string{value, bare} {
		if len(v) < RedactBytesMin {
			continue
		}
		forms = append(forms, v, url.QueryEscape(v), url.PathEscape(v), inJSON(v, true), inJSON(v, false))
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			forms = append(forms, e.EncodeToString([]byte(v)))
			for shift := range 3 { // wherever it stands in what was encoded
				text := e.EncodeToString(append(make([]byte, shift), v...))
				text = text[(shift*4+2)/3 : (len(v)+shift)*4/3] // the letters that say nothing of what is around it
				if len(text) >= lineBytesMin {
					forms = append(forms, text)
				}
			}
		}
	}
	if strings.Contains(bare, "\n") {
		for line := range strings.Lines(bare) {
			if line = strings.TrimSpace(line); len(line) >= lineBytesMin {
				forms = append(forms, line)
			}
		}
	}
	return forms
}

func inJSON(s string, html bool) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(html)
	_ = enc.Encode(s) // a string always can be
	return strings.Trim(b.String(), "\"\n")
}

// String is s without the values.
func (r *Redactor) String(s string) string {
	if r == nil {
		return s
	}
	v := veil{r: r}
	return string(v.pass([]byte(s), true))
}

// JSON is raw without the values in its texts.
func (r *Redactor) JSON(raw json.RawMessage) json.RawMessage {
	if r == nil || len(raw) == 0 {
		return raw
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		value = string(raw) // it is none
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r.value(value)); err != nil {
		return nil // what was decoded can be encoded
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (r *Redactor) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.String(v)
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[r.String(key)] = r.value(value)
		}
		return out
	}
	return v
}

// skip is where in b, from i on, the first place is at which a form may begin.
func (r *Redactor) skip(b []byte, i int) int {
	for ; i+1 < len(b); i++ {
		if pair := int(b[i])<<8 | int(b[i+1]); r.pairs[pair>>3]&(1<<(pair&7)) != 0 {
			return i
		}
	}
	if i < len(b) && len(r.forms[b[i]]) == 0 {
		i++
	}
	return i
}

// at is the longest form that b begins with. more says that b is all of the
// beginning of a longer one.
func (r *Redactor) at(b []byte) (found *form, more bool) {
	forms := r.forms[b[0]]
	for i := range forms {
		f := &forms[i]
		switch {
		case len(f.text) > len(b):
			more = more || f.text[:len(b)] == string(b)
		case string(b[:len(f.text)]) == f.text:
			return f, more
		}
	}
	return nil, more
}

// veil hides values in one stream, however it is cut into pieces.
type veil struct {
	r     *Redactor
	held  []byte // may be the beginning of a value
	shown int    // of held, because nothing more came for a while
}

// pass is what of the stream may be shown once p has come. What may be the
// beginning of a value is held back, unless p is the last.
func (v *veil) pass(p []byte, last bool) []byte {
	b, shown := p, v.shown
	if len(v.held) > 0 {
		b = append(v.held, p...)
	}
	v.held, v.shown = nil, 0
	var out []byte // b[:from] as it may be shown, once it is not b itself
	from := shown
	for i := 0; i < len(b); {
		if i = v.r.skip(b, i); i == len(b) {
			break
		}
		f, more := v.r.at(b[i:])
		switch {
		case more && !last:
			v.held, v.shown = bytes.Clone(b[i:]), max(0, shown-i)
			return append(out, b[from:max(from, i)]...)
		case f == nil:
			i++
		default:
			if i += len(f.text); i > shown { // else it was shown whole
				out = append(append(out, b[from:max(from, i-len(f.text))]...), f.marker...)
				from = i
			}
		}
	}
	if out == nil {
		return b[from:]
	}
	return append(out, b[from:]...)
}

// show is what was held back and may wait no longer. Only the rest of a value
// of which so much is shown can be hidden.
func (v *veil) show() []byte {
	held, shown := v.held, v.shown
	out := v.pass(nil, true)
	if len(out) == len(held)-shown && bytes.Equal(out, held[shown:]) {
		v.held, v.shown = held, len(held)
	}
	return out
}

// veils are those of the two streams of an output.
type veils struct {
	stdout, stderr veil
	timer          *time.Timer // to show what is held back
}

func (v *veils) of(s Stream) *veil {
	if s == Stderr {
		return &v.stderr
	}
	return &v.stdout
}

func (v *veils) waiting() bool {
	return len(v.stdout.held) > v.stdout.shown || len(v.stderr.held) > v.stderr.shown
}

// Redact has r hide values in all that is written from now on. It is called
// before anything is.
func (o *Output) Redact(r *Redactor) {
	if r == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.veils = &veils{stdout: veil{r: r}, stderr: veil{r: r}}
	o.veils.timer = time.AfterFunc(showAfter, o.showHeld)
}

// put writes p to s without what is to be hidden. The caller holds mu.
func (o *Output) put(s Stream, p []byte) {
	if o.veils == nil {
		o.of(s).write(p)
		return
	}
	if p = o.veils.of(s).pass(p, false); len(p) > 0 {
		o.of(s).write(p)
	}
	if o.veils.waiting() {
		o.veils.timer.Reset(showAfter)
	}
}

// showHeld writes what was held back for long enough.
func (o *Output) showHeld() {
	o.mu.Lock()
	waiting := !o.closed && o.veils.waiting()
	o.mu.Unlock()
	if !waiting {
		return
	}
	o.change(func() {
		for _, s := range Streams() {
			if p := o.veils.of(s).show(); len(p) > 0 {
				o.of(s).write(p)
			}
		}
	})
}

// unveil writes all that is held back of s. The caller holds mu.
func (o *Output) unveil(streams ...Stream) {
	if o.veils == nil {
		return
	}
	for _, s := range streams {
		if p := o.veils.of(s).pass(nil, true); len(p) > 0 {
			o.of(s).write(p)
		}
	}
}

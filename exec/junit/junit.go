// Package junit reads test reports in JUnit XML, as any tool may have written
// them: with test cases anywhere, in other encodings than they say, with
// characters that XML does not allow, cut off, or huge. It keeps one test case in
// memory at a time, and of each text no more than a bounded part.
package junit

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"labmesh"
)

// Limits on a report.
const (
	BytesMax  = 1 << 30 // of the file; what comes after is not read
	CasesMax  = 1_000_000
	depthMax  = 200
	textMax   = 64 << 10 // bytes of one text or one attribute; the rest of it is left out
	sampleMax = 1 << 10  // bytes looked at for the encoding
)

// Errors of Read, besides those of reading.
var (
	ErrNotJUnit = errors.New("it is no JUnit XML")
	ErrTooLarge = errors.New("it is too large")
)

// Case is one test case of a report.
type Case struct {
	Class   string // its classname
	Name    string
	File    string // of the test case, or of the suite around it; often ""
	Verdict labmesh.TestVerdict
	Seconds float64
	Message string // of a failure, an error or a skip, with its text
}

// Read hands the test cases of a report to f, in order. Of a report that is cut
// off or damaged it hands over what comes before the damage, and returns an error.
func Read(r io.Reader, f func(Case)) (err error) {
	limited := &io.LimitedReader{R: r, N: BytesMax}
	text, err := newCleaner(limited)
	if err != nil {
		return err
	}
	d := xml.NewDecoder(text)
	d.Strict, d.Entity = false, xml.HTMLEntity
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // the cleaner has seen to it
	p := parser{emit: f}
	for {
		t, err := d.Token()
		switch {
		case err == io.EOF && !p.junit:
			return fmt.Errorf("%w: %s", ErrNotJUnit, p.what())
		case err == io.EOF:
			return nil
		case limited.N <= 0 && err != nil:
			return fmt.Errorf("%w: it has more than %d MiB", ErrTooLarge, BytesMax>>20)
		case err != nil && !p.junit:
			return fmt.Errorf("%w: %s: %w", ErrNotJUnit, p.what(), err)
		case err != nil:
			return fmt.Errorf("it is cut off or damaged after %d test cases: %w", p.cases, err)
		}
		if err := p.take(t); err != nil {
			return err
		}
	}
}

// parser gathers test cases from the elements of a report.
type parser struct {
	emit  func(Case)
	junit bool   // something of JUnit was seen
	first string // the first element
	depth int
	cases int

	suites []string // the files of the suites around, "" for one without
	open   *Case
	at     int              // the depth of the open case
	into   *strings.Builder // takes text, if not nil
	intoAt int
	text   strings.Builder
}

func (p *parser) what() string {
	if p.first == "" {
		return "it has no elements"
	}
	return fmt.Sprintf("it begins with <%s>", p.first)
}

func (p *parser) take(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		if p.depth++; p.depth > depthMax {
			return fmt.Errorf("it is damaged after %d test cases: its elements are more than %d deep", p.cases, depthMax)
		}
		return p.start(t)
	case xml.EndElement:
		p.end(t)
		p.depth--
	case xml.CharData:
		if p.into != nil && p.into.Len() < textMax {
			p.into.Write(t[:min(len(t), textMax-p.into.Len())])
		}
	}
	return nil
}

func (p *parser) start(t xml.StartElement) error {
	name := t.Name.Local
	if p.first == "" {
		p.first = strings.ToValidUTF8(name[:min(len(name), 40)], "")
	}
	switch name {
	case "testsuites":
		p.junit = true
	case "testsuite":
		p.junit = true
		file := attr(t, "file")
		if file == "" && len(p.suites) > 0 {
			file = p.suites[len(p.suites)-1]
		}
		p.suites = append(p.suites, file)
	case "testcase":
		p.junit = true
		if p.cases++; p.cases > CasesMax {
			return fmt.Errorf("%w: it has more than %d test cases", ErrTooLarge, CasesMax)
		}
		p.begin(t)
	case "failure", "error", "skipped":
		p.judge(t)
	}
	return nil
}

func (p *parser) begin(t xml.StartElement) {
	c := &Case{Class: attr(t, "classname"), Name: attr(t, "name"), File: attr(t, "file"), Verdict: labmesh.TestPassed, Seconds: seconds(attr(t, "time"))}
	if c.File == "" && len(p.suites) > 0 {
		c.File = p.suites[len(p.suites)-1]
	}
	switch strings.ToLower(attr(t, "status") + attr(t, "result")) {
	case "notrun", "disabled", "skipped", "ignored", "notrunsuppressed", "notrunskipped", "runskipped", "suppressed":
		c.Verdict = labmesh.TestSkipped
	}
	p.open, p.at = c, p.depth
}

// judge takes an element that says how the open test case ended.
func (p *parser) judge(t xml.StartElement) {
	if p.open == nil || p.depth != p.at+1 {
		return
	}
	kind := attr(t, "type")
	v := map[string]labmesh.TestVerdict{"failure": labmesh.TestFailed, "error": labmesh.TestError, "skipped": labmesh.TestSkipped}[t.Name.Local]
	if kind == "pytest.xfail" {
		v = labmesh.TestXFailed
	}
	if !p.open.Verdict.Bad() || v == labmesh.TestFailed {
		p.open.Verdict = v
	}
	p.text.Reset()
	p.into, p.intoAt = &p.text, p.depth
	if m := attr(t, "message"); m != "" {
		p.text.WriteString(m + "\n")
	} else if kind != "" && kind != "pytest.skip" {
		p.text.WriteString(kind + "\n")
	}
}

func (p *parser) end(t xml.EndElement) {
	if p.into != nil && p.depth == p.intoAt {
		text := strings.TrimSpace(p.text.String())
		if p.open.Message != "" && text != "" {
			p.open.Message += "\n"
		}
		if len(p.open.Message) < textMax {
			p.open.Message += text
		}
		p.into = nil
	}
	switch t.Name.Local {
	case "testcase":
		if p.open != nil && p.depth == p.at {
			p.emit(*p.open)
			p.open = nil
		}
	case "testsuite":
		if len(p.suites) > 0 {
			p.suites = p.suites[:len(p.suites)-1]
		}
	}
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// seconds reads a time, also one with separators for thousands.
func seconds(s string) float64 {
	f, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(s), ",", ""), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0
	}
	return f
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"labmesh"
	"labmesh/api"
	"labmesh/each"
)

// inputBytesMax bounds a file of tasks.
const inputBytesMax = 1 << 30

// item is one task of an input, not yet read, and where it stands there.
type item struct {
	raw  json.RawMessage
	line int
}

// fileTask is a task of a file. With forEach it stands for one task for each of
// what that names.
type fileTask struct {
	labmesh.Spec
	forEach string
}

// readSpecs reads the tasks of a file, or of stdin when it is "-". All are
// checked as the mesh will check them: either all of them are good or the error
// says where the first bad one is.
func (a *app) readSpecs(file string) ([]fileTask, error) {
	name, in := file, a.in
	if file == "-" {
		name = "stdin"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close() // it is only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, inputBytesMax+1))
	if err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	if len(data) > inputBytesMax {
		return nil, usagef("%s: it is over %d MiB: submit it in parts", name, inputBytesMax>>20)
	}
	specs, err := parseSpecs(data, filepath.Ext(file))
	for i := range specs {
		if err == nil && specs[i].Bundle != "" && !api.ValidContentID(specs[i].Bundle) {
			if !filepath.IsAbs(specs[i].Bundle) && file != "-" {
				specs[i].Bundle = filepath.Join(filepath.Dir(file), specs[i].Bundle)
			}
			if err = checkBundle(specs[i].Bundle); err != nil {
				err = fmt.Errorf("task %d: bundle: %w", i+1, err)
			}
		}
	}
	if err != nil {
		return nil, usagef("%s: %w; nothing was submitted", name, err)
	}
	return specs, nil
}

// parseSpecs reads tasks from JSON, JSON Lines or YAML: one, a list, or
// several one after the other.
func parseSpecs(data []byte, ext string) ([]fileTask, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	split := splitYAML
	start := bytes.TrimLeft(data, " \t\r\n")
	looksJSON := len(start) > 0 && (start[0] == '{' || start[0] == '[')
	if ext = strings.ToLower(ext); ext == ".json" || ext == ".jsonl" || ext == ".ndjson" || looksJSON && ext != ".yaml" && ext != ".yml" {
		split = splitJSON
	}
	items, err := split(data)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, errors.New("there is no task in it")
	}
	specs := make([]fileTask, len(items))
	for i, it := range items {
		if specs[i], err = parseTask(it.raw); err != nil {
			return nil, fmt.Errorf("task %d (line %d): %w", i+1, it.line, err)
		}
	}
	return specs, nil
}

// splitJSON finds the tasks of one or more JSON values.
func splitJSON(data []byte) ([]item, error) {
	var items []item
	d := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, 0
	for {
		for counted < len(data) && int64(counted) < d.InputOffset() { // lines before this value
			if data[counted] == '\n' {
				line++
			}
			counted++
		}
		for counted < len(data) && strings.IndexByte(" \t\r\n", data[counted]) >= 0 {
			if data[counted] == '\n' {
				line++
			}
			counted++
		}
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, malformed(data, d, line, err)
		}
		more, err := unwrap(raw, line)
		if err != nil {
			return nil, err
		}
		items = append(items, more...)
	}
}

// malformed says on which line JSON broke.
func malformed(data []byte, d *json.Decoder, line int, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at := min(int(syntax.Offset), len(data))
		line = 1 + bytes.Count(data[:max(at-1, 0)], []byte("\n"))
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("line %d: malformed JSON: the value that begins here has no end", line)
	}
	return fmt.Errorf("line %d: malformed JSON: %w", line, err)
}

// unwrap finds the tasks of one value: it is a task, a list of them, or has
// them as its field tasks, as the API takes a batch.
func unwrap(raw json.RawMessage, line int) ([]item, error) {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) > 0 && raw[0] == '[':
		return elements(raw, line)
	case len(raw) > 0 && raw[0] == '{':
		var batch map[string]json.RawMessage
		if json.Unmarshal(raw, &batch) == nil && len(batch) == 1 && bytes.HasPrefix(batch["tasks"], []byte("[")) {
			return elements(batch["tasks"], line+bytes.Count(raw[:bytes.IndexByte(raw, '[')], []byte("\n")))
		}
		return []item{{raw, line}}, nil
	}
	return nil, fmt.Errorf("line %d: %.40s is no task: it should be an object, or a list of them", line, raw)
}

// elements is the items of a JSON list that begins on the given line.
func elements(raw json.RawMessage, line int) ([]item, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var items []item
	counted := 0
	for d.More() {
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return nil, err
		}
		start := int(d.InputOffset()) - len(one)
		line += bytes.Count(raw[counted:start], []byte("\n"))
		items = append(items, item{one, line})
		counted = start
	}
	return items, nil
}

// splitYAML finds the tasks of one or more YAML documents.
func splitYAML(data []byte) ([]item, error) {
	var items []item
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("malformed YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		for _, n := range tasksOf(&doc) {
			var v any
			if err := n.Decode(&v); err != nil {
				return nil, fmt.Errorf("line %d: %s", n.Line, strings.TrimPrefix(err.Error(), "yaml: "))
			}
			raw, err := json.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("line %d: it has no form in JSON: %w", n.Line, err)
			}
			items = append(items, item{raw, n.Line})
		}
	}
}

// tasksOf is the nodes of the tasks of one document; an empty one has none.
func tasksOf(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return nil
		}
		n = n.Content[0]
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "tasks" && n.Content[1].Kind == yaml.SequenceNode:
		return n.Content[1].Content
	}
	return []*yaml.Node{n}
}

// parseTask reads and checks one task and what it is to be done for.
func parseTask(raw json.RawMessage) (t fileTask, err error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) == nil && fields[each.Label] != nil {
		if err := json.Unmarshal(fields[each.Label], &t.forEach); err != nil {
			return t, fmt.Errorf("%s: it is a text such as %s", each.Label, each.Worker)
		}
		if refused := each.Check(t.forEach); refused != nil {
			return t, refused
		}
		delete(fields, each.Label)
		if raw, err = json.Marshal(fields); err != nil {
			return t, err
		}
	}
	t.Spec, err = parseSpec(raw)
	return t, err
}

// parseSpec reads and checks one task.
func parseSpec(raw json.RawMessage) (labmesh.Spec, error) {
	s := labmesh.Spec{Priority: api.PriorityDefault}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(&s)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return s, errors.New("a task should be an object")
	case errors.As(err, &wrong):
		return s, api.WrongType(wrong.Field, wrong)
	case err != nil && strings.HasPrefix(err.Error(), "json: unknown field "):
		return s, fmt.Errorf("%s: there is no such field", strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`))
	case err != nil:
		return s, err
	}
	local := s
	if !api.ValidContentID(s.Bundle) {
		local.Bundle = "" // a directory here, which is to be uploaded
	}
	return s, api.ValidateSpec(&local)
}

package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/process"
)

// collectedMax bounds how many cases a suite may have.
const collectedMax = 1_000_000

// collected is one line of the list of what was collected.
type collected struct {
	ID     string `json:"id"`
	File   string `json:"file"`
	Name   string `json:"name"`
	Params string `json:"parameters,omitempty"`
	Error  string `json:"error,omitempty"` // why it could not be collected
}

// collectPython collects the tests of pytest or unittest.
func (c *chunk) collectPython(ctx context.Context) (labmesh.Outcome, error) {
	s := newSession(c, nil)
	exit, err := c.interpret(ctx, 0, plan{Collect: true, Paths: c.conf.Paths, Args: c.conf.Args}, s)
	if err != nil {
		return labmesh.Outcome{}, err
	}
	if cause, message, stopped := exec.Stopped(ctx); stopped && !s.done {
		return labmesh.Outcome{Cause: cause, Error: message}, nil
	}
	list := make([]collected, 0, len(s.items))
	for _, id := range s.items {
		file, name, params := parts(id)
		list = append(list, collected{ID: id, File: file, Name: name, Params: params})
	}
	for _, id := range s.order {
		file, name, _ := parts(id)
		list = append(list, collected{ID: id, File: file, Name: name, Error: clip(s.broken[id], labmesh.CaseMessageBytesMax)})
	}
	if e := s.collectionEnded(exit); e != nil {
		list = append(list, *e)
	}
	return c.keepCollected(list)
}

// collectionEnded is an error of the collection as a whole, or nil.
func (s *session) collectionEnded(exit process.Exit) *collected {
	const good, interrupted, noTests = 0, 2, 5 // exit codes of pytest
	switch {
	case !s.done && s.importing != "":
		return &collected{ID: s.importing, File: clipName(s.importing), Error: clip(fmt.Sprintf("crashed while importing %s: %s\n%s", s.importing, ending(exit, nil), s.stackText()), labmesh.CaseMessageBytesMax)}
	case s.done && (exit.Code == good || exit.Code == noTests || len(s.order) > 0 && exit.Code <= interrupted):
		return nil
	}
	return &collected{Error: clip(fmt.Sprintf("%s could not collect: %s\n%s", s.c.conf.Framework, s.how(exit, nil), s.c.lastWords()), labmesh.CaseMessageBytesMax)}
}

// collection is the result of a chunk that collects.
type collection struct {
	Framework Framework `json:"framework"`
	Cases     int       `json:"cases"`
	Errors    int       `json:"errors"`
}

// keepCollected writes the list of what was collected among the files to keep.
func (c *chunk) keepCollected(list []collected) (labmesh.Outcome, error) {
	r := collection{Framework: c.conf.Framework}
	for _, l := range list {
		if l.Error != "" {
			r.Errors++
		} else {
			r.Cases++
		}
	}
	if r.Cases > collectedMax {
		return labmesh.Outcome{Cause: labmesh.CauseConfig, Error: fmt.Sprintf("the suite has %d tests, more than %d: give fewer paths", r.Cases, collectedMax)}, nil
	}
	if err := c.writeCollected(list); err != nil {
		return labmesh.Outcome{}, fmt.Errorf("keep the list of tests: %w", err)
	}
	return labmesh.Outcome{OK: true, Result: encode(r)}, nil
}

func (c *chunk) writeCollected(list []collected) error {
	if err := os.MkdirAll(c.a.Keep(), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.a.Keep(), collectedName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			break // kept by w, and told by Flush
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

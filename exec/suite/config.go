package suite

import (
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labmesh"
)

// Framework is what runs the tests of a suite.
type Framework string

// The frameworks.
const (
	Pytest   Framework = "pytest"
	Unittest Framework = "unittest"
	Go       Framework = "go"
	Command  Framework = "command" // any program that writes JUnit XML
)

// Limits on the config of a chunk.
const (
	casesMax       = 100_000
	caseTimeoutMax = 7 * 24 * time.Hour
)

// Config is the config of a test task that is a chunk of a suite. It either
// collects the tests of Paths, or runs Cases, or Command on Files.
type Config struct {
	Suite     string    `json:"suite,omitempty"`
	Framework Framework `json:"framework"`
	Args      []string  `json:"args,omitempty"` // for the framework, as they are

	Collect bool     `json:"collect,omitempty"`
	Paths   []string `json:"paths,omitempty"` // files and directories; Go: package patterns. Default: all

	Cases       []string `json:"cases,omitempty"` // as collected
	CaseTimeout float64  `json:"case_timeout_seconds,omitempty"`
	Try         int      `json:"try,omitempty"`
	FailFast    bool     `json:"fail_fast,omitempty"`  // end at the first bad case
	Quarantine  []string `json:"quarantine,omitempty"` // cases whose failure counts for nothing

	Command []string `json:"command,omitempty"` // with {files} and {junit}
	Files   []string `json:"files,omitempty"`
}

// Is reports whether the config of a test task is that of a chunk.
func Is(config json.RawMessage) bool {
	var c struct {
		Framework any `json:"framework"`
	}
	return json.Unmarshal(config, &c) == nil && c.Framework != nil
}

// Validate refuses what makes no sense, naming the field.
func (c *Config) Validate() error {
	switch {
	case !slices.Contains([]Framework{Pytest, Unittest, Go, Command}, c.Framework):
		return labmesh.RefuseField("config.framework", "config: framework: %.40q is not one of pytest, unittest, go, command", c.Framework)
	case c.Framework == Command && c.Collect:
		return labmesh.RefuseField("config.collect", "config: collect: a command has no collection: give its files")
	case c.Framework == Command && len(c.Command) == 0:
		return labmesh.RefuseField("config.command", "config: command: it is missing: give the program and its arguments, with {files} and {junit} in them")
	case c.Framework != Command && !c.Collect && len(c.Cases) == 0:
		return labmesh.RefuseField("config.cases", "config: cases: it is missing: give the cases to run, or collect")
	case len(c.Cases) > casesMax || len(c.Files) > casesMax || len(c.Paths) > casesMax:
		return labmesh.RefuseField("config.cases", "config: there are more than %d cases, files or paths", casesMax)
	case math.IsNaN(c.CaseTimeout) || c.CaseTimeout < 0 || c.CaseTimeout > caseTimeoutMax.Seconds():
		return labmesh.RefuseField("config.case_timeout_seconds", "config: case_timeout_seconds: it must be from 0 to %g", caseTimeoutMax.Seconds())
	case c.Try < 0:
		return labmesh.RefuseField("config.try", "config: try: it must be 1 or more")
	}
	for field, list := range map[string][]string{"args": c.Args, "paths": c.Paths, "cases": c.Cases, "command": c.Command, "files": c.Files} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return labmesh.RefuseField("config."+field, "config: %s: %.40q holds a NUL byte", field, s)
			}
		}
	}
	for field, list := range map[string][]string{"paths": c.Paths, "files": c.Files} {
		for _, s := range list {
			path, _, _ := strings.Cut(s, "::")
			if !filepath.IsLocal(filepath.Clean(strings.TrimSuffix(path, "/..."))) {
				return labmesh.RefuseField("config."+field, "config: %s: %.80q is not inside the bundle: give a path relative to its root", field, s)
			}
		}
	}
	return nil
}

func (c *Config) caseTimeout() time.Duration {
	return time.Duration(c.CaseTimeout * float64(time.Second))
}

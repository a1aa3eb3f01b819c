package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"labmesh"
	"labmesh/bench"
)

// ArgsMax bounds the arguments of a program.
const ArgsMax = 10_000

// validateConfig refuses a config that does not suit its kind. A runner may know
// fields beyond these; they are left to it.
func validateConfig(s *labmesh.Spec) *labmesh.Error {
	switch s.Kind {
	case labmesh.Benchmark:
		return validateBenchmark(s.Config)
	case labmesh.Test:
		return validateTest(s.Config)
	case labmesh.Custom:
		return validateCustom(s.Config)
	}
	return refuse("type", "%.40q is not one of benchmark, test, custom", s.Kind)
}

func validateBenchmark(raw json.RawMessage) *labmesh.Error {
	var c bench.Config
	if e := readConfig(raw, &c); e != nil {
		return e
	}
	if c.Model == "" {
		return missing("config.model")
	}
	_, e := bench.Parse(raw)
	return e
}

func validateTest(raw json.RawMessage) *labmesh.Error {
	var c struct {
		File      string          `json:"test_file"`
		Args      []string        `json:"test_args"`
		Framework json.RawMessage `json:"framework"`
		Dir       string          `json:"dir"`
		Umask     string          `json:"umask"`
	}
	if e := readConfig(raw, &c); e != nil {
		return e
	}
	if e := validatePlace(c.Umask, c.Dir); e != nil {
		return e
	}
	if c.Framework != nil && c.File == "" {
		return validateChunk(raw)
	}
	if e := validateArg("config.test_file", c.File); e != nil {
		return e
	}
	return validateArgs("config.test_args", c.Args)
}

// Frameworks lists what can run the chunks of a suite.
func Frameworks() []string { return []string{"pytest", "unittest", "go", "command"} }

// validateChunk is for a test task that is a chunk of a suite: it collects its
// tests or runs some of them.
func validateChunk(raw json.RawMessage) *labmesh.Error {
	var c struct {
		Framework string   `json:"framework"`
		Collect   bool     `json:"collect"`
		Paths     []string `json:"paths"`
		Cases     []string `json:"cases"`
		Args      []string `json:"args"`
		Command   []string `json:"command"`
		Files     []string `json:"files"`
		Timeout   float64  `json:"case_timeout_seconds"`
	}
	if e := readConfig(raw, &c); e != nil {
		return e
	}
	switch {
	case !slices.Contains(Frameworks(), c.Framework):
		return refuse("config.framework", "%.40q is not one of %s", c.Framework, strings.Join(Frameworks(), ", "))
	case c.Framework == "command" && len(c.Command) == 0:
		return missing("config.command")
	case c.Framework != "command" && !c.Collect && len(c.Cases) == 0:
		return missing("config.cases")
	case !within(c.Timeout, TimeoutSecsMax):
		return refuse("config.case_timeout_seconds", "%g is not in 0 to %d", c.Timeout, TimeoutSecsMax)
	}
	for field, list := range map[string][]string{"paths": c.Paths, "cases": c.Cases, "args": c.Args, "command": c.Command, "files": c.Files} {
		if e := validateArgs("config."+field, list); e != nil {
			return e
		}
	}
	return nil
}

func validateCustom(raw json.RawMessage) *labmesh.Error {
	var c struct {
		Name  string   `json:"name"`
		Args  []string `json:"args"`
		Shell bool     `json:"shell"`
		Dir   string   `json:"dir"`
		Umask string   `json:"umask"`
	}
	if e := readConfig(raw, &c); e != nil {
		return e
	}
	if e := validatePlace(c.Umask, c.Dir); e != nil {
		return e
	}
	if e := validateArg("config.name", c.Name); e != nil {
		return e
	}
	return validateArgs("config.args", c.Args)
}

// validatePlace refuses a umask that is none, and a directory that leads out of
// the work directory without being absolute.
func validatePlace(umask, dir string) *labmesh.Error {
	octal := func(r rune) bool { return r < '0' || r > '7' }
	switch digits := strings.TrimPrefix(umask, "0"); {
	case len(digits) > 3 || strings.ContainsFunc(umask, octal):
		return refuse("config.umask", "%.20q is none: give it as octal digits, e.g. \"022\"", umask)
	case len(dir) > ArgBytesMax || strings.ContainsRune(dir, 0):
		return refuse("config.dir", "it has more than %d bytes or holds a NUL character", ArgBytesMax)
	case !strings.HasPrefix(dir, "/") && slices.Contains(strings.Split(path.Clean("./"+dir), "/"), ".."):
		return refuse("config.dir", "%.200q leads out of the work directory: give a path inside it, or an absolute one", dir)
	}
	return nil
}

func validateArg(field, s string) *labmesh.Error {
	switch {
	case s == "":
		return missing(field)
	case len(s) > ArgBytesMax:
		return refuse(field, "it has %d bytes; at most %d are allowed", len(s), ArgBytesMax)
	case strings.ContainsRune(s, 0):
		return refuse(field, "it holds a NUL character")
	}
	return nil
}

func validateArgs(field string, args []string) *labmesh.Error {
	if len(args) > ArgsMax {
		return refuse(field, "there are %d; at most %d are allowed", len(args), ArgsMax)
	}
	for i, a := range args {
		if len(a) > ArgBytesMax || strings.ContainsRune(a, 0) {
			return refuse(fmt.Sprintf("%s[%d]", field, i), "it has more than %d bytes or holds a NUL character", ArgBytesMax)
		}
	}
	return nil
}

// readConfig decodes raw, which must be an object, into c.
func readConfig(raw json.RawMessage, c any) *labmesh.Error {
	if len(raw) == 0 || string(raw) == "null" {
		return missing("config")
	}
	err := json.Unmarshal(raw, c)
	if err == nil {
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return refuse("config", "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	field := "config"
	if wrong.Field != "" {
		field += "." + wrong.Field
	}
	return WrongType(field, wrong)
}

// WrongType is the refusal of a field that holds JSON of another type than it should.
func WrongType(field string, e *json.UnmarshalTypeError) *labmesh.Error {
	return refuse(field, "it should be %s, not %s", typeWord(e.Type), e.Value)
}

func missing(field string) *labmesh.Error {
	return labmesh.RefuseField(field, "Missing required field: %s", field)
}

// refuse makes a refusal whose message begins with the field at fault.
func refuse(field, format string, args ...any) *labmesh.Error {
	return labmesh.RefuseField(field, "%s: %s", field, sayf(format, args...))
}

func sayf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

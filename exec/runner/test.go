package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/suite"
)

// Test runs a test file by its kind. The exit code is the verdict.
type Test struct {
	shop   *shop
	root   string // where relative paths start, of tasks without a bundle
	python *pythons
}

// TestConfig is the config of a test task.
type TestConfig struct {
	// TestFile is the file: a Go test or a directory with some, a Python file
	// (for pytest also with ::names), or a program. A relative path is
	// from the root of the task's bundle; without one, from where the node was started.
	TestFile string   `json:"test_file"`
	TestArgs []string `json:"test_args,omitempty"`
	Dir      string   `json:"dir,omitempty"`   // where it runs; default: the file's directory
	Umask    string   `json:"umask,omitempty"` // as octal digits, e.g. "022"; default: that of the node
}

// ParseTest reads the config of a test task and refuses what it does not know.
func ParseTest(config json.RawMessage) (TestConfig, error) {
	var c TestConfig
	if err := decodeStrict(config, &c); err != nil {
		return c, err
	}
	switch {
	case c.TestFile == "":
		return c, labmesh.RefuseField("config.test_file", "config: test_file: it is missing: give the file to test")
	case strings.ContainsRune(c.TestFile+c.Dir+strings.Join(c.TestArgs, ""), 0):
		return c, labmesh.RefuseField("config", "config: it holds a NUL byte")
	}
	return c, checkPlace(c.Umask, c.Dir)
}

// Warm finds the Python that has pytest, which takes an import of it, so that
// the first chunk of a suite does not wait for that.
func (t *Test) Warm(ctx context.Context) { t.python.withPytest(ctx) }

// how is the way to run a test file.
type how struct {
	runner string // its name, for the result
	job    job
}

// Run runs the test file of a test task, or its chunk of a suite.
func (t *Test) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	if suite.Is(a.Task.Spec.Config) {
		return t.runChunk(ctx, a)
	}
	conf, err := ParseTest(a.Task.Spec.Config)
	if err != nil {
		return fault(err)
	}
	root := t.root
	if a.Task.Spec.Bundle != "" {
		root = a.Work()
	}
	h, err := t.choose(ctx, conf, root)
	if err != nil {
		return fault(err)
	}
	if conf.Dir != "" {
		h.job.dir = conf.Dir
	}
	h.job.umask = conf.Umask
	exit, err := t.shop.run(ctx, a, h.job)
	if err != nil {
		return fault(err)
	}
	r := result{Runner: h.runner}
	if h.runner == runnerPytest {
		r.Summary = pytestSummary(a.Output.Excerpt(output.Stdout).Text)
	}
	o := conclude(ctx, a, exit, r)
	return t.explain(h.runner, o, exit.Code, a)
}

// The runners, as results name them.
const (
	runnerGo       = "go test"
	runnerPytest   = "pytest"
	runnerUnittest = "unittest"
	runnerPython   = "python"
	runnerProgram  = "program"

	pytestNoTests = 5 // exit code of pytest, and of unittest since Python 3.12
)

// explain says in words what an exit code of a test runner means.
func (t *Test) explain(runner string, o labmesh.Outcome, code int, a exec.Attempt) labmesh.Outcome {
	python := runner == runnerPytest || runner == runnerUnittest
	switch {
	case o.OK && runner == runnerUnittest && strings.Contains(a.Output.Excerpt(output.Stderr).Text, "Ran 0 tests"):
		o.OK, o.Cause, o.Error = false, labmesh.CauseExit, "no tests were found in the file"
	case o.Cause != labmesh.CauseExit:
	case python && code == pytestNoTests:
		o.Error = "no tests were found in the file (exit code 5)"
	case runner == runnerPytest && code == 2:
		o.Error = "the test run was interrupted, or a file could not be imported (pytest exit code 2)"
	case runner == runnerPytest && code == 4:
		o.Error = "pytest did not understand its arguments, or found no such test (exit code 4)"
	case code == 1:
		o.Error = "tests failed (exit code 1)"
	}
	return o
}

// choose decides how a test file is run; a relative path starts at root.
func (t *Test) choose(ctx context.Context, c TestConfig, root string) (how, error) {
	file, node, _ := strings.Cut(c.TestFile, "::")
	if !filepath.IsAbs(file) {
		file = filepath.Join(root, file)
	}
	info, err := os.Stat(file)
	switch {
	case err != nil && root != t.root:
		return how{}, &problem{labmesh.CauseProgram, fmt.Sprintf("config: test_file: there is no %s in the task's bundle", c.TestFile)}
	case err != nil:
		return how{}, &problem{labmesh.CauseProgram, fmt.Sprintf("config: test_file: there is no %s on this machine", file)}
	}
	dir, base := filepath.Split(file)
	switch {
	case info.IsDir():
		return t.chooseDir(ctx, file, c.TestArgs)
	case strings.HasSuffix(base, "_test.go"):
		return goTest(dir, file, c.TestArgs)
	case strings.HasSuffix(base, ".py"):
		return t.python.choose(ctx, file, node, c.TestArgs)
	case info.Mode()&0o111 != 0:
		return how{runnerProgram, job{name: file, args: c.TestArgs, dir: dir}}, nil
	}
	return how{}, &problem{labmesh.CauseProgram, fmt.Sprintf("config: test_file: %s is no Go test, no Python file and not executable: nothing here can run it", file)}
}

func (t *Test) chooseDir(ctx context.Context, dir string, args []string) (how, error) {
	has := func(pattern string) bool {
		m, _ := filepath.Glob(filepath.Join(dir, pattern))
		return len(m) > 0
	}
	switch {
	case has("*_test.go"):
		return goTest(dir, "", args)
	case has("test_*.py") || has("*_test.py"):
		return t.python.choose(ctx, dir, "", args)
	}
	return how{}, &problem{labmesh.CauseProgram, fmt.Sprintf("config: test_file: the directory %s holds neither Go nor Python tests", dir)}
}

// goTest runs the package in dir; of a file, the tests in it.
func goTest(dir, file string, args []string) (how, error) {
	flags, rest := args, []string(nil)
	if i := slices.Index(args, "-args"); i >= 0 {
		flags, rest = args[:i], args[i:]
	}
	own := slices.ContainsFunc(flags, func(f string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(f, "-"), "=")
		return slices.Contains([]string{"run", "test.run", "bench", "fuzz", "list"}, name) && f[0] == '-'
	})
	all := []string{"test", "-count=1"}
	if file != "" && !own {
		names, err := testsIn(file)
		if err != nil {
			return how{}, err
		}
		all = append(all, "-run=^("+strings.Join(names, "|")+")$")
	}
	all = append(append(append(all, flags...), "."), rest...)
	return how{runnerGo, job{name: "go", args: all, dir: dir}}, nil
}

// testsIn lists the functions that `go test` would run of a file.
func testsIn(file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, &problem{labmesh.CauseExit, fmt.Sprintf("the test file does not compile: %v", err)}
	}
	var names []string
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && testName.MatchString(fn.Name.Name) && fn.Name.Name != "TestMain" {
			names = append(names, fn.Name.Name)
		}
	}
	if len(names) == 0 {
		return nil, &problem{labmesh.CauseExit, fmt.Sprintf("no tests were found in %s", file)}
	}
	return names, nil
}

var (
	testName   = regexp.MustCompile(`^(Test|Example|Fuzz)([^a-z]|$)`)
	pytestLine = regexp.MustCompile(`^=* ?((?:\d+ [a-z]+, )*\d+ (?:passed|failed|errors?|skipped|deselected|xfailed|xpassed|warnings?)\b.*?|no tests ran.*?) ?=*$`)
)

// pytestSummary is the line of counts at the end of pytest's output, or "".
func pytestSummary(out string) string {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	for _, l := range slices.Backward(lines) {
		if m := pytestLine.FindStringSubmatch(strings.TrimSpace(l)); m != nil {
			return m[1]
		}
	}
	return ""
}

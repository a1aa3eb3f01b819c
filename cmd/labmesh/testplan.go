package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	suiterun "labmesh/suite/run"
)

// Limits on looking at what is to be tested.
const (
	testFilesLooked = 2000    // in directories, to tell the framework
	testHeadBytes   = 1 << 20 // of a Python file
)

// testPlan is what the paths of `labmesh test` are.
type testPlan struct {
	programs  bool // they are run as tasks of their own
	framework suiterun.Framework
	root      string   // absolute; what is in it goes to the workers
	ship      []string // what of it; all when there are none
	paths     []string // from the root, for the collection
	files     []string // for a command
	choose    []string // arguments of the framework that choose tests
	args      []string
	command   []string
	name      string // for people
}

// target is one path of the command line.
type target struct {
	word string
	abs  string // without what follows ::, and without /...
	node string // what follows ::, with the colons
	all  bool   // it ended in /...
	dir  bool
}

// plan finds out what is to be run, and how.
func (f *testFlags) plan(words, rest []string) (p testPlan, err error) {
	targets := make([]target, len(words))
	for i, w := range words {
		if targets[i], err = parseTarget(w); err != nil {
			return p, err
		}
	}
	p.name = strings.Join(words, " ")
	p.args = rest
	switch {
	case f.command != "":
		p.framework = suiterun.Command
		if p.command, err = splitWords(f.command); err != nil {
			return p, usagef("--command: %w", err)
		}
		if f.keyword != "" {
			return p, usagef("-k: a --command chooses its tests itself: put it in there")
		}
		if !slices.ContainsFunc(p.command, func(w string) bool { return strings.Contains(w, "{junit}") }) {
			return p, usagef("--command %q: it needs {junit}, where the program writes its results", f.command)
		}
		p.command, p.args = append(p.command, rest...), nil
	case f.framework != "":
		p.framework = suiterun.Framework(f.framework)
		if !slices.Contains([]suiterun.Framework{suiterun.Pytest, suiterun.Unittest, suiterun.Go}, p.framework) {
			return p, usagef("--framework %s: it is pytest, unittest or go; for others see --command", f.framework)
		}
	default:
		if p.framework, err = detect(targets); err != nil {
			return p, err
		}
		if p.framework == "" {
			return testPlan{programs: true}, nil
		}
	}
	if err := p.locate(f.bundle, targets); err != nil {
		return p, err
	}
	return p, p.address(targets, f.keyword)
}

func parseTarget(word string) (t target, err error) {
	t = target{word: word}
	path, node, isNode := strings.Cut(word, "::")
	if isNode {
		t.node = "::" + node
	}
	if path, t.all = strings.CutSuffix(path, "/..."); path == "..." {
		path, t.all = ".", true
	}
	if t.abs, err = filepath.Abs(path); err != nil {
		return t, fmt.Errorf("find %s: %w", path, err)
	}
	info, err := os.Stat(t.abs)
	if err != nil {
		return t, usagef("there is no test file %s: %w", word, err)
	}
	t.dir = info.IsDir()
	return t, nil
}

// detect tells the framework of targets, "" when they are programs.
func detect(targets []target) (suiterun.Framework, error) {
	found := map[suiterun.Framework]string{}
	other := ""
	for _, t := range targets {
		var of suiterun.Framework
		switch {
		case t.dir || t.all:
			of = detectDir(t)
			if of == "" {
				return "", usagef("%s: there are neither Python nor Go tests in it: name the --framework, or a --command that runs them", t.word)
			}
		case strings.HasSuffix(t.abs, "_test.go"):
			of = suiterun.Go
		case strings.HasSuffix(t.abs, ".py"):
			of = detectPython(t)
		}
		if of == "" {
			other = t.word
			continue
		}
		found[of] = t.word
	}
	if found[suiterun.Pytest] != "" {
		delete(found, suiterun.Unittest) // pytest runs both
	}
	var names []suiterun.Framework
	for f := range found {
		names = append(names, f)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "", nil
	case other != "":
		return "", usagef("%s is run by %s and %s is a program: run them one after the other", found[names[0]], names[0], other)
	case len(names) > 1:
		return "", usagef("%s is run by %s and %s by %s: name the --framework, or run them one after the other", found[names[0]], names[0], found[names[1]], names[1])
	}
	return names[0], nil
}

// errEnough ends a walk that has seen enough.
var errEnough = errors.New("enough was seen")

func detectDir(t target) suiterun.Framework {
	golang, python, plainTests := false, false, false
	looked := 0
	_ = filepath.WalkDir(t.abs, func(path string, d fs.DirEntry, err error) error { // what cannot be read is not looked at
		switch {
		case err != nil:
			return nil
		case d.IsDir() && path != t.abs && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == "__pycache__"):
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		if looked++; looked > testFilesLooked {
			return errEnough
		}
		switch name := d.Name(); {
		case strings.HasSuffix(name, "_test.go"):
			golang = true
		case isPythonTest(name):
			python = true
			plainTests = plainTests || looksLikePytest(path)
		}
		return nil
	})
	switch {
	case t.all && golang, golang && !python:
		return suiterun.Go
	case python && (plainTests || pytestConfigured(t.abs)):
		return suiterun.Pytest
	case python:
		return suiterun.Unittest
	}
	return ""
}

func isPythonTest(name string) bool {
	return strings.HasSuffix(name, ".py") && (strings.HasPrefix(name, "test_") || strings.HasSuffix(name, "_test.py")) || name == "conftest.py"
}

// detectPython tells the framework of a Python file, "" for a plain program.
func detectPython(t target) suiterun.Framework {
	switch {
	case looksLikePytest(t.abs) || pytestConfigured(filepath.Dir(t.abs)) && isPythonTest(filepath.Base(t.abs)):
		return suiterun.Pytest
	case bytes.Contains(head(t.abs), []byte("unittest")):
		return suiterun.Unittest
	case isPythonTest(filepath.Base(t.abs)) || t.node != "":
		return suiterun.Pytest // what it lacks pytest will say best
	}
	return ""
}

var pytestSign = regexp.MustCompile(`(?m)^(import pytest\b|from pytest\b|(async )?def test|@pytest\.)`)

// looksLikePytest reports whether a Python file has tests that unittest would not see.
func looksLikePytest(path string) bool {
	return filepath.Base(path) == "conftest.py" || pytestSign.Match(head(path))
}

func head(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() // it is only read
	text := make([]byte, testHeadBytes)
	n, _ := bufio.NewReader(f).Read(text) // what could be read is looked at
	return text[:n]
}

// pytestConfigured reports whether dir or one above it in the same project is set up for pytest.
func pytestConfigured(dir string) bool {
	for range 64 {
		for name, sign := range map[string]string{"pytest.ini": "", "conftest.py": "", "pyproject.toml": "[tool.pytest", "setup.cfg": "[tool:pytest]", "tox.ini": "[pytest]"} {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil && (sign == "" || bytes.Contains(head(path), []byte(sign))) {
				return true
			}
		}
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil || filepath.Dir(dir) == dir {
			return false
		}
		dir = filepath.Dir(dir)
	}
	return false
}

// locate finds the directory that goes to the workers: the one that was named,
// the git work tree, the Go module, or the one the paths are in.
func (p *testPlan) locate(bundle string, targets []target) error {
	if bundle != "" {
		abs, err := filepath.Abs(bundle)
		if err != nil {
			return fmt.Errorf("find %s: %w", bundle, err)
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return usagef("--bundle %s: there is no such directory", bundle)
		}
		p.root = abs
		return p.inside(targets, "--bundle "+bundle)
	}
	if root := above(targets[0].abs, ".git"); root != "" {
		p.root = root
		return p.inside(targets, "the git work tree "+root)
	}
	if root := above(targets[0].abs, "go.mod"); root != "" && p.framework == suiterun.Go {
		p.root = root
		return p.inside(targets, "the Go module "+root)
	}
	if cwd, err := os.Getwd(); err == nil {
		p.root = cwd
		if p.inside(targets, "") == nil {
			p.ship = p.only(targets)
			return nil
		}
	}
	p.root = targets[0].abs
	if !targets[0].dir {
		p.root = filepath.Dir(p.root)
	}
	for p.inside(targets, "") != nil && filepath.Dir(p.root) != p.root {
		p.root = filepath.Dir(p.root)
	}
	p.ship = p.only(targets)
	return nil
}

// above is the closest directory at or above path that holds name, or "".
func above(path, name string) string {
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			return ""
		}
	}
}

// inside refuses targets that are not below the root.
func (p *testPlan) inside(targets []target, what string) error {
	for _, t := range targets {
		if rel, err := filepath.Rel(p.root, t.abs); err != nil || !filepath.IsLocal(rel) {
			return usagef("%s is not inside %s: name a directory that holds all with --bundle", t.word, what)
		}
	}
	return nil
}

// only lists what goes to the workers where no project tells: the targets, and
// what sets up the frameworks around them. Nothing means all.
func (p *testPlan) only(targets []target) (ship []string) {
	add := func(rel string) {
		if !slices.Contains(ship, rel) {
			ship = append(ship, rel)
		}
	}
	for _, t := range targets {
		rel, err := filepath.Rel(p.root, t.abs)
		if err != nil || rel == "." {
			return nil
		}
		add(filepath.ToSlash(rel))
		for dir := filepath.Dir(rel); ; dir = filepath.Dir(dir) {
			for _, name := range []string{"conftest.py", "__init__.py", "pytest.ini", "pyproject.toml", "setup.cfg", "tox.ini"} {
				if _, err := os.Stat(filepath.Join(p.root, dir, name)); err == nil {
					add(filepath.ToSlash(filepath.Join(dir, name)))
				}
			}
			if dir == "." {
				break
			}
		}
	}
	return ship
}

// address writes the targets as the framework takes them, from the root.
func (p *testPlan) address(targets []target, keyword string) error {
	var names []string // of Go tests, where files were named
	for _, t := range targets {
		rel, err := filepath.Rel(p.root, t.abs)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", t.word, p.root, err)
		}
		rel = filepath.ToSlash(rel)
		switch {
		case p.framework == suiterun.Command:
			p.files = append(p.files, rel)
		case p.framework != suiterun.Go:
			p.paths = append(p.paths, rel+t.node)
		case t.dir:
			p.paths = append(p.paths, goPattern(rel)+"/...")
		default:
			p.paths = append(p.paths, goPattern(filepath.ToSlash(filepath.Dir(rel))))
			more, err := goTests(t)
			if err != nil {
				return err
			}
			names = append(names, more...)
		}
	}
	p.paths = slices.Compact(p.paths)
	switch {
	case keyword != "" && p.framework == suiterun.Go:
		p.choose = []string{"-run", keyword}
	case keyword != "":
		p.choose = []string{"-k", keyword}
	case len(names) > 0 && !slices.ContainsFunc(targets, func(t target) bool { return t.dir }):
		p.choose = []string{"-run", "^(" + strings.Join(names, "|") + ")$"}
	}
	return nil
}

func goPattern(rel string) string {
	if rel == "." {
		return "."
	}
	return "./" + rel
}

// goTests lists the tests of a Go file, or the one that is named.
func goTests(t target) ([]string, error) {
	if t.node != "" {
		return []string{regexp.QuoteMeta(strings.TrimPrefix(t.node, "::"))}, nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), t.abs, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil // the compiler says it better
	}
	var names []string
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && goTestName.MatchString(fn.Name.Name) && fn.Name.Name != "TestMain" {
			names = append(names, fn.Name.Name)
		}
	}
	if len(names) == 0 {
		return nil, usagef("%s: there are no tests in it", t.word)
	}
	return names, nil
}

var goTestName = regexp.MustCompile(`^(Test|Example|Fuzz)([^a-z]|$)`)

// splitWords splits a command line into words, as a shell would: quotes keep
// words together, a backslash takes the next character as it is.
func splitWords(s string) (words []string, err error) {
	var word strings.Builder
	in, quoted, escaped := false, rune(0), false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quoted != '\'':
			in, escaped = true, true
		case quoted != 0 && r == quoted:
			quoted = 0
		case quoted != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quoted = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quoted != 0 || escaped {
		return nil, fmt.Errorf("%q: a quote or a backslash has no end", s)
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("it is empty")
	}
	return words, nil
}

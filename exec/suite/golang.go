package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

var goTestName = regexp.MustCompile(`^(Test|Example|Fuzz)[\pL\pN_]*$`)

// golang runs a chunk of `go test`. A test is named package::TestName, the
// package as a directory: ./dir, or . for the root.
func (c *chunk) golang(ctx context.Context) (labmesh.Outcome, error) {
	log := &goLog{out: c.a.Output, skip: c.a.Output.Size(output.Stdout)}
	flags, after := splitArgs(c.conf.Args)
	if c.conf.Collect {
		return c.collectGo(ctx, flags, log)
	}
	alone := map[string]bool{} // tests that were under way with others when their program died
	for n := 0; ; n++ {
		left := c.open()
		if len(left) == 0 || c.halted || ctx.Err() != nil {
			return c.outcome(ctx), nil
		}
		dir, cases := nextGroup(left, alone)
		args := append([]string{"test", "-json", "-count=1", "-timeout=0s"}, flags.rest...)
		if c.conf.FailFast {
			args = append(args, "-failfast")
		}
		args = append(append(args, "-run="+runPattern(cases, flags.run), dir), after...)
		s := newGoSession(c, log, dir, cases)
		s.events = c.file("events." + strconv.Itoa(n))
		exit, err := c.supervise(ctx, c.launch(ctx, intoFile(s.events, "go", args)), s.events, s)
		if err != nil && !errors.Is(err, errTooMuch) {
			return c.outcome(ctx), err
		}
		if ctx.Err() != nil {
			return c.outcome(ctx), nil
		}
		for _, name := range s.conclude(exit, err) {
			alone[name] = true
		}
		if slices.Contains(flags.rest, "-failfast") && c.bad > 0 {
			c.halted = true
		}
	}
}

// intoFile is a program whose standard output goes to a file.
func intoFile(file, name string, args []string) Program {
	return Program{Name: "/bin/sh", Args: append([]string{"-c", `out=$1; shift; exec "$@" >>"$out"`, "sh", file, name}, args...), Grace: grace}
}

// goFlags are the arguments for go test, taken apart.
type goFlags struct {
	run, skip string // the patterns of -run and -skip
	rest      []string
}

// splitArgs takes arguments apart; after is what follows the package.
func splitArgs(args []string) (f goFlags, after []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "-args" || arg == "--args" {
			return f, args[i:]
		}
		name, value, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		if to := map[string]*string{"run": &f.run, "test.run": &f.run, "skip": &f.skip, "test.skip": &f.skip}[name]; to != nil && strings.HasPrefix(arg, "-") {
			if !has && i+1 < len(args) {
				i++
				value = args[i]
			}
			*to = value
			if name == "skip" || name == "test.skip" {
				f.rest = append(f.rest, "-skip="+value)
			}
			continue
		}
		f.rest = append(f.rest, arg)
	}
	return f, nil
}

// chosen reports whether a test would be run by these flags.
func (f goFlags) chosen(name string) bool {
	if top, _, _ := strings.Cut(f.run, "/"); top != "" {
		if re, err := regexp.Compile(top); err == nil && !re.MatchString(name) {
			return false
		}
	}
	if f.skip != "" && !strings.Contains(f.skip, "/") {
		if re, err := regexp.Compile(f.skip); err == nil && re.MatchString(name) {
			return false
		}
	}
	return true
}

// nextGroup takes from the cases that are left those to run in one program: of
// one package, a subtest or one that is to run alone by itself.
func nextGroup(left []string, alone map[string]bool) (dir string, cases []string) {
	single := func(id string) bool {
		_, name, _ := strings.Cut(id, "::")
		return alone[id] || strings.Contains(name, "/")
	}
	for _, id := range left {
		of, _, _ := strings.Cut(id, "::")
		switch {
		case len(cases) == 0:
			dir, cases = of, []string{id}
			if single(id) {
				return dir, cases
			}
		case of == dir && !single(id):
			cases = append(cases, id)
		}
	}
	return dir, cases
}

// runPattern chooses just these tests. What was asked for of their subtests stays.
func runPattern(cases []string, asked string) string {
	names := make([]string, len(cases))
	for i, id := range cases {
		_, name, _ := strings.Cut(id, "::")
		names[i] = name
	}
	if len(names) == 1 && strings.Contains(names[0], "/") {
		levels := strings.Split(names[0], "/")
		for i := range levels {
			levels[i] = "^" + regexp.QuoteMeta(levels[i]) + "$"
		}
		return strings.Join(levels, "/")
	}
	for i := range names {
		names[i] = regexp.QuoteMeta(names[i])
	}
	pattern := "^(" + strings.Join(names, "|") + ")$"
	if _, sub, ok := strings.Cut(asked, "/"); ok {
		pattern += "/" + sub
	}
	return pattern
}

// collectGo lists the tests of the packages of the paths.
func (c *chunk) collectGo(ctx context.Context, flags goFlags, log *goLog) (labmesh.Outcome, error) {
	packages := make([]string, 0, len(c.conf.Paths))
	var list []collected
	only := map[string]map[string]bool{} // by package: the tests of it that were asked for
	for _, p := range c.conf.Paths {
		p, name, one := strings.Cut(p, "::")
		pattern, err := goPattern(c.a.Work(), p, one)
		if dir := goDir(strings.TrimPrefix(pattern, "./")); one && err == nil {
			if only[dir] == nil {
				only[dir] = map[string]bool{}
			}
			only[dir][name] = true
		}
		if err != nil {
			list = append(list, collected{ID: p, File: clipName(p), Error: err.Error()})
			continue
		}
		packages = append(packages, pattern)
	}
	packages = unique(packages)
	if len(packages) == 0 {
		return c.keepCollected(list)
	}
	dirs, err := c.goDirs(ctx, flags, packages)
	if err != nil {
		return labmesh.Outcome{}, err
	}
	s := newGoSession(c, log, "", nil)
	s.events, s.dirs = c.file("events.1"), dirs
	args := append(append([]string{"test", "-json"}, flags.rest...), "-list=.")
	exit, err := c.supervise(ctx, c.launch(ctx, intoFile(s.events, "go", append(args, packages...))), s.events, s)
	if err != nil {
		return labmesh.Outcome{}, err
	}
	if cause, message, stopped := exec.Stopped(ctx); stopped {
		return labmesh.Outcome{Cause: cause, Error: message}, nil
	}
	for _, pkg := range s.packages {
		for _, name := range s.listed[pkg] {
			if dir := s.dir(pkg); flags.chosen(name) && (only[dir] == nil || only[dir][name]) {
				list = append(list, collected{ID: dir + "::" + name, File: clipName(dir), Name: clipName(name)})
			}
		}
		if why := s.failed[pkg]; why != "" {
			list = append(list, collected{ID: s.dir(pkg), File: clipName(s.dir(pkg)), Error: clip(why, labmesh.CaseMessageBytesMax)})
		}
	}
	if exit.Code != 0 && len(s.failed) == 0 || exit.Signal != 0 {
		list = append(list, collected{Error: clip(fmt.Sprintf("go test could not list the tests: %s\n%s", ending(exit, nil), c.lastWords()), labmesh.CaseMessageBytesMax)})
	}
	return c.keepCollected(list)
}

// goPattern is the pattern of the packages of a path: of a directory and all
// below it, or of one alone.
func goPattern(root, p string, alone bool) (string, error) {
	dir := path.Clean(filepath.ToSlash(strings.TrimSuffix(p, "...")))
	info, err := os.Stat(filepath.Join(root, filepath.FromSlash(dir)))
	switch {
	case err != nil:
		return "", fmt.Errorf("there is no %s here: check the path, and that the bundle holds it", p)
	case !info.IsDir():
		return "./" + path.Dir(dir), nil
	case alone:
		return "./" + dir, nil
	}
	return "./" + dir + "/...", nil
}

// goDirs says where packages are, relative to the work directory.
func (c *chunk) goDirs(ctx context.Context, flags goFlags, packages []string) (map[string]string, error) {
	file := c.file("packages")
	args := []string{"list", "-e", "-f", "{{.ImportPath}}\t{{.Dir}}"}
	for i, f := range flags.rest { // what decides which packages there are
		if strings.HasPrefix(f, "-tags=") || strings.HasPrefix(f, "-mod=") {
			args = append(args, f)
		} else if f == "-tags" && i+1 < len(flags.rest) {
			args = append(args, f, flags.rest[i+1])
		}
	}
	if _, err := c.m.Launch(ctx, c.a, intoFile(file, "go", append(args, packages...))); err != nil {
		return nil, err
	}
	root, err := filepath.EvalSymlinks(c.a.Work())
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dirs := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		pkg, dir, _ := strings.Cut(lines.Text(), "\t")
		if rel, err := filepath.Rel(root, dir); err == nil && filepath.IsLocal(rel) {
			dirs[pkg] = goDir(filepath.ToSlash(rel))
		}
	}
	return dirs, lines.Err()
}

// goDir names the package in a directory.
func goDir(rel string) string {
	if rel == "." {
		return rel
	}
	return "./" + rel
}

// goLog writes what tests print to the log of the attempt. After a restart of
// the worker all is read again, and what is in the log is not written again.
type goLog struct {
	out  *output.Output
	skip int64
	at   int64
}

func (l *goLog) write(s string) {
	l.at += int64(len(s))
	n := min(l.skip, int64(len(s)))
	l.skip -= n
	l.out.Write(output.Stdout, []byte(s[n:]))
}

// goEvent is a line of `go test -json`.
type goEvent struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// parseGoEvent reads a line. One that is no event is output of a program.
func parseGoEvent(line []byte) goEvent {
	var e goEvent
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		return goEvent{Action: "output", Output: string(line) + "\n"}
	}
	return e
}

var _ watcher = (*goSession)(nil)

func goEnding(exit process.Exit, err error, text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "signal: ") || strings.HasPrefix(line, "exit status ") || strings.HasPrefix(line, "SIG") {
			return strings.TrimSpace(line)
		}
	}
	if errors.Is(err, errTooMuch) {
		return err.Error()
	}
	return "it ended its program; go test ended with " + ending(exit, nil)
}

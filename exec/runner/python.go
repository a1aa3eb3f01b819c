package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"labmesh"
)

// Limits on looking for an interpreter.
const (
	probeTimeout = 20 * time.Second // for one interpreter to import pytest, on a busy machine
	probeAgain   = time.Minute      // until one without pytest is asked again
	headBytesMax = 1 << 20          // of a Python file, looked at for its imports
)

// What an interpreter is asked, to find out whether it will do. The probe of
// the machine asks the same (exec/probe/tools.go).
const (
	asksPython = "import sys; assert sys.version_info >= (3, 6)"
	asksPytest = "import pytest; assert int(pytest.__version__.split('.')[0]) >= 6"
)

// pythons finds interpreters, and remembers which do.
type pythons struct {
	candidates []string
	env        []string

	mu    sync.Mutex
	found map[string]string    // by what was asked: an interpreter
	asked map[string]time.Time // when none would do
}

// newPythons lists the interpreters that a node with this environment may use,
// in order: LABMESH_PYTHON, the virtual environment, python3 on PATH, /usr/bin/python3.
func newPythons(environ []string) *pythons {
	p := &pythons{env: inherit(environ), found: map[string]string{}, asked: map[string]time.Time{}}
	for _, v := range environ {
		switch name, value, _ := strings.Cut(v, "="); {
		case value == "":
		case name == "LABMESH_PYTHON":
			p.candidates = append([]string{value}, p.candidates...)
		case name == "VIRTUAL_ENV":
			p.candidates = append(p.candidates, filepath.Join(value, "bin", "python3"))
		}
	}
	p.candidates = append(p.candidates, "python3", "/usr/bin/python3")
	return p
}

// plain is the first interpreter that works.
func (p *pythons) plain(ctx context.Context) (string, error) {
	if py := p.first(ctx, asksPython); py != "" {
		return py, nil
	}
	return "", &problem{labmesh.CauseProgram, "no python3 on this machine: install it, or name one in LABMESH_PYTHON where the node is started"}
}

// withPytest is the first interpreter that has pytest, or "".
func (p *pythons) withPytest(ctx context.Context) string { return p.first(ctx, asksPytest) }

// first is the first interpreter that runs this, or "".
func (p *pythons) first(ctx context.Context, program string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if py := p.found[program]; py != "" || time.Since(p.asked[program]) < probeAgain {
		return py
	}
	for _, c := range p.candidates {
		path, err := lookPath(c, "/", p.env)
		if err != nil {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		cmd := exec.CommandContext(bounded, path, "-c", program)
		cmd.Dir, cmd.Env, cmd.WaitDelay = os.TempDir(), p.env, time.Second // no .python-version or the like decides
		err = cmd.Run()
		cancel()
		if err == nil {
			p.found[program] = path
			return path
		}
	}
	if ctx.Err() == nil {
		p.asked[program] = time.Now()
	}
	return ""
}

var (
	importsUnittest = regexp.MustCompile(`(?m)^\s*(import|from)\s+unittest\b`)
	wantsPytest     = regexp.MustCompile(`(?m)^\s*(import|from)\s+pytest\b|^(async )?def test|^class Test`)
)

// choose decides how a Python file, or a directory of them, is run. One named
// as a test needs pytest, or unittest where it is written for that.
func (p *pythons) choose(ctx context.Context, file, node string, args []string) (how, error) {
	info, err := os.Stat(file)
	if err != nil {
		return how{}, err
	}
	dir, base := filepath.Split(file)
	if info.IsDir() {
		dir, base = file, "."
	}
	named := node != "" || info.IsDir() || strings.HasPrefix(base, "test_") || strings.HasSuffix(base, "_test.py")
	env := []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"}
	if named {
		if py := p.withPytest(ctx); py != "" {
			target := base
			if node != "" {
				target += "::" + node
			}
			all := append([]string{"-m", "pytest", "-p", "no:cacheprovider", "--color=no"}, args...)
			return how{runnerPytest, job{name: py, args: append(all, target), dir: dir, env: env}}, nil
		}
	}
	py, err := p.plain(ctx)
	if err != nil {
		return how{}, err
	}
	text := ""
	if !info.IsDir() {
		text = head(file)
	}
	switch {
	case named && node == "" && !info.IsDir() && importsUnittest.MatchString(text):
		return how{runnerUnittest, job{name: py, args: append([]string{"-m", "unittest", base}, args...), dir: dir, env: env}}, nil
	case named && (node != "" || info.IsDir() || wantsPytest.MatchString(text)):
		return how{}, &problem{labmesh.CauseProgram, fmt.Sprintf(
			"%s needs pytest, and no python3 of this machine has it (asked: %s): install it (apt-get install python3-pytest), or name one that has it in LABMESH_PYTHON where the node is started",
			file, strings.Join(p.candidates, ", "))}
	}
	return how{runnerPython, job{name: py, args: append([]string{base}, args...), dir: dir, env: env}}, nil
}

// head is the beginning of a file.
func head(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, headBytesMax)
	n, _ := f.Read(buf)
	return string(buf[:n])
}

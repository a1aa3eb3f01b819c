package probe

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// tool is something worth knowing the version of.
type tool struct {
	name    string
	program string
	args    []string
}

// known lists the tools that are looked for.
var known = []tool{
	{"bash", "bash", []string{"--version"}},
	{"cargo", "cargo", []string{"--version"}},
	{"cmake", "cmake", []string{"--version"}},
	{"gcc", "gcc", []string{"--version"}},
	{"git", "git", []string{"--version"}},
	{"go", "go", []string{"version"}},
	{"java", "java", []string{"-version"}},
	{"make", "make", []string{"--version"}},
	{"node", "node", []string{"--version"}},
	{"nvcc", "nvcc", []string{"--version"}},
}

var version = regexp.MustCompile(`\d+(\.\d+)+[0-9A-Za-z.+-]*`)

// tools finds which of the known tools are there, with their version.
func tools(ctx context.Context, environ []string) map[string]string {
	found := make(map[string]string)
	var mu sync.Mutex
	var asking sync.WaitGroup
	add := func(t tool) bool {
		v, ok := ask(ctx, t, environ)
		if ok {
			mu.Lock()
			defer mu.Unlock()
			found[t.name] = v
		}
		return ok
	}
	for _, t := range known {
		asking.Go(func() { add(t) })
	}
	for name, program := range map[string]string{"python3": asksPython, "pytest": asksPytest} {
		asking.Go(func() {
			for _, python := range pythons(environ) {
				if add(tool{name, python, []string{"-c", program}}) {
					return
				}
			}
		})
	}
	asking.Wait()
	return found
}

// What an interpreter is asked. The test runner asks the same of the same ones
// (exec/runner/python.go), so that what is said to be there will run.
const (
	asksPython = "import sys; assert sys.version_info >= (3, 6); print(sys.version.split()[0])"
	asksPytest = "import pytest; assert int(pytest.__version__.split('.')[0]) >= 6; print(pytest.__version__)"
)

// pythons lists the interpreters to ask, in the order in which the test runner does.
func pythons(environ []string) []string {
	var named, virtual []string
	for _, v := range environ {
		if p, ok := strings.CutPrefix(v, "LABMESH_PYTHON="); ok && p != "" {
			named = []string{p}
		}
		if p, ok := strings.CutPrefix(v, "VIRTUAL_ENV="); ok && p != "" {
			virtual = []string{filepath.Join(p, "bin", "python3")}
		}
	}
	return append(append(named, virtual...), "python3", "/usr/bin/python3")
}

// Pythons lists the paths of the interpreters that a node with this environment
// may use, in the order in which they are asked; those that are not there are left out.
func Pythons(environ []string) (paths []string) {
	for _, p := range pythons(environ) {
		if path, err := findTool(p, environ); err == nil && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// ask asks a tool for its version.
func ask(ctx context.Context, t tool, environ []string) (string, bool) {
	path, err := findTool(t.program, environ)
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, t.args...)
	cmd.Env, cmd.WaitDelay = environ, time.Second
	cmd.Dir = os.TempDir() // no go.mod, .python-version or the like decides
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", false
	}
	return version.FindString(string(out)), true
}

// findTool looks for a program on the PATH of environ.
func findTool(name string, environ []string) (string, error) {
	if strings.Contains(name, "/") {
		return exec.LookPath(name)
	}
	for _, v := range environ {
		path, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			if !filepath.IsAbs(dir) {
				continue
			}
			if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return file, nil
			}
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

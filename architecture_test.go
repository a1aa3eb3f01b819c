package labmesh_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// doors says which rooms of ours each room may import. Doors point one way:
// siblings meet in node. What is not here may not exist.
var doors = map[string][]string{
	"labmesh":                 {},
	"labmesh/state":           {"labmesh"},
	"labmesh/scheduler":       {"labmesh", "labmesh/state"},
	"labmesh/light":           {"labmesh"},
	"labmesh/light/attach":    {"labmesh", "labmesh/exec", "labmesh/light"},
	"labmesh/security":        {"labmesh"},
	"labmesh/stats":           {"labmesh"},
	"labmesh/suite":           {"labmesh", "labmesh/suite/junit"},
	"labmesh/suite/junit":     {},
	"labmesh/infer/gemm":      {},
	"labmesh/infer/gemm/asm":  {},
	"labmesh/infer":           {"labmesh", "labmesh/bench", "labmesh/infer/gemm"},
	"labmesh/infer/serve":     {"labmesh", "labmesh/bench", "labmesh/infer", "labmesh/infer/gemm", "labmesh/stats"},
	"labmesh/bench":           {"labmesh"},
	"labmesh/each":            {"labmesh", "labmesh/bench"},
	"labmesh/bench/report":    {"labmesh", "labmesh/bench", "labmesh/stats"},
	"labmesh/bench/plot":      {"labmesh", "labmesh/bench/report", "labmesh/stats"},
	"labmesh/suite/run":       {"labmesh", "labmesh/api", "labmesh/suite"},
	"labmesh/consensus":       {"labmesh", "labmesh/state"},
	"labmesh/mesh":            {"labmesh"},
	"labmesh/mesh/meshtest":   {"labmesh", "labmesh/mesh"},
	"labmesh/content":         {"labmesh"},
	"labmesh/content/pack":    {"labmesh", "labmesh/content"},
	"labmesh/content/store":   {"labmesh", "labmesh/content", "labmesh/content/pack"},
	"labmesh/content/swarm":   {"labmesh", "labmesh/content", "labmesh/content/store"},
	"labmesh/exec":            {"labmesh", "labmesh/exec/output"},
	"labmesh/exec/bench":      {"labmesh", "labmesh/bench", "labmesh/stats", "labmesh/exec", "labmesh/exec/process", "labmesh/exec/output", "labmesh/exec/bench/engines"},
	"labmesh/exec/calibrate":  {"labmesh", "labmesh/infer"},
	"labmesh/exec/cgroup":     {},
	"labmesh/exec/exectest":   {"labmesh", "labmesh/exec"},
	"labmesh/exec/artifacts":  {"labmesh"},
	"labmesh/exec/mirror":     {"labmesh", "labmesh/exec", "labmesh/exec/output"},
	"labmesh/exec/output":     {"labmesh"},
	"labmesh/exec/junit":      {"labmesh"},
	"labmesh/exec/keeper":     {"labmesh/exec/output"},
	"labmesh/exec/process":    {"labmesh", "labmesh/exec/cgroup", "labmesh/exec/keeper", "labmesh/exec/output"},
	"labmesh/exec/probe":      {"labmesh", "labmesh/bench"},
	"labmesh/exec/quiet":      {"labmesh", "labmesh/bench"},
	"labmesh/exec/runner":     {"labmesh", "labmesh/exec", "labmesh/exec/cgroup", "labmesh/exec/output", "labmesh/exec/process", "labmesh/exec/sandbox", "labmesh/exec/suite", "labmesh/exec/bench", "labmesh/exec/bench/engines"},
	"labmesh/exec/sandbox":    {"labmesh"},
	"labmesh/exec/suite":      {"labmesh", "labmesh/exec", "labmesh/exec/junit", "labmesh/exec/output", "labmesh/exec/process"},
	"labmesh/store":           {"labmesh"},
	"labmesh/store/duckdb":    {"labmesh", "labmesh/store"},
	"labmesh/store/memory":    {"labmesh", "labmesh/store"},
	"labmesh/store/storetest": {"labmesh", "labmesh/store"},
	"labmesh/api":             {"labmesh", "labmesh/bench"},
	"labmesh/client":          {"labmesh", "labmesh/api", "labmesh/content", "labmesh/content/pack"},
	"labmesh/node":            {"*"},
	"labmesh/node/httpapi":    {"labmesh", "labmesh/api", "labmesh/bench/plot", "labmesh/bench/report", "labmesh/stats"},
	"labmesh/node/leaf":       {"labmesh", "labmesh/state"},
	"labmesh/node/gateway":    {"labmesh", "labmesh/api", "labmesh/light"},
	"labmesh/node/nodetest":   {"*"},
	"labmesh/node/simtest":    {"labmesh", "labmesh/exec"},
	"labmesh/cmd/labmesh":     {"*"},
	"labmesh/lab":             {"labmesh", "labmesh/api", "labmesh/client"},
	"labmesh/lab/labtest":     {"labmesh/lab"},
	"labmesh/chaos":           {"labmesh", "labmesh/api", "labmesh/client", "labmesh/lab"},
	"labmesh/cmd/demo":        {"labmesh", "labmesh/api", "labmesh/client", "labmesh/lab"},

	"labmesh/exec/bench/engines": {"labmesh", "labmesh/bench", "labmesh/exec/bench/py"},
	"labmesh/exec/bench/py":      {},
}

// pure rooms decide: facts and time come in as arguments, decisions go out as values.
// stats is as pure, but for generators of random numbers with fixed seeds.
var pure = []string{"labmesh", "labmesh/state", "labmesh/scheduler", "labmesh/suite", "labmesh/suite/junit", "labmesh/bench", "labmesh/bench/report", "labmesh/each", "labmesh/light"}

// impure are the packages that a pure room may not import. security is pure but
// for the randomness it is given.
var impure = []string{"context", "crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os", "os/exec", "os/signal", "path/filepath", "runtime", "sync", "sync/atomic", "syscall", "testing/synctest"}

// clock are the functions of package time that a pure room may not call.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

type source struct {
	pkg  string // import path
	path string
	test bool
	file *ast.File
}

func sources(t *testing.T) (out []source) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "examples"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := "labmesh"
		if dir := filepath.ToSlash(filepath.Dir(path)); dir != "." {
			pkg += "/" + dir
		}
		out = append(out, source{pkg, path, strings.HasSuffix(path, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d sources were found", len(out))
	}
	return out
}

func imports(t *testing.T, f *ast.File) (out []string) {
	t.Helper()
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestDoorsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		open, known := doors[s.pkg]
		if !known {
			t.Errorf("%s: the house has no room %s: add it to doors, and to docs/architecture.md", s.path, s.pkg)
			continue
		}
		if s.test || slices.Contains(open, "*") {
			continue // a test may look into any room
		}
		for _, p := range imports(t, s.file) {
			ours := p == "labmesh" || strings.HasPrefix(p, "labmesh/")
			if ours && !slices.Contains(open, p) {
				t.Errorf("%s imports %s: there is no door from %s", s.path, p, s.pkg)
			}
		}
	}
}

func TestPureRoomsStayPure(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.pkg) {
			continue
		}
		for _, p := range imports(t, s.file) {
			if slices.Contains(impure, p) {
				t.Errorf("%s imports %s: a pure room decides and does nothing else", s.path, p)
			}
			if s.pkg == "labmesh" && strings.Contains(strings.Split(p, "/")[0], ".") {
				t.Errorf("%s imports %s: the words need the standard library only", s.path, p)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine at offset %d", s.path, g.Pos())
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
				t.Errorf("%s reads the clock: time.%s", s.path, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestCgoIsBehindOneDoor(t *testing.T) {
	t.Parallel()
	behind := map[string]string{"github.com/duckdb/duckdb-go": "labmesh/store/duckdb", "github.com/NVIDIA/go-nvml": "labmesh/exec/probe"}
	for _, s := range sources(t) {
		for _, p := range imports(t, s.file) {
			if p == "C" {
				t.Errorf("%s uses cgo", s.path)
			}
			for lib, room := range behind {
				if strings.HasPrefix(p, lib) && s.pkg != room {
					t.Errorf("%s imports %s, which belongs behind %s", s.path, p, room)
				}
			}
		}
	}
}

func TestNoInitAndEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		documented[s.pkg] = documented[s.pkg] || s.file.Doc != nil
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init: what runs at start is made in node or main", s.path)
			}
			if ok && f.Name.IsExported() && f.Doc == nil && (f.Recv == nil || exportedReceiver(f)) && !wellKnown(f.Name.Name) {
				t.Errorf("%s: %s has no comment", s.path, f.Name.Name)
			}
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// wellKnown are methods whose interface says what they do.
func wellKnown(name string) bool {
	return slices.Contains([]string{"Error", "String", "Unwrap", "Len", "Less", "Swap", "Push", "Pop", "CommandName", "Read", "Write", "Close", "Accept", "Addr",
		"LocalAddr", "RemoteAddr", "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "ServeHTTP", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText"}, name)
}

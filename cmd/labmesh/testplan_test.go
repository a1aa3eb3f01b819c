package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	suiterun "labmesh/suite/run"
)

// tree writes files, and returns the directory that holds them.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	pytestFile   = "def test_a():\n    pass\n"
	unittestFile = "import unittest\n\nclass T(unittest.TestCase):\n    def test_a(self):\n        pass\n"
	goFile       = "package m\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) {}\n"
)

func TestWhatTheTestsAreIsFoundOut(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"git/.git/HEAD": "", "git/tests/test_a.py": pytestFile, "git/uni/test_u.py": unittestFile, "git/conf/pytest.ini": "", "git/conf/test_u.py": unittestFile,
		"git/both/test_a.py": pytestFile, "git/both/a_test.go": goFile, "git/pkg/a_test.go": goFile, "git/none/readme": "", "git/script.py": "print(1)\n", "git/run.sh": "",
		"mod/go.mod": "module m\n", "mod/sub/a_test.go": goFile, "plain/tests/test_a.py": pytestFile, "plain/conftest.py": "", "plain/mod.py": "",
	})
	for _, c := range []struct {
		flags     testFlags
		words     []string
		framework suiterun.Framework // "" for programs
		root      string
		paths     []string
		choose    []string
		wrong     string
	}{
		{words: []string{"git/tests"}, framework: "pytest", root: "git", paths: []string{"tests"}},
		{words: []string{"git/tests/test_a.py::test_a"}, framework: "pytest", root: "git", paths: []string{"tests/test_a.py::test_a"}},
		{words: []string{"git/uni"}, framework: "unittest", root: "git", paths: []string{"uni"}},
		{words: []string{"git/conf/test_u.py"}, framework: "pytest", root: "git", paths: []string{"conf/test_u.py"}},
		{words: []string{"git/uni", "git/tests"}, framework: "pytest", root: "git", paths: []string{"uni", "tests"}},
		{words: []string{"git/uni"}, flags: testFlags{framework: "pytest", keyword: "x"}, framework: "pytest", root: "git", paths: []string{"uni"}, choose: []string{"-k", "x"}},
		{words: []string{"git/pkg"}, framework: "go", root: "git", paths: []string{"./pkg/..."}},
		{words: []string{"git/pkg/a_test.go"}, framework: "go", root: "git", paths: []string{"./pkg"}, choose: []string{"-run", "^(TestA|TestB)$"}},
		{words: []string{"git/both/..."}, framework: "go", root: "git", paths: []string{"./both/..."}},
		{words: []string{"mod/sub"}, framework: "go", root: "mod", paths: []string{"./sub/..."}},
		{words: []string{"plain/tests"}, framework: "pytest", root: "plain/tests", paths: []string{"."}},
		{words: []string{"plain/tests"}, flags: testFlags{bundle: "plain"}, framework: "pytest", root: "plain", paths: []string{"tests"}},
		{words: []string{"git/run.sh", "git/script.py"}},
		{words: []string{"git/none"}, wrong: "neither Python nor Go tests"},
		{words: []string{"git/tests", "git/pkg"}, wrong: "name the --framework"},
		{words: []string{"git/tests", "git/run.sh"}, wrong: "is a program"},
		{words: []string{"git/tests", "plain/tests"}, wrong: "not inside"},
		{words: []string{"git/tests"}, flags: testFlags{bundle: "plain"}, wrong: "not inside --bundle"},
		{words: []string{"git/tests"}, flags: testFlags{framework: "nose"}, wrong: "--framework nose"},
		{words: []string{"git/run.sh"}, flags: testFlags{command: "tool {files}"}, wrong: "{junit}"},
		{words: []string{"git/missing.py"}, wrong: "there is no test file"},
	} {
		words := make([]string, len(c.words))
		for i, w := range c.words {
			words[i] = filepath.Join(dir, w)
			if strings.HasSuffix(w, "/...") {
				words[i] = filepath.Join(dir, strings.TrimSuffix(w, "/...")) + "/..."
			}
		}
		flags := c.flags
		if flags.bundle != "" {
			flags.bundle = filepath.Join(dir, flags.bundle)
		}
		p, err := flags.plan(words, nil)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) || exitCode(err) != exitUsage {
				t.Errorf("%v: error %v, want %q", c.words, err, c.wrong)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.words, err)
			continue
		}
		if p.programs != (c.framework == "") || p.framework != c.framework || c.framework != "" && p.root != filepath.Join(dir, c.root) || !slices.Equal(p.paths, c.paths) || !slices.Equal(p.choose, c.choose) {
			t.Errorf("%v: %+v, want %s in %s with %v %v", c.words, p, c.framework, c.root, c.paths, c.choose)
		}
	}
}

func TestCommandLinesAreSplitIntoWords(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`tool --junit {junit} {files}`: `["tool" "--junit" "{junit}" "{files}"]`,
		` a  'b c' "d 'e" f\ g `:       `["a" "b c" "d 'e" "f g"]`,
		`a '' b`:                       `["a" "" "b"]`,
		`"a\"b" 'c\d'`:                 `["a\"b" "c\\d"]`,
		``:                             "",
		`a 'b`:                         "",
		`a \`:                          "",
	} {
		got, err := splitWords(line)
		if text := fmt.Sprintf("%q", got); err == nil && text != want || (err != nil) != (want == "") {
			t.Errorf("%s: %s, %v, want %s", line, text, err, want)
		}
	}
}

package artifacts_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/exec/artifacts"
)

func match(t *testing.T, files []string, patterns ...string) []string {
	t.Helper()
	fsys := fstest.MapFS{}
	for _, f := range files {
		fsys[f] = &fstest.MapFile{}
	}
	p, err := artifacts.Parse(patterns)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Match(t.Context(), fsys)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPatternsPickFiles(t *testing.T) {
	t.Parallel()
	tree := []string{"a.xml", "b.txt", "out/c.xml", "out/deep/d.xml", "out/deep/e.log", "src/out/f.bin"}
	for _, c := range []struct {
		patterns, want string
	}{
		{"*.xml", "a.xml out/c.xml out/deep/d.xml"},
		{"/*.xml", "a.xml"},
		{"./a.xml", "a.xml"},
		{"out", "out/c.xml out/deep/d.xml out/deep/e.log src/out/f.bin"},
		{"/out/", "out/c.xml out/deep/d.xml out/deep/e.log"},
		{"out/*.xml", "out/c.xml"},
		{"out/**/*.xml", "out/c.xml out/deep/d.xml"},
		{"out/**", "out/c.xml out/deep/d.xml out/deep/e.log"},
		{"/out !*.log", "out/c.xml out/deep/d.xml"},
		{"/out !deep/ e.log", "out/c.xml out/deep/e.log"},
		{"**", strings.Join(tree, " ")},
		{".", strings.Join(tree, " ")},
		{"*.{log,txt}", "b.txt out/deep/e.log"},
		{"a.xml/", ""},
		{"nothing", ""},
		{"", strings.Join(tree, " ")},
	} {
		got := match(t, tree, strings.Split(c.patterns, " ")...)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s picks %v, want %s", c.patterns, got, c.want)
		}
	}
	if got := match(t, tree); got != nil {
		t.Errorf("no pattern picks %v", got)
	}
	if _, err := artifacts.Parse([]string{"a[b"}); labmesh.ReasonOf(err) != labmesh.Invalid {
		t.Errorf("a pattern without its end: %v", err)
	}
}

func TestLinksAreNotFollowedAndPipesNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/", filepath.Join(dir, "all")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "shut"), 0); err != nil {
		t.Fatal(err)
	}
	p, err := artifacts.Parse([]string{"**"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Match(t.Context(), os.DirFS(dir))
	if err != nil || !slices.Equal(got, []string{"all"}) {
		t.Errorf("picked %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Match(ctx, os.DirFS(dir)); err == nil {
		t.Error("it went on although nobody waits")
	}
}

// What a pattern picks is there, once, and is a file.
func TestPicksOnlyWhatIsThere(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[ab]{1,2}(\.x)?`)
	rapid.Check(t, func(r *rapid.T) {
		fsys := fstest.MapFS{}
		for range rapid.IntRange(0, 8).Draw(r, "files") {
			name := strings.Join(rapid.SliceOfN(word, 1, 3).Draw(r, "path"), "/")
			clash := false
			for have := range fsys {
				clash = clash || strings.HasPrefix(have, name+"/") || strings.HasPrefix(name, have+"/")
			}
			if !clash {
				fsys[name] = &fstest.MapFile{}
			}
		}
		patterns := rapid.SliceOfN(rapid.StringMatching(`!?/?(a|b|\*|\*\*|\?|a\.x)(/(a|b|\*|\*\*))?/?`), 0, 4).Draw(r, "patterns")
		p, err := artifacts.Parse(patterns)
		if err != nil {
			r.Fatal(err)
		}
		got, err := p.Match(context.Background(), fsys)
		if err != nil {
			r.Fatal(err)
		}
		for i, name := range got {
			if fsys[name] == nil || i > 0 && got[i-1] >= name && !strings.Contains(name, "/") && !strings.Contains(got[i-1], "/") {
				r.Fatalf("%v of %v by %q", got, fsys, patterns)
			}
		}
		all, _ := artifacts.Parse(append(slices.Clone(patterns), "**"))
		if got, err := all.Match(context.Background(), fsys); err != nil || len(got) != len(fsys) {
			r.Fatalf("all is %v of %v, %v", got, fsys, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"*.xml", "!a/**", "[", "{a,b}", "./", "/", "\x00"} {
		f.Add(p)
	}
	fsys := fstest.MapFS{"a/b/c.xml": {}, "d": {}}
	f.Fuzz(func(t *testing.T, pattern string) {
		p, err := artifacts.Parse([]string{pattern})
		if err != nil {
			return
		}
		if got, err := p.Match(t.Context(), fsys); err != nil || len(got) > len(fsys) {
			t.Fatal(got, err)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	fsys := fstest.MapFS{}
	for i := range 2000 {
		fsys[fmt.Sprintf("d%d/f%d.txt", i%50, i)] = &fstest.MapFile{}
	}
	p, err := artifacts.Parse([]string{"*.xml", "out/**", "!tmp/"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.Match(b.Context(), fsys); err != nil {
			b.Fatal(err)
		}
	}
}

package pack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/content"
	"labmesh/content/pack"
)

// chunks are a store in memory.
type chunks struct {
	mu sync.Mutex
	m  map[content.Hash][]byte
}

func (c *chunks) put(_ context.Context, k content.Chunk, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[content.Hash][]byte{}
	}
	c.m[k.Hash] = bytes.Clone(data)
	return nil
}

func (c *chunks) get(m *content.Manifest) pack.Get {
	return func(_ context.Context, i int, _ []byte) ([]byte, error) {
		data, ok := c.m[m.Chunks[i].Hash]
		if !ok {
			return nil, errors.New("it is not there")
		}
		return data, nil
	}
}

func (c *chunks) bytes() (n int) {
	for _, d := range c.m {
		n += len(d)
	}
	return n
}

// write makes files below dir: a name with a slash at its end is a directory, a
// content "-> x" a link, "#!…" an executable.
func write(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		full := filepath.Join(dir, p)
		var err error
		if strings.HasSuffix(p, "/") {
			err = os.MkdirAll(full, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		} else if to, ok := strings.CutPrefix(files[p], "-> "); ok {
			err = os.Symlink(to, full)
		} else if strings.HasPrefix(files[p], "#!") {
			err = os.WriteFile(full, []byte(files[p]), 0o755)
		} else {
			err = os.WriteFile(full, []byte(files[p]), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read is what is below dir, as write takes it.
func read(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.IsDir():
			if list, _ := os.ReadDir(p); len(list) == 0 {
				out[rel+"/"] = ""
			}
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out[rel] = "-> " + to
			return err
		default:
			data, err := os.ReadFile(p)
			out[rel] = string(data)
			if info, _ := d.Info(); (info.Mode()&0o100 != 0) != bytes.HasPrefix(data, []byte("#!")) {
				t.Errorf("%s has mode %s", rel, info.Mode())
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dir(t testing.TB, c *chunks, root string, opts pack.Options) *content.Manifest {
	t.Helper()
	m, err := pack.Dir(t.Context(), root, opts, c.put)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func paths(t testing.TB, c *chunks, m *content.Manifest) (out []string) {
	t.Helper()
	files, err := pack.Index(t.Context(), m, c.get(m))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out
}

func TestATreeComesBackAsItWas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfN(rapid.StringMatching(`[a-c]{1,2}(/[a-c. é]{1,3}z){0,3}`), 0, 20).Draw(rt, "names")
		files := map[string]string{}
		for _, n := range names {
			clash := false
			for have := range files {
				h, m := strings.TrimSuffix(have, "/")+"/", n+"/"
				clash = clash || strings.HasPrefix(h, m) || strings.HasPrefix(m, h)
			}
			if clash {
				continue
			}
			switch rapid.IntRange(0, 9).Draw(rt, "kind") {
			case 0:
				files[n] = "-> " + n[strings.LastIndex(n, "/")+1:] + "-gone"
			case 1:
				files[n+"/"] = ""
			case 2:
				files[n] = "#!" + n
			case 3:
				files[n] = ""
			case 4:
				files[n] = string(make([]byte, rapid.IntRange(0, 3<<20).Draw(rt, "zeros")))
			default:
				data := make([]byte, rapid.IntRange(0, 100_000).Draw(rt, "bytes"))
				for i := range data {
					data[i] = byte(i*i>>3) | 1
				}
				files[n] = string(data)
			}
		}
		tmp, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		var c chunks
		m := dir(t, &c, write(t, filepath.Join(tmp, "in")+"/", withTop(files)), pack.Options{})
		again, err := content.DecodeManifest(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := pack.Unpack(t.Context(), again, filepath.Join(tmp, "out"), content.Limits{}, c.get(m)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(tmp, "out")); !maps.Equal(got, withTop(files)) {
			t.Fatalf("%v came back as %v", files, got)
		}
		if m2 := dir(t, &c, filepath.Join(tmp, "out"), pack.Options{}); m2.ID() != m.ID() {
			t.Fatal("the copy has another id")
		}
	})
}

func withTop(files map[string]string) map[string]string {
	out := maps.Clone(files)
	out["top"] = "there is always one"
	return out
}

// The id must be the same on every machine and in every version.
func TestTheSameTreeHasTheSameID(t *testing.T) {
	t.Parallel()
	big := make([]byte, 5<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(big)
	files := map[string]string{"a/b": "b", "a/c.sh": "#!/bin/sh\n", "a.txt": "text", "big": string(big), "link": "-> a/b", "none/": ""}
	one, two := write(t, t.TempDir(), files), write(t, t.TempDir(), files)
	if err := os.Chtimes(filepath.Join(two, "big"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(two, "a.txt"), 0o460); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(two, "a/c.sh"), 0o4711); err != nil {
		t.Fatal(err)
	}
	var c chunks
	m := dir(t, &c, one, pack.Options{})
	if other := dir(t, &c, two, pack.Options{}); other.ID() != m.ID() {
		t.Errorf("%s and %s", m.ID(), other.ID())
	}
	if want := "ca2e60265d92cd7b1624b1bfb86ca8f4908a88f932687d21ae2e85c7d5dd3416"; m.ID() != want {
		t.Errorf("the id was %s and is %s: does the library cut elsewhere now?", want, m.ID())
	}
}

func TestWhatTreesShareIsThereOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	big := make([]byte, 20<<20)
	r := rand.NewChaCha8([32]byte{2})
	_, _ = r.Read(big)
	write(t, root, map[string]string{"big": string(big), "small": "x"})
	var c chunks
	dir(t, &c, root, pack.Options{})
	before := c.bytes()
	write(t, root, map[string]string{"a-new-one": "hello", "big": string(big[:9<<20]) + "inserted" + string(big[9<<20:])})
	dir(t, &c, root, pack.Options{})
	if more := c.bytes() - before; more > 5<<20 {
		t.Errorf("a few bytes more cost %d", more)
	}
	var small chunks
	if m := dir(t, &small, write(t, t.TempDir(), map[string]string{"a": "1", "b": "2", "c/d": "3"}), pack.Options{}); len(m.Chunks) != 1 || small.bytes() > 100 {
		t.Errorf("three small files are %d chunks of %d bytes", len(m.Chunks), small.bytes())
	}
}

func TestIgnoredAsGitIgnores(t *testing.T) {
	t.Parallel()
	root := write(t, t.TempDir(), map[string]string{
		".gitignore": "*.o\n/build/\n!keep.o\n# comment\ndeep/**/x\n", "sub/.gitignore": "!b.o\nlocal\n", ".labmeshignore": "secret*\n!sub/local\n",
		"a.c": "1", "a.o": "2", "keep.o": "3", "build/out": "4", "sub/b.o": "5", "sub/c.o": "6", "sub/local": "7", "secret.pem": "8", "sub/secrets/x": "9",
		"sub/build/in": "10", "deep/1/2/x": "11", "deep/y": "12", "forced.o": "13", "build/forced": "14", "nested/.git/config": "15", "nested/f": "16",
	})
	var c chunks
	want := []string{".gitignore", ".labmeshignore", "a.c", "deep/y", "keep.o", "nested/f", "sub/.gitignore", "sub/b.o", "sub/build/in", "sub/local"}
	if got := paths(t, &c, dir(t, &c, root, pack.Options{})); !slices.Equal(got, want) {
		t.Errorf("without git: %q", got)
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", root, "-c", "safe.directory=*"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	git("init", "-q")
	if got := paths(t, &c, dir(t, &c, root, pack.Options{})); !slices.Equal(got, want) {
		t.Errorf("in a git work tree: %q", got)
	}
	git("add", "-f", "forced.o", "build/forced")
	want = append(want, "forced.o", "build/forced")
	slices.SortFunc(want, content.ComparePaths)
	if got := paths(t, &c, dir(t, &c, root, pack.Options{})); !slices.Equal(got, want) {
		t.Errorf("with tracked files that are ignored: %q", got)
	}
	if got := paths(t, &c, dir(t, &c, filepath.Join(root, "sub"), pack.Options{})); !slices.Equal(got, []string{".gitignore", "b.o", "build/in", "local"}) {
		t.Errorf("a directory of a work tree: %q", got)
	}
	if got := paths(t, &c, dir(t, &c, root, pack.Options{Paths: []string{"sub", "a.o", "./build"}})); !slices.Equal(got, []string{"a.o", "build/forced", "build/out", "sub/.gitignore", "sub/b.o", "sub/build/in", "sub/local"}) {
		t.Errorf("some paths: %q", got)
	}
	if got := paths(t, &c, dir(t, &c, root, pack.Options{NoIgnore: true})); len(got) != 18 {
		t.Errorf("all: %q", got)
	}
}

func TestWhatIsNoTreeIsRefusedByName(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(dir string) error{
		"fifo":     func(d string) error { return syscall.Mkfifo(filepath.Join(d, "odd"), 0o644) },
		"absolute": func(d string) error { return os.Symlink("/etc/passwd", filepath.Join(d, "odd")) },
		"up":       func(d string) error { return os.Symlink("../x", filepath.Join(d, "odd")) },
		"loop":     func(d string) error { return os.Symlink("odd", filepath.Join(d, "odd")) },
		"socket": func(d string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d, "odd")})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
		"device": func(d string) error {
			if os.Getuid() != 0 {
				return os.Symlink("/dev/null", filepath.Join(d, "odd"))
			}
			return syscall.Mknod(filepath.Join(d, "odd"), syscall.S_IFCHR|0o644, 1<<8|3)
		},
	} {
		root := write(t, t.TempDir(), map[string]string{"good": "1"})
		if err := make(root); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var c chunks
		if _, err := pack.Dir(t.Context(), root, pack.Options{}, c.put); labmesh.ReasonOf(err) != labmesh.Invalid || !strings.Contains(err.Error(), `"odd"`) {
			t.Errorf("%s: %v", name, err)
		}
		var refused []string
		m := dir(t, &c, root, pack.Options{Refused: func(p string, _ error) { refused = append(refused, p) }})
		if got := paths(t, &c, m); !slices.Equal(got, []string{"good"}) || !slices.Equal(refused, []string{"odd"}) {
			t.Errorf("%s: packed %q, refused %q", name, got, refused)
		}
		write(t, root, map[string]string{".labmeshignore": "odd\n"})
		dir(t, &c, root, pack.Options{})
	}
	root := write(t, t.TempDir(), map[string]string{"good": "1"})
	var c chunks
	var gone []string
	m := dir(t, &c, root, pack.Options{Paths: []string{"none", "good"}, Refused: func(p string, _ error) { gone = append(gone, p) }})
	if got := paths(t, &c, m); !slices.Equal(got, []string{"good"}) || !slices.Equal(gone, []string{"none"}) {
		t.Errorf("packed %q, refused %q", got, gone)
	}
	for _, p := range []string{"../x", "/etc", "none", ".git/config"} {
		var c chunks
		if _, err := pack.Dir(t.Context(), root, pack.Options{Paths: []string{p}}, c.put); labmesh.ReasonOf(err) == labmesh.Internal || err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	root := write(t, t.TempDir(), map[string]string{"a": "1234", "b": "1234", "c": "1234"})
	var c chunks
	for _, l := range []content.Limits{{Files: 2}, {Bytes: 11}} {
		if _, err := pack.Dir(t.Context(), root, pack.Options{Limits: l}, c.put); labmesh.ReasonOf(err) != labmesh.TooLarge {
			t.Errorf("pack with %+v: %v", l, err)
		}
	}
	m := dir(t, &c, root, pack.Options{Limits: content.Limits{Files: 3, Bytes: 12}})
	for _, l := range []content.Limits{{Files: 2}, {Bytes: 11}} {
		to := filepath.Join(t.TempDir(), "x")
		if err := pack.Unpack(t.Context(), m, to, l, c.get(m)); labmesh.ReasonOf(err) != labmesh.TooLarge {
			t.Errorf("unpack with %+v: %v", l, err)
		}
		if _, err := os.Stat(to); err == nil {
			t.Error("something was written")
		}
	}
}

func TestFurtherTrees(t *testing.T) {
	t.Parallel()
	root := write(t, t.TempDir(), map[string]string{"out/r.csv": "1", "x": "2", ".labmesh/forged": "3", ".gitignore": "*.csv"})
	keep := write(t, t.TempDir(), map[string]string{"junit.xml": "4"})
	var c chunks
	m := dir(t, &c, root, pack.Options{NoIgnore: true, Also: map[string]string{".labmesh": keep, "none": filepath.Join(keep, "none")}, Paths: []string{"out/r.csv", ".labmesh"}})
	if got := paths(t, &c, m); !slices.Equal(got, []string{".labmesh/junit.xml", "out/r.csv"}) {
		t.Errorf("%q", got)
	}
}

// An enemy makes what manifest he likes.
func TestUnpackingWritesNothingOutside(t *testing.T) {
	t.Parallel()
	link := func(p, to string) content.File { return content.File{Path: p, Kind: content.Link, Target: to} }
	file := func(p string) content.File { return content.File{Path: p, Kind: content.Plain, Size: 4} }
	for name, files := range map[string][]content.File{
		"up":            {file("../evil")},
		"absolute":      {file("/tmp/evil")},
		"through link":  {link("a", ".."), file("a/evil")},
		"link in chain": {link("b", "c/evil"), link("c", "..")},
		"device":        {{Path: "null", Kind: 'c'}},
		"twice":         {file("a"), file("a")},
	} {
		base := t.TempDir()
		c, m := enemy(files, []byte("evil"))
		if err := pack.Unpack(t.Context(), m, filepath.Join(base, "in"), content.Limits{}, c.get(m)); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if list, _ := os.ReadDir(base); len(list) > 0 {
			t.Errorf("%s: there is %v", name, list)
		}
	}
	// A directory that somebody else can write to: a link waits where a file is to be.
	base := write(t, t.TempDir(), map[string]string{"in/a": "-> ../outside", "in/d": "-> ..", "victim": "safe"})
	for _, f := range []content.File{file("a"), file("d/victim"), file("d/new")} {
		c, m := enemy([]content.File{f}, []byte("evil"))
		if err := pack.Unpack(t.Context(), m, filepath.Join(base, "in"), content.Limits{}, c.get(m)); err == nil {
			t.Errorf("%s was written through a link", f.Path)
		}
	}
	if got := read(t, base); len(got) != 3 || got["victim"] != "safe" {
		t.Errorf("there is %v", got)
	}
}

// A manifest of a few bytes may not become a disk full of zeros unseen.
func TestABombIsCounted(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, content.ChunkBytesMax)
	c := &chunks{}
	z := content.Chunk{Hash: content.Sum(zeros), Size: content.ChunkBytesMax}
	_ = c.put(t.Context(), z, zeros)
	index := content.EncodeIndex([]content.File{{Path: "bomb", Kind: content.Plain, Size: 20000 * content.ChunkBytesMax}})
	i := content.Chunk{Hash: content.Sum(index), Size: uint32(len(index))}
	_ = c.put(t.Context(), i, index)
	m := &content.Manifest{Files: 1, Bytes: 20000 * content.ChunkBytesMax, Index: int64(len(index)), Chunks: append(slices.Repeat([]content.Chunk{z}, 20000), i)}
	if _, err := content.DecodeManifest(m.Encode()); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "x")
	if err := pack.Unpack(t.Context(), m, to, content.Limits{}, c.get(m)); labmesh.ReasonOf(err) != labmesh.TooLarge {
		t.Error(err)
	}
	// One that declares little and has more.
	m.Bytes = 100
	m.Chunks = []content.Chunk{z, i}
	if err := pack.Unpack(t.Context(), m, to, content.Limits{}, c.get(m)); labmesh.ReasonOf(err) != labmesh.Invalid {
		t.Error(err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("something was written")
	}
}

// enemy makes a tree of files, each with the same bytes, that no packing makes.
func enemy(files []content.File, each []byte) (*chunks, *content.Manifest) {
	m := &content.Manifest{Files: len(files)}
	c := &chunks{}
	add := func(data []byte) {
		k := content.Chunk{Hash: content.Sum(data), Size: uint32(len(data))}
		_ = c.put(context.Background(), k, data)
		m.Chunks = append(m.Chunks, k)
	}
	for _, f := range files {
		if f.Size > 0 {
			add(each)
			m.Bytes += f.Size
		}
	}
	index := content.EncodeIndex(files)
	m.Index = int64(len(index))
	add(index)
	return c, m
}

func TestAChunkThatCannotBeReadEndsIt(t *testing.T) {
	t.Parallel()
	big := make([]byte, 20<<20)
	r := rand.NewChaCha8([32]byte{3})
	_, _ = r.Read(big)
	var c chunks
	m := dir(t, &c, write(t, t.TempDir(), map[string]string{"big": string(big)}), pack.Options{})
	boom := errors.New("boom")
	get := func(ctx context.Context, i int, buf []byte) ([]byte, error) {
		if i == len(m.Chunks)/2 {
			return nil, boom
		}
		return c.get(m)(ctx, i, buf)
	}
	if err := pack.Unpack(t.Context(), m, t.TempDir(), content.Limits{}, get); !errors.Is(err, boom) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pack.Dir(ctx, t.TempDir(), pack.Options{}, c.put); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestManyFiles(t *testing.T) {
	t.Parallel()
	root, n := t.TempDir(), 5_000
	for d := range n / 500 {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprint(d)), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			if err := os.WriteFile(filepath.Join(root, fmt.Sprint(d), fmt.Sprint("file-", i)), []byte{byte(i), byte(d)}, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var c chunks
	began := time.Now()
	m := dir(t, &c, root, pack.Options{})
	packed := time.Since(began)
	began = time.Now()
	to := t.TempDir()
	if err := pack.Unpack(t.Context(), m, to, content.Limits{}, c.get(m)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files: %d bytes in %d chunks; packed in %s, unpacked in %s", n, m.Size(), len(m.Chunks), packed, time.Since(began))
	if m.Files != n {
		t.Errorf("%d files", m.Files)
	}
}

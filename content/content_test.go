package content_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/content"
)

// tree makes a manifest and an index of files, in the order they are given.
func tree(files ...content.File) (*content.Manifest, []byte) {
	index := content.EncodeIndex(files)
	m := &content.Manifest{Files: len(files), Index: int64(len(index))}
	for _, f := range files {
		m.Bytes += f.Size
	}
	for left := m.Size(); left > 0; left -= content.ChunkBytesMax {
		m.Chunks = append(m.Chunks, content.Chunk{Size: uint32(min(left, content.ChunkBytesMax))})
	}
	return m, index
}

func TestIDs(t *testing.T) {
	t.Parallel()
	h := content.Sum([]byte("x"))
	if got, err := content.ParseID(h.String()); err != nil || got != h {
		t.Errorf("%s, %v", got, err)
	}
	for _, id := range []string{"", "abc", strings.ToUpper(h.String()), h.String() + "0", strings.Repeat("g", 64), "../" + h.String()[3:], strings.Repeat("x", 1000)} {
		if _, err := content.ParseID(id); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%.80q: %v", id, err)
		}
	}
}

// The format must never change under old ids.
func TestTheFormatStays(t *testing.T) {
	t.Parallel()
	m, index := tree(
		content.File{Path: "a/b", Kind: content.Plain, Size: 3},
		content.File{Path: "a/c", Kind: content.Executable, Size: 300},
		content.File{Path: "a.link", Kind: content.Link, Target: "a/c"},
		content.File{Path: "empty", Kind: content.EmptyDir},
	)
	if want := "f\x00\x03a/b\x03x\x02\x01c\xac\x02l\x01\x05.link\x03a/cd\x00\x05empty"; string(index) != want {
		t.Errorf("index %q", index)
	}
	if got, want := m.ID(), "78e4db86bcff289d9d5b2e63e78b81d89a956e115741d64a408e4901f6c92350"; got != want {
		t.Errorf("id %s", got)
	}
}

func TestTreesThatAreRefused(t *testing.T) {
	t.Parallel()
	file := func(p string) content.File { return content.File{Path: p, Kind: content.Plain} }
	link := func(p, to string) content.File { return content.File{Path: p, Kind: content.Link, Target: to} }
	deep := strings.Repeat("x/", 1500)
	for name, files := range map[string][]content.File{
		"dot dot":                    {file("../x")},
		"dot dot inside":             {file("a/../../x")},
		"absolute":                   {file("/etc/passwd")},
		"dot":                        {file("./x")},
		"double slash":               {file("a//b")},
		"slash at the end":           {file("a/")},
		"NUL":                        {file("a\x00b")},
		"empty":                      {file("")},
		"long name":                  {file(strings.Repeat("n", 256))},
		"long path":                  {file(deep + deep)},
		"twice":                      {file("a"), file("a")},
		"out of order":               {file("b"), file("a")},
		"below a file":               {file("a"), file("a/b")},
		"below a link":               {link("a", "b"), file("a/b")},
		"below an empty directory":   {{Path: "a", Kind: content.EmptyDir}, file("a/b")},
		"link up":                    {link("a", "..")},
		"link up from below":         {link("a/b", "../../x")},
		"absolute link":              {link("a", "/etc/passwd")},
		"link without a target":      {link("a", "")},
		"link to itself":             {link("a", "a")},
		"links in a circle":          {link("a", "b"), link("b", "a")},
		"link out through another":   {link("d/root", ".."), link("x", "d/root/../y")},
		"link to a link that leaves": {link("a", "b/c"), link("b", "..")},
		"device":                     {{Path: "a", Kind: 'c'}},
		"no kind":                    {{Path: "a"}},
	} {
		m, index := tree(files...)
		if _, err := content.DecodeIndex(m, index); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := []content.File{
		link("a", "d/x"), file("d/e/f"), link("d/e/up", ".."), link("d/root", ".."), file("d/x"), file("d.x"),
		link("gone", "not/here"), link("self", "."), link("through", "d/root/d/x"),
	}
	m, index := tree(good...)
	if _, err := content.DecodeIndex(m, index); err != nil {
		t.Errorf("a good tree: %v", err)
	}
}

func TestIndexThatLies(t *testing.T) {
	t.Parallel()
	m, index := tree(content.File{Path: "a", Kind: content.Plain, Size: 5}, content.File{Path: "b", Kind: content.Plain, Size: 7})
	for name, lie := range map[string]func(*content.Manifest){
		"fewer files": func(m *content.Manifest) { m.Files-- },
		"more files":  func(m *content.Manifest) { m.Files++ },
		"fewer bytes": func(m *content.Manifest) { m.Bytes-- },
		"more bytes":  func(m *content.Manifest) { m.Bytes++ },
		"other index": func(m *content.Manifest) { m.Index++ },
	} {
		wrong := *m
		lie(&wrong)
		if _, err := content.DecodeIndex(&wrong, index); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Paths that share all with the one before cost a few bytes each, and 4 KiB unfolded.
	long := strings.Repeat(strings.Repeat("n", 250)+"/", 16)
	var bomb []content.File
	for i := range 140_000 {
		bomb = append(bomb, content.File{Path: long + string([]byte{'a' + byte(i/17576%26), 'a' + byte(i/676%26), 'a' + byte(i/26%26), 'a' + byte(i%26)}), Kind: content.EmptyDir})
	}
	m, index = tree(bomb...)
	if _, err := content.DecodeIndex(m, index); err == nil || len(index) > 2<<20 {
		t.Errorf("a bomb of paths of %d bytes: %v", len(index), err)
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	m, _ := tree(content.File{Path: "a", Kind: content.Plain, Size: 5 << 20})
	good := m.Encode()
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"other":         []byte("hello"),
		"cut off":       good[:len(good)-1],
		"one more":      append(slices.Clone(good), 0),
		"too many":      append(slices.Clone(good), make([]byte, content.ManifestBytesMax)...),
		"other version": append([]byte("labmesh tree 9"), good[14:]...),
	} {
		if _, err := content.DecodeManifest(b); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for name, spoil := range map[string]func(*content.Manifest){
		"empty chunk":  func(m *content.Manifest) { m.Chunks[0].Size = 0 },
		"huge chunk":   func(m *content.Manifest) { m.Chunks[0].Size = content.ChunkBytesMax + 1 },
		"wrong sum":    func(m *content.Manifest) { m.Bytes++ },
		"negative":     func(m *content.Manifest) { m.Bytes = -m.Index - 1 },
		"huge index":   func(m *content.Manifest) { m.Index = content.IndexBytesMax + 1 },
		"overflow":     func(m *content.Manifest) { m.Bytes, m.Index = -1, 1 },
		"absurd count": func(m *content.Manifest) { m.Files = content.FilesLimit + 1 },
	} {
		wrong := *m
		wrong.Chunks = slices.Clone(m.Chunks)
		spoil(&wrong)
		if _, err := content.DecodeManifest(wrong.Encode()); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPathsOfADirectoryComeTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		paths := rapid.SliceOfDistinct(rapid.StringMatching(`[ab.-]{1,2}(/[ab.-]{1,2}){0,3}`), rapid.ID[string]).Draw(t, "paths")
		slices.SortFunc(paths, content.ComparePaths)
		left := map[string]bool{} // directories that the order has come out of
		var at []string
		for _, p := range paths {
			names := strings.Split(p, "/")
			dirs := names[:len(names)-1]
			for i := len(at); i > 0; i-- {
				if d := strings.Join(at[:i], "/"); !strings.HasPrefix(p, d+"/") {
					left[d] = true
				}
			}
			for i := range dirs {
				if d := strings.Join(dirs[:i+1], "/"); left[d] {
					t.Fatalf("%q comes back to %q: %q", p, d, paths)
				}
			}
			at = dirs
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	m, _ := tree(content.File{Path: "a", Kind: content.Plain, Size: 5 << 20})
	f.Add(m.Encode())
	f.Add((&content.Manifest{}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := content.DecodeManifest(b)
		if err == nil && !bytes.Equal(m.Encode(), b) {
			t.Errorf("%x was read as %+v, which is %x", b, m, m.Encode())
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	m, index := tree(content.File{Path: "a/b", Kind: content.Plain, Size: 3}, content.File{Path: "a/c", Kind: content.Link, Target: "../a/b"},
		content.File{Path: "x", Kind: content.EmptyDir})
	f.Add(m.Files, m.Bytes, index)
	f.Fuzz(func(t *testing.T, n int, size int64, index []byte) {
		if n < 0 || n > content.FilesLimit || size < 0 {
			return // DecodeManifest refuses these
		}
		files, err := content.DecodeIndex(&content.Manifest{Files: n, Bytes: size, Index: int64(len(index))}, index)
		if err != nil {
			return
		}
		if again := content.EncodeIndex(files); !bytes.Equal(again, index) {
			t.Errorf("%x was read as %+v, which is %x", index, files, again)
		}
		for _, f := range files {
			if got, ok := content.Find(files, f.Path); !ok || !reflect.DeepEqual(got, f) {
				t.Errorf("%q is not found", f.Path)
			}
		}
	})
}

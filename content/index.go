package content

import (
	"encoding/binary"
	"io/fs"
	"slices"
	"strings"
)

// Kind is what an entry of a tree is.
type Kind byte

// The kinds. There are no others: a tree holds no devices, no owners, no times
// and no modes beyond these.
const (
	Plain      Kind = 'f' // a file, mode 0644
	Executable Kind = 'x' // a file, mode 0755
	Link       Kind = 'l' // a symbolic link that stays inside the tree
	EmptyDir   Kind = 'd' // a directory without entries; all others follow from the paths
)

// File is one entry of a tree.
type File struct {
	Path   string // with slashes, relative to the tree
	Kind   Kind
	Size   int64  // bytes; 0 for what is no file
	Target string // of a link
	Offset int64  // of its bytes in the stream
}

// Regular says whether the entry has bytes.
func (f File) Regular() bool { return f.Kind == Plain || f.Kind == Executable }

// Mode is the file mode it is given when it is unpacked.
func (f File) Mode() fs.FileMode {
	switch f.Kind {
	case Executable:
		return 0o755
	case Link:
		return fs.ModeSymlink | 0o777
	case EmptyDir:
		return fs.ModeDir | 0o755
	}
	return 0o644
}

// ComparePaths orders paths name by name, so that what is in a directory comes
// together, and before a name that only begins with the directory's.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		switch {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		case x < y:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}

// EncodeIndex makes the canonical bytes of a list of entries, which must be in
// the order of [ComparePaths]. Each path is written as what it shares with the
// one before and the rest.
func EncodeIndex(files []File) []byte {
	var b []byte
	before := ""
	for _, f := range files {
		n := shared(before, f.Path)
		b = append(b, byte(f.Kind))
		b = binary.AppendUvarint(b, uint64(n))
		b = binary.AppendUvarint(b, uint64(len(f.Path)-n))
		b = append(b, f.Path[n:]...)
		switch f.Kind {
		case Link:
			b = binary.AppendUvarint(b, uint64(len(f.Target)))
			b = append(b, f.Target...)
		case Plain, Executable:
			b = binary.AppendUvarint(b, uint64(f.Size))
		}
		before = f.Path
	}
	return b
}

func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// DecodeIndex reads the index of the tree that m describes, and checks the
// whole tree: its order, so that no path comes twice, its paths, that nothing
// lies below what is no directory, that its links stay inside, and that count
// and bytes are those of the manifest. What it returns is safe to unpack.
func DecodeIndex(m *Manifest, b []byte) ([]File, error) {
	if int64(len(b)) != m.Index {
		return nil, bad("index: %d bytes, and the manifest says %d", len(b), m.Index)
	}
	// The smallest entry has four bytes: a count beyond that is a lie.
	files := make([]File, 0, min(m.Files, len(b)/4+1))
	r := reader{rest: b}
	var offset int64
	text := 0
	before := ""
	for len(r.rest) > 0 {
		if len(files) == m.Files {
			return nil, bad("index: more than the %d entries that the manifest says", m.Files)
		}
		f := r.file(before)
		if r.bad {
			return nil, bad("index: entry %d is damaged", len(files))
		}
		if len(files) > 0 && ComparePaths(before, f.Path) >= 0 {
			return nil, bad("index: %q is out of order, or there twice", f.Path)
		}
		if text += len(f.Path) + len(f.Target); text > TextBytesMax {
			return nil, bad("index: the paths have more than %d bytes", TextBytesMax)
		}
		if f.Size < 0 || f.Size > m.Bytes-offset {
			return nil, bad("index: %q is larger than the whole tree", f.Path)
		}
		f.Offset = offset
		offset += f.Size
		files = append(files, f)
		before = f.Path
	}
	if len(files) != m.Files || offset != m.Bytes {
		return nil, bad("index: %d entries of %d bytes, and the manifest says %d of %d", len(files), offset, m.Files, m.Bytes)
	}
	return files, CheckTree(files)
}

// reader reads an index. After the first fault it is bad, and reads nothing.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) file(before string) File {
	if len(r.rest) == 0 {
		r.bad = true
		return File{}
	}
	f := File{Kind: Kind(r.rest[0])}
	r.rest = r.rest[1:]
	n := r.number()
	if n > uint64(len(before)) {
		r.bad = true
		return File{}
	}
	rest := r.text(PathBytesMax)
	f.Path = before[:n] + rest
	if shared(before, f.Path) != int(n) {
		r.bad = true // it could be written in two ways
	}
	switch f.Kind {
	case Link:
		f.Target = r.text(PathBytesMax)
	case Plain, Executable:
		f.Size = int64(r.number())
	case EmptyDir:
	default:
		r.bad = true
	}
	return f
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 { // cut off, too large, or longer than it need be
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text(limit int) string {
	n := r.number()
	if r.bad || n > uint64(limit) || n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// Find is the entry at a path, by search: files are in order.
func Find(files []File, path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(files, path, func(f File, p string) int { return ComparePaths(f.Path, p) })
	if !ok {
		return File{}, false
	}
	return files[i], true
}

// CheckPath refuses a path that could name anything but an entry of a tree.
func CheckPath(path string) error {
	switch {
	case path == "":
		return bad("a path is empty")
	case len(path) > PathBytesMax:
		return bad("%.60q…: a path of %d bytes is more than %d", path, len(path), PathBytesMax)
	case strings.ContainsRune(path, 0):
		return bad("%q: a path has no NUL", path)
	case path[0] == '/':
		return bad("%q is absolute: a path is relative to the tree", path)
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return bad("%q: %q is no name", path, name)
		}
		if len(name) > NameBytesMax {
			return bad("%.60q…: a name of %d bytes is more than %d", path, len(name), NameBytesMax)
		}
	}
	return nil
}

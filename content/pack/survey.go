package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"labmesh"
	"labmesh/content"
)

// entry is something to pack, and where it is.
type entry struct {
	content.File
	root *os.Root
	name string // in root
}

// trees are what a survey found: the entries in order, and the open roots that
// they are read from.
type trees struct {
	entries []entry
	roots   []*os.Root
}

func (t *trees) close() {
	for _, r := range t.roots {
		_ = r.Close() // it was only read
	}
}

// refuse passes on that a path cannot be packed, or is the error that ends it.
func (t *trees) refuse(opts Options, p string, why error) error {
	if opts.Refused != nil {
		opts.Refused(p, why)
		return nil
	}
	return &labmesh.Error{Reason: labmesh.Invalid, Message: fmt.Sprintf("%q: %v", p, why)}
}

// survey finds what there is to pack. It reads no file but those that say what
// is ignored.
func survey(ctx context.Context, dir string, opts Options) (*trees, error) {
	t := &trees{}
	if err := t.survey(ctx, dir, opts); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *trees) survey(ctx context.Context, dir string, opts Options) error {
	main, err := t.walker(ctx, dir, "", opts)
	if err != nil {
		return err
	}
	if !opts.NoIgnore {
		if main.ignore, err = newIgnore(ctx, dir); err != nil {
			return err
		}
	}
	paths := opts.Paths
	if len(paths) == 0 {
		paths = []string{"."}
	}
	for _, p := range paths {
		if err := main.start(p); err != nil {
			return err
		}
	}
	for at, dir := range opts.Also {
		if err := content.CheckPath(at); err != nil {
			return err
		}
		w, err := t.walker(ctx, dir, at, opts)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = w.dir(".", false)
		}
		if err != nil {
			return err
		}
	}
	slices.SortFunc(t.entries, func(a, b entry) int { return content.ComparePaths(a.Path, b.Path) })
	t.entries = slices.CompactFunc(t.entries, func(a, b entry) bool { return a.Path == b.Path })
	return t.check(opts)
}

// check leaves out or refuses the links that lead out of the tree, and a tree
// that could not be unpacked.
func (t *trees) check(opts Options) error {
	links := map[string]string{}
	for _, e := range t.entries {
		if e.Kind == content.Link {
			links[e.Path] = e.Target
		}
	}
	for again := len(links) > 0; again; { // one that is left out can break others
		again = false
		for _, p := range slices.Sorted(maps.Keys(links)) {
			if err := content.CheckLink(links, p); err != nil {
				if opts.Refused == nil {
					return err
				}
				opts.Refused(p, err)
				delete(links, p)
				again = true
			}
		}
	}
	files := make([]content.File, 0, len(t.entries))
	kept := t.entries[:0]
	for _, e := range t.entries {
		if _, ok := links[e.Path]; e.Kind == content.Link && !ok {
			continue
		}
		kept = append(kept, e)
		files = append(files, e.File)
	}
	t.entries = kept
	return content.CheckTree(files)
}

// walker walks one directory.
type walker struct {
	*trees
	ctx    context.Context
	root   *os.Root
	at     string // where it is in the tree
	opts   Options
	ignore *ignore // nil: nothing is
}

func (t *trees) walker(ctx context.Context, dir, at string, opts Options) (*walker, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t.roots = append(t.roots, root)
	return &walker{trees: t, ctx: ctx, root: root, at: at, opts: opts}, nil
}

// start packs a path that was asked for.
func (w *walker) start(p string) error {
	name := path.Clean(filepath.ToSlash(p))
	if name != "." {
		if !filepath.IsLocal(name) {
			return labmesh.Refuse(labmesh.Invalid, "%q leads out of the directory", p)
		}
		if slices.Contains(strings.Split(name, "/"), ".git") {
			return labmesh.Refuse(labmesh.Invalid, "%q is in a .git, which is never packed", p)
		}
	}
	info, err := w.root.Lstat(name)
	if err != nil && w.opts.Refused != nil {
		w.opts.Refused(name, cause(err)) // it was there when somebody looked for it
		return nil
	}
	if err != nil {
		return labmesh.Refuse(labmesh.NotFound, "%q: %v", p, cause(err))
	}
	if w.ignore != nil {
		w.ignore.enter(w.root, name, info.IsDir())
	}
	if info.IsDir() {
		return w.dir(name, false)
	}
	return w.add(name, info.Mode())
}

// dir packs what is in a directory. With forced only what git tracks though it
// is ignored.
func (w *walker) dir(name string, forced bool) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	f, err := w.root.Open(name)
	if err != nil {
		return w.refuse(w.opts, w.path(name), cause(err))
	}
	list, err := f.ReadDir(-1)
	_ = f.Close() // it was only read
	if err != nil {
		return w.refuse(w.opts, w.path(name), cause(err))
	}
	if len(list) == 0 && name != "." && !forced {
		return w.append(entry{File: content.File{Path: w.path(name), Kind: content.EmptyDir}})
	}
	if w.ignore != nil {
		w.ignore.push(w.root, name, list)
		defer w.ignore.pop()
	}
	for _, d := range list {
		if d.Name() == ".git" {
			continue
		}
		child := path.Join(name, d.Name())
		verdict := take
		if w.ignore != nil {
			verdict = w.ignore.judge(child, d.IsDir(), forced)
		}
		switch {
		case verdict == leave:
		case d.IsDir():
			err = w.dir(child, verdict == onlyForced)
		default:
			err = w.add(child, d.Type())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add packs what is no directory.
func (w *walker) add(name string, mode fs.FileMode) error {
	e := entry{File: content.File{Path: w.path(name), Kind: content.Plain}, root: w.root, name: name}
	switch {
	case mode.IsRegular():
	case mode&fs.ModeSymlink != 0:
		target, err := w.root.Readlink(name)
		if err != nil {
			return w.refuse(w.opts, e.Path, cause(err))
		}
		e.Kind, e.Target = content.Link, target
	default:
		return w.refuse(w.opts, e.Path, special(mode))
	}
	return w.append(e)
}

func (w *walker) append(e entry) error {
	if w.at == "" && w.replaced(e.Path) {
		return nil
	}
	if err := content.CheckPath(e.Path); err != nil {
		return w.refuse(w.opts, e.Path, err)
	}
	if len(w.entries) >= w.opts.Files {
		return labmesh.Refuse(labmesh.TooLarge, "it has more than the %d files allowed, at %q: leave some out with .labmeshignore", w.opts.Files, e.Path)
	}
	w.entries = append(w.entries, e)
	return nil
}

// replaced says whether one of the further trees is at this path.
func (w *walker) replaced(p string) bool {
	for at := range w.opts.Also {
		if p == at || strings.HasPrefix(p, at+"/") || strings.HasPrefix(at, p+"/") {
			return true
		}
	}
	return false
}

func (w *walker) path(name string) string {
	if w.at == "" {
		return name
	}
	return path.Join(w.at, name)
}

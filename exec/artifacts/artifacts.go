// Package artifacts picks the files of a work directory that a task wants kept.
// It reads directories and never follows a link.
package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"labmesh"
)

// FilesMax bounds the files of one attempt that are kept.
const FilesMax = 100_000

// rule is one pattern, ready to be matched.
type rule struct {
	glob string // of a path from the root
	drop bool   // what it matches is not kept
	dirs bool   // it matches directories only
}

// Parse reads patterns as .gitignore has them, except that what matches is
// kept: a pattern without a slash matches a name at any depth, one with a
// slash a path from the root, ** any directories; what a directory holds is kept
// with it; of a pattern that begins with ! what matches is not kept. The last that
// matches decides.
func Parse(patterns []string) (Patterns, error) {
	var out Patterns
	for _, p := range patterns {
		r := rule{glob: p}
		r.glob, r.drop = strings.CutPrefix(r.glob, "!")
		r.glob, r.dirs = strings.CutSuffix(r.glob, "/")
		rooted := strings.Contains(r.glob, "/")
		for strings.HasPrefix(r.glob, "./") {
			r.glob = r.glob[2:]
		}
		r.glob = strings.TrimPrefix(r.glob, "/")
		if r.glob == "" || r.glob == "." {
			r.glob, rooted, r.dirs = "**", true, false // all of it
		}
		if !rooted {
			r.glob = "**/" + r.glob
		}
		if !doublestar.ValidatePattern(r.glob) {
			return nil, labmesh.RefuseField("artifacts", "artifacts: %.80q is no pattern: check its brackets and braces", p)
		}
		out = append(out, r)
	}
	return out, nil
}

// Patterns says which files are kept.
type Patterns []rule

// decides reports what the last pattern that matches name says: keep it, drop it, or nothing.
func (p Patterns) decides(name string, dir bool) (keep, any bool) {
	for i := len(p) - 1; i >= 0; i-- {
		r := &p[i]
		if r.dirs && !dir {
			continue
		}
		if ok, err := doublestar.Match(r.glob, name); ok && err == nil {
			return !r.drop, true
		}
	}
	return false, false
}

// Match lists the files and links below root that patterns pick, in the order of their
// paths. A directory that cannot be read is passed over. More than [FilesMax]
// are refused as TooLarge.
func (p Patterns) Match(ctx context.Context, root fs.FS) ([]string, error) {
	if len(p) == 0 {
		return nil, nil
	}
	var out []string
	kept := map[string]bool{} // directories, and whether what they hold is kept
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && name == ".":
			return err
		case err != nil:
			return nil //nolint:nilerr // what the program made unreadable is not kept
		case name == ".":
			return nil
		}
		keep, any := p.decides(name, d.IsDir())
		if !any {
			keep = kept[path.Dir(name)]
		}
		if d.IsDir() {
			kept[name] = keep
			return nil
		}
		if !keep || d.Type() != 0 && d.Type() != fs.ModeSymlink {
			return nil // sockets, pipes and devices are no files to keep
		}
		if out = append(out, name); len(out) > FilesMax {
			return labmesh.RefuseField("artifacts", "artifacts: more than %d files match: have the task pack them into one, or match fewer", FilesMax)
		}
		return nil
	})
	if err != nil && !errors.As(err, new(*labmesh.Error)) {
		err = fmt.Errorf("look for artifacts: %w", err)
	}
	return out, err
}

package pack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/git-pkgs/gitignore"
)

// The files that say what is left out. Ours have the last word over git's.
const (
	gitIgnore     = ".gitignore"
	labmeshIgnore = ".labmeshignore"
)

const (
	ignoreBytesMax = 1 << 20          // of such a file
	gitTimeout     = 20 * time.Second // for git to list what it tracks
	gitOutputMax   = 64 << 20
)

// verdict is what becomes of a path.
type verdict int

const (
	take       verdict = iota
	leave              // it is ignored
	onlyForced         // an ignored directory with files in it that git tracks nonetheless
)

// ignore judges paths as git does: the rules of a directory count for what is
// below it, those of the deepest go first, and of these the last that matches.
// Where .labmeshignore speaks of a path, .gitignore is not asked.
type ignore struct {
	base    []level         // what holds for the packed directory from above
	levels  []level         // base, and the rules down to where we are
	forced  map[string]bool // files that git tracks though they are ignored
	parents map[string]bool // the directories of these
}

// level is the rules of one directory.
type level struct {
	above string // from there to the packed directory, "" or with a slash at its end
	below string // from the packed directory to there, "" or with a slash at its end
	git   *gitignore.Matcher
	ours  *gitignore.Matcher
}

// newIgnore makes the rules that hold for dir itself: those of the git work
// tree that it is in. Files that git tracks are packed even where they are
// ignored; without git we cannot know of them.
func newIgnore(ctx context.Context, dir string) (*ignore, error) {
	ig := &ignore{}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	top := workTree(abs)
	if top == "" {
		return ig, nil
	}
	if data := readRules(os.OpenFile(filepath.Join(top, ".git", "info", "exclude"), rulesFlags, 0)); data != nil {
		ig.base = append(ig.base, level{above: above(top, abs), git: matcher(data)})
	}
	for at := top; at != abs; {
		rest, err := filepath.Rel(at, abs)
		if err != nil {
			return nil, err
		}
		l := level{
			above: above(at, abs),
			git:   matcher(readRules(os.OpenFile(filepath.Join(at, gitIgnore), rulesFlags, 0))),
			ours:  matcher(readRules(os.OpenFile(filepath.Join(at, labmeshIgnore), rulesFlags, 0))),
		}
		if l.git != nil || l.ours != nil {
			ig.base = append(ig.base, l)
		}
		first, _, _ := strings.Cut(rest, string(filepath.Separator))
		at = filepath.Join(at, first)
	}
	ig.askGit(ctx, abs)
	return ig, nil
}

// above is the path from top to dir, with a slash at its end, or "".
func above(top, dir string) string {
	rel, err := filepath.Rel(top, dir)
	if err != nil || rel == "." {
		return ""
	}
	return filepath.ToSlash(rel) + "/"
}

// workTree is the top of the git work tree that dir is in, or "".
func workTree(dir string) string {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// askGit asks which files are tracked though they are ignored. Where git is
// not there or has no answer there are none.
func (ig *ignore) askGit(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "-c", "core.fsmonitor=false", "-C", dir, "ls-files", "-z", "-c", "-i", "--exclude-standard")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") }) // in a hook they speak of another work tree
	var out limited
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return
	}
	ig.forced, ig.parents = map[string]bool{}, map[string]bool{}
	for p := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\x00"), "\x00") {
		ig.forced[p] = true
		for up := path.Dir(p); up != "." && !ig.parents[up]; up = path.Dir(up) {
			ig.parents[up] = true
		}
	}
}

// limited is a buffer that takes no more than gitOutputMax.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > gitOutputMax {
		return 0, fmt.Errorf("more than %d bytes", gitOutputMax)
	}
	return l.Buffer.Write(p)
}

// enter reads the rules on the way from the packed directory to name, which was
// asked for by itself. Where they ignore it, they do not count for what is below.
func (ig *ignore) enter(root *os.Root, name string, dir bool) {
	ig.levels = slices.Clone(ig.base)
	if name == "." {
		return
	}
	at := "."
	for part := range strings.SplitSeq(name, "/") {
		ig.load(root, at, true, true)
		at = path.Join(at, part)
	}
	if ig.judge(name, dir, false) != take {
		ig.levels = nil
	}
}

// push reads the rules of a directory, which pop takes away again.
func (ig *ignore) push(root *os.Root, name string, list []fs.DirEntry) {
	var git, ours bool
	for _, d := range list {
		git = git || d.Name() == gitIgnore
		ours = ours || d.Name() == labmeshIgnore
	}
	ig.load(root, name, git, ours)
}

func (ig *ignore) load(root *os.Root, name string, git, ours bool) {
	l := level{}
	if name != "." {
		l.below = name + "/"
	}
	if git {
		l.git = matcher(readRules(root.OpenFile(path.Join(name, gitIgnore), rulesFlags, 0)))
	}
	if ours {
		l.ours = matcher(readRules(root.OpenFile(path.Join(name, labmeshIgnore), rulesFlags, 0)))
	}
	ig.levels = append(ig.levels, l)
}

func (ig *ignore) pop() { ig.levels = ig.levels[:len(ig.levels)-1] }

// judge says what becomes of a path. Below an ignored directory (forced) only
// tracked files are taken.
func (ig *ignore) judge(name string, dir, forced bool) verdict {
	ignored, byUs := forced, false
	if m, ok := ig.match(name, dir, func(l level) *gitignore.Matcher { return l.ours }); ok {
		ignored, byUs = m || forced, m
	} else if m, ok := ig.match(name, dir, func(l level) *gitignore.Matcher { return l.git }); ok {
		ignored = m || forced
	}
	switch {
	case !ignored:
		return take
	case byUs:
		return leave
	case dir && ig.parents[name]:
		return onlyForced
	case !dir && ig.forced[name]:
		return take
	}
	return leave
}

// match asks the rules of one sort, the deepest first, whether a path is
// ignored. It is not ok where none speaks of it.
func (ig *ignore) match(name string, dir bool, sort func(level) *gitignore.Matcher) (ignored, ok bool) {
	for _, l := range slices.Backward(ig.levels) {
		m := sort(l)
		if m == nil {
			continue
		}
		rel := l.above + strings.TrimPrefix(name, l.below)
		if dir {
			rel += "/"
		}
		if r := m.MatchDetail(rel); r.Matched {
			return r.Ignored, true
		}
	}
	return false, false
}

func matcher(data []byte) *gitignore.Matcher {
	if len(data) == 0 {
		return nil
	}
	m := &gitignore.Matcher{}
	m.AddPatterns(data, "")
	return m
}

// rulesFlags neither wait for a pipe nor follow a link, as git does not.
const rulesFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW

// readRules reads a file of rules, or nothing where it cannot be read.
func readRules(f *os.File, err error) []byte {
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, ignoreBytesMax))
	if err != nil {
		return nil
	}
	return data
}

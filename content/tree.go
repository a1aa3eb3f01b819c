package content

import (
	"path"
	"strings"
)

// CheckTree refuses entries that cannot be a tree: bad paths, something below
// what is no directory, links that lead out. The entries are in order.
func CheckTree(files []File) error {
	links := map[string]string{}
	before := "" // the last entry that can have nothing below it
	for _, f := range files {
		if err := CheckPath(f.Path); err != nil {
			return err
		}
		if before != "" && strings.HasPrefix(f.Path, before) && f.Path[len(before)] == '/' {
			return bad("%q lies below %q, which is no directory with entries", f.Path, before)
		}
		before = f.Path
		if f.Kind == Link {
			links[f.Path] = f.Target
		}
	}
	if len(links) > LinksMax {
		return bad("%d symbolic links are more than %d", len(links), LinksMax)
	}
	for p := range links {
		if err := CheckLink(links, p); err != nil {
			return err
		}
	}
	return nil
}

// CheckLink refuses the link at p where it leads out of the tree, through other
// links of the tree too: a link that looks harmless by its text may leave by
// way of another. Where it leads to need not exist.
func CheckLink(links map[string]string, p string) error {
	target := links[p]
	switch {
	case target == "" || len(target) > PathBytesMax || strings.ContainsRune(target, 0):
		return bad("%q is a symbolic link without a proper target", p)
	case target[0] == '/':
		return bad("%q is a symbolic link to %q, which is absolute: make it relative, or leave it out with .labmeshignore", p, target)
	}
	var at []string // where we are, as names from the root of the tree
	if dir := path.Dir(p); dir != "." {
		at = strings.Split(dir, "/")
	}
	rest := strings.Split(target, "/")
	hops, steps := 0, 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if steps++; steps > linkStepsMax {
			return bad("%q is a symbolic link through too many names", p)
		}
		switch name {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return bad("%q is a symbolic link to %q, which leads out of the tree: leave it out with .labmeshignore", p, target)
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at, name)
		next, isLink := links[strings.Join(at, "/")]
		if !isLink {
			continue
		}
		if hops++; hops > linkHopsMax {
			return bad("%q is a symbolic link through more than %d links", p, linkHopsMax)
		}
		if strings.HasPrefix(next, "/") {
			return bad("%q is a symbolic link through %q, which leads out of the tree", p, strings.Join(at, "/"))
		}
		at = at[:len(at)-1]
		rest = append(strings.Split(next, "/"), rest...)
	}
	return nil
}

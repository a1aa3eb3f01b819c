package cgroup

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	v2          bool
	controllers []string // of v1: those that it holds
	own         string   // directory of the cgroup that this process is in
}

// hierarchies finds the trees of cgroups in the texts of /proc/self/mountinfo
// and /proc/self/cgroup, v2 first.
func hierarchies(mountinfo, own string) (out []hierarchy) {
	for line := range strings.Lines(own) {
		id, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		list, in, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || !strings.HasPrefix(in, "/") || strings.HasPrefix(in, "/..") {
			continue
		}
		h := hierarchy{v2: id == "0" && list == ""}
		if !h.v2 {
			h.controllers = strings.Split(list, ",")
		}
		for mount := range strings.Lines(mountinfo) {
			if dir, ok := h.at(mount, in); ok {
				h.own = dir
				out = append(out, h)
				break
			}
		}
	}
	slices.SortStableFunc(out, func(a, b hierarchy) int {
		switch {
		case a.v2 == b.v2:
			return 0
		case a.v2:
			return -1
		}
		return 1
	})
	return out
}

// at is the directory of the cgroup with path in below the mount that a line of
// mountinfo shows, if that is one of h.
func (h *hierarchy) at(line, in string) (dir string, ok bool) {
	mount, kind, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	fields, fs := strings.Fields(mount), strings.Fields(kind)
	if !ok || len(fields) < 5 || len(fs) < 3 {
		return "", false
	}
	root, point := unescape(fields[3]), unescape(fields[4])
	switch {
	case h.v2 && fs[0] != "cgroup2", !h.v2 && fs[0] != "cgroup":
		return "", false
	case !h.v2:
		options := strings.Split(fs[2], ",")
		for _, c := range h.controllers {
			if !slices.Contains(options, c) {
				return "", false
			}
		}
	}
	if root != "/" {
		below, found := strings.CutPrefix(in, root)
		if !found || below != "" && below[0] != '/' {
			return "", false // what is mounted does not hold our cgroup
		}
		in = below
	}
	return path.Join(point, in), true
}

// unescape reads the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/cgroup"
	"labmesh/exec/process"
	"labmesh/exec/sandbox"
)

const (
	gibBytes = 1 << 30

	// faultName begins the name of the file of an attempt's directory in which the
	// sandbox of one of its programs says that it could not be made.
	faultName = "sandbox-"
	// exitKilled is how a shell ends whose child was killed by SIGKILL.
	exitKilled = 128 + int(unix.SIGKILL)
)

// Option changes what New makes.
type Option func(*shop)

// In has tasks that ask for a sandbox run in one of b.
func In(b sandbox.Box) Option { return func(s *shop) { s.box = b } }

// limits are those of a that hold each of its programs.
func limits(a exec.Attempt) cgroup.Limits {
	l := a.Task.Spec.Limits
	if l == nil {
		return cgroup.Limits{}
	}
	return cgroup.Limits{CPUs: l.CPUs, Memory: int64(l.MemoryGB * gibBytes), Pids: l.Pids}
}

// umaskForm is how a umask is written.
var umaskForm = regexp.MustCompile(`^0?[0-7]{1,3}$`)

// checkPlace refuses a umask and a directory that make no sense.
func checkPlace(umask, dir string) error {
	switch {
	case umask != "" && !umaskForm.MatchString(umask):
		return labmesh.RefuseField("config.umask", "config: umask: %.20q is none: give it as octal digits, e.g. \"022\"", umask)
	case strings.ContainsRune(dir, 0):
		return labmesh.RefuseField("config.dir", "config: dir: it holds a NUL byte")
	case dir != "" && !filepath.IsAbs(dir) && !filepath.IsLocal(dir):
		return labmesh.RefuseField("config.dir", "config: dir: %.200q leads out of the work directory: give a path inside it, or an absolute one", dir)
	}
	return nil
}

// mask has c start with a umask.
func (s *shop) mask(c *process.Command, umask string) {
	if umask == "" {
		return
	}
	if n, err := strconv.ParseInt(umask, 8, 0); err == nil && s.host.Keeps() {
		mask := int(n)
		c.Umask = &mask
		return
	}
	// A umask is the whole process's: without a keeper only the program itself can set it.
	c.Args = append([]string{"sh", "-c", `umask "$1" && shift && exec "$@"`, "sh", umask, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}

// shut has c run in the sandbox that a asks for. What it returns says, when c has
// ended, why it did not run.
func (s *shop) shut(c *process.Command, a exec.Attempt) (why func() *problem, err error) {
	level := a.Task.Spec.Requirements.Sandbox
	if level == labmesh.SandboxNone {
		return func() *problem { return nil }, nil
	}
	fault := filepath.Join(a.Dir, faultName)
	if !s.host.Knows(*c) {
		_ = os.Remove(fault) // of the attempt's last program
	}
	p := sandbox.Program{Path: c.Path, Args: c.Args, Dir: c.Dir, Fault: fault, Work: []string{a.Work()}, Tmp: a.Tmp()}
	if info, err := os.Stat(a.Keep()); err == nil && info.IsDir() {
		p.Work = append(p.Work, a.Keep())
	}
	path, args, err := s.box.Wrap(level, p)
	if err != nil {
		return nil, &problem{labmesh.CauseSpawn, fmt.Sprintf("the sandbox %s cannot be made: %v", level, err)}
	}
	c.Path, c.Args = path, args
	return func() *problem {
		f, failed := sandbox.Fault(fault)
		switch {
		case !failed:
			return nil
		case f.Program:
			return &problem{labmesh.CauseProgram, f.Message}
		}
		return &problem{labmesh.CauseSpawn, fmt.Sprintf("the sandbox %s could not be made: %s", level, f.Message)}
	}, nil
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) } //nolint:gosec // it is not negative

// outOfMemory says that a program was killed because memory ran out, if it was.
func outOfMemory(a exec.Attempt, exit process.Exit) (message string, ok bool) {
	if !exit.OOM || exit.Signal != unix.SIGKILL && exit.Code != exitKilled {
		return "", false
	}
	peak := ""
	if exit.PeakMemory > 0 {
		peak = "; at its peak it took " + size(exit.PeakMemory)
	}
	if l := limits(a); l.Memory > 0 && exit.PeakMemory >= l.Memory-l.Memory/10 {
		return fmt.Sprintf("the program was killed because it took more memory than its limit of %s (limits.memory_gb)%s", size(l.Memory), peak), true
	}
	return "the program was killed because the memory that tasks may have of its worker ran out: require a worker with more (min_memory_gb), or one to itself (exclusive)" + peak, true
}

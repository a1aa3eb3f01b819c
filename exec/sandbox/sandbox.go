package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"labmesh"
)

const (
	probeTimeout = 5 * time.Second // for one program in one sandbox
	saidMax      = 300             // bytes of what a failed probe said
)

// The words after those of [Box.Self] that have [Main] play its parts.
const (
	Outer = "outer"
	Inner = "inner"
)

// Box makes sandboxes.
type Box struct {
	// Self is how this program is run so that it calls [Main] with the arguments
	// that follow: its path, which is not looked up, and its first arguments.
	Self []string
	// Bwrap is the path of bubblewrap; "" where it is not installed.
	Bwrap string
	// Hide are directories that a program in bubblewrap finds empty, but for what
	// it may write to: those that hold what is secret of the node.
	Hide []string
	// Show are directories among them that it may read all the same.
	Show []string
}

// Program is what is to be shut in.
type Program struct {
	Path string   // not looked up
	Args []string // the first of which is its own name
	Dir  string   // where it runs
	// Fault is a file that does not exist. It is written, with the reason, when the
	// program could not be started.
	Fault string
	// Work are directories that the program may write to, and Tmp is one that it
	// also finds as /tmp. They count for bubblewrap.
	Work []string
	Tmp  string
}

// New is a Box of this program, which finds bubblewrap on the PATH of environ.
func New(self []string, environ []string) Box {
	b := Box{Self: self}
	for _, v := range environ {
		path, ok := strings.CutPrefix(v, "PATH=")
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, "bwrap")
			if info, err := os.Stat(file); ok && b.Bwrap == "" && filepath.IsAbs(dir) && err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
				b.Bwrap = file
			}
		}
	}
	return b
}

// Wrap is the program to start in place of p so that p runs in a sandbox, and its
// arguments, the first of which is its own name.
func (b Box) Wrap(level labmesh.Sandbox, p Program) (path string, args []string, err error) {
	if len(b.Self) == 0 {
		return "", nil, errors.New("this node makes no sandboxes")
	}
	args = append(args, b.Self...)
	args = append(args, Outer, p.Fault)
	inner := append(append([]string{}, b.Self...), Inner)
	switch level {
	case labmesh.SandboxNoNetwork:
		args = append(args, string(level))
		args = append(args, inner...)
		args = append(args, "new")
	case labmesh.SandboxBubble:
		if b.Bwrap == "" {
			return "", nil, errors.New("bubblewrap is not installed")
		}
		args = append(args, string(level))
		args = append(args, b.bwrap(p)...)
		args = append(args, inner...)
		args = append(args, "made")
	default:
		return "", nil, fmt.Errorf("there is no sandbox %q", level)
	}
	return b.Self[0], append(append(args, p.Path), p.Args...), nil
}

// bwrap is the command line of bubblewrap up to the program.
func (b Box) bwrap(p Program) []string {
	args := []string{b.Bwrap, "--die-with-parent", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"}
	if p.Tmp != "" {
		args = append(args, "--bind", p.Tmp, "/tmp")
	}
	for _, dir := range b.Hide {
		args = append(args, "--tmpfs", dir)
	}
	for _, dir := range b.Show {
		args = append(args, "--ro-bind-try", dir, dir)
	}
	for _, file := range []string{b.Self[0], p.Path} { // they may be among what is hidden by now
		args = append(args, "--ro-bind", file, file)
	}
	for _, dir := range append(p.Work[:len(p.Work):len(p.Work)], p.Tmp) {
		if dir != "" {
			args = append(args, "--bind", dir, dir)
		}
	}
	return append(args, "--chdir", p.Dir, "--")
}

// Probe tries each sandbox with a program, and says which this machine can make,
// and of the others why not.
func (b Box) Probe(ctx context.Context) (have []labmesh.Sandbox, absent map[labmesh.Sandbox]string) {
	absent = make(map[labmesh.Sandbox]string)
	for _, level := range labmesh.Sandboxes() {
		if err := b.try(ctx, level); err != nil {
			absent[level] = err.Error()
			continue
		}
		have = append(have, level)
	}
	return have, absent
}

func (b Box) try(ctx context.Context, level labmesh.Sandbox) error {
	dir, err := os.MkdirTemp("", "labmesh-sandbox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	work, tmp := filepath.Join(dir, "work"), filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(work, 0o700), os.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	path, args, err := b.Wrap(level, Program{Path: "/bin/true", Args: []string{"true"}, Dir: work, Fault: filepath.Join(dir, "fault"), Work: []string{work}, Tmp: tmp})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = work, &said, &said, time.Second
	err = cmd.Run()
	fault, failed := Fault(filepath.Join(dir, "fault"))
	switch {
	case failed:
		return errors.New(fault.Message)
	case ctx.Err() != nil:
		return fmt.Errorf("/bin/true did not end in it within %s", probeTimeout)
	case err != nil:
		text := strings.TrimSpace(strings.ToValidUTF8(said.String(), "?"))
		return fmt.Errorf("/bin/true in it: %w %s", err, text[:min(len(text), saidMax)])
	}
	return nil
}

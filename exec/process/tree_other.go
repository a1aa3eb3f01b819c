//go:build !linux

package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const rssUnit = 1 // Maxrss counts bytes

// await waits until the program has ended and kills what is left of its group.
func (p *program) await() (*os.ProcessState, error) {
	state, err := p.proc.Wait()
	p.ended()
	return state, err
}

func bootID() string { return "" }

func startTime(int) uint64 { return 0 }

// killTokens does nothing: environments of others cannot be read here.
func killTokens(map[string]bool) {}

// sweep removes the records of an earlier life. Without start times it cannot
// tell its processes from others, and so kills none.
func sweep(ctx context.Context, dir string, _, _ []string) (int, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return 0, errors.Join(err, ctx.Err())
}

// cgroups are Linux's.
type cgroups struct{}

type leaf struct{}

func openCgroups(string) (*cgroups, error) { return nil, errors.New("this system has no cgroups") }

func (*cgroups) take() (*leaf, error)    { return nil, errors.ErrUnsupported }
func (*cgroups) give(*leaf) error        { return nil }
func (*cgroups) close() error            { return nil }
func (*leaf) enter(*syscall.SysProcAttr) {}
func (*leaf) empty() bool                { return true }
func (*leaf) kill()                      {}

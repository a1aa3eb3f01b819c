//go:build !linux

package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
func sweep(ctx context.Context, dir string, _ []string) (int, error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return 0, errors.Join(err, ctx.Err())
}

package duckdb

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	duck "github.com/duckdb/duckdb-go/v2"

	"labmesh"
	"labmesh/store"
)

// Limits on what a statement of a person may take besides DuckDB's own.
const (
	growthMax       = 512 << 20 // bytes by which the process may grow meanwhile
	parquetBytesMax = 1 << 30
	watchInterval   = 25 * time.Millisecond
)

var (
	errGrown = errors.New("the statement takes too much memory")
	errLarge = errors.New("the file grows too large")
)

// watch ends the context it returns when the process grows by more than
// growthMax, or a file in dir beyond parquetBytesMax. stop ends the watching.
func watch(ctx context.Context, dir string) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		base := resident()
		for {
			select {
			case <-watched.Done():
				return
			case <-ticker.C:
			}
			switch {
			case resident() > base+growthMax:
				cancel(errGrown)
			case largestFile(dir) > parquetBytesMax:
				cancel(errLarge)
			}
		}
	}()
	return watched, func() { cancel(nil); <-over }
}

// resident is the memory of this process in bytes, 0 where it cannot be told.
func resident() int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages := 0
	for _, c := range fields[1] {
		pages = pages*10 + int(c-'0')
	}
	return pages * os.Getpagesize()
}

func largestFile(dir string) (most int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
			most = max(most, info.Size())
		} else if !errors.Is(err, fs.ErrNotExist) {
			return most
		}
	}
	return most
}

// explain makes of err what the person who wrote the statement can act on.
func explain(ctx context.Context, q *store.Query, err error) error {
	var refusal *labmesh.Error
	if err == nil || errors.As(err, &refusal) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errGrown):
		return labmesh.Refuse(labmesh.TooLarge, "query: stopped: it took more than %d MB of memory; select fewer or smaller values", growthMax>>20)
	case errors.Is(cause, errLarge):
		return labmesh.Refuse(labmesh.TooLarge, "query: stopped: its file grew beyond %d MB; select less", parquetBytesMax>>20)
	case errors.Is(cause, context.DeadlineExceeded):
		return labmesh.Refuse(labmesh.Exhausted, "query: stopped: it did not end within %s; give it a longer timeout or ask for less", q.Timeout)
	case cause != nil:
		return cause
	}
	var fault *duck.Error
	if !errors.As(err, &fault) {
		return labmesh.Refuse(labmesh.Invalid, "query: %s", err)
	}
	switch fault.Type {
	case duck.ErrorTypeOutOfMemory:
		return labmesh.Refuse(labmesh.TooLarge, "query: it needs more memory than a statement may take here: %s", firstLine(fault.Msg))
	case duck.ErrorTypeInternal, duck.ErrorTypeFatal, duck.ErrorTypeIO, duck.ErrorTypeSerialization:
		return err
	}
	return labmesh.Refuse(labmesh.Invalid, "query: %s", fault.Msg)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
